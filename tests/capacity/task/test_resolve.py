"""From a reference to a task."""

import pytest

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.form import Asking
from promptlimits.capacity.task.resolve import load_task


def test_capitals(codec):
    task = load_task("capitals", codec)
    assert (task.name, len(task.pairs), task.answer_set_size) == ("capitals", 246, 243)


def test_random(codec):
    task = load_task(" random:12,2,3 ", codec, seed=5)
    assert len(task.pairs) == 12
    assert {len(pair.key_ids) for pair in task.pairs} == {2}
    assert {len(pair.value_ids) for pair in task.pairs} == {4}
    assert len(load_task("random:7", codec).pairs) == 7
    assert task.hash != load_task("random:12,2,3", codec, seed=6).hash


def test_file(codec, tmp_path):
    path = tmp_path / "facts.csv"
    path.write_text("key,value\nFrance,Paris\n", encoding="utf-8")
    assert load_task(str(path), codec).pairs[0].value == "Paris"


def test_template(codec):
    task = load_task("capitals", codec, asking=Asking(template="{key}:"))
    assert task.pairs[0].key == "Afghanistan:"
    assert task.pairs[0].key_ids == codec.encode_key("Afghanistan:")
    assert task.answer_set_size == 243
    assert task.hash != load_task("capitals", codec).hash
    assert task.pairs[0].joiner == " "
    asking = Asking(template="{key}:")
    assert load_task("random:5", codec, asking=asking).pairs == load_task("random:5", codec).pairs


@pytest.mark.parametrize("asking", [Asking(chat=True), Asking(joiner="")])
@pytest.mark.parametrize("reference", ["random:5", "text:story.txt"])
def test_what_is_put_as_it_is_takes_no_chat_and_no_joiner(codec, asking, reference):
    with pytest.raises(UserError, match=r"(chat|joiner) must stand with a list of pairs"):
        load_task(reference, codec, asking=asking)


def test_limits_are_nested_and_seeded(codec):
    small = load_task("capitals", codec, seed=1, limit=8)
    large = load_task("capitals", codec, seed=1, limit=20)
    assert large.pairs[:8] == small.pairs
    assert len({pair.key for pair in large.pairs}) == 20
    assert small.notes[-2] == "8 of 246 pairs, drawn with seed 1"
    assert small.answer_set_size == 8
    assert small.pairs != load_task("capitals", codec, seed=2, limit=8).pairs
    everything = load_task("capitals", codec, limit=246)
    assert {pair.key for pair in everything.pairs} == {
        pair.key for pair in load_task("capitals", codec).pairs
    }


def test_limit_on_random_pairs_is_their_beginning(codec):
    assert (
        load_task("random:20,2", codec, seed=1, limit=5).pairs
        == load_task("random:20,2", codec, seed=1).pairs[:5]
    )


@pytest.mark.parametrize(
    "reference",
    [
        "random",
        "random:",
        "random:0",
        "random:-3",
        "random:x",
        "random:1.5",
        "random:1_000",
        "random:٣",
        "random:+3",
        "random:3,",
        "random:3,0",
        "random:3,1,1,1",
        "random:9999999999",
        "random:" + "9" * 5000,
    ],
)
def test_bad_random(codec, reference):
    with pytest.raises(UserError, match="random:COUNT") as caught:
        load_task(reference, codec)
    assert "; write random:64" in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("reference", ["", "  ", "capital", "no\nsuch"])
def test_unknown_name(codec, reference):
    with pytest.raises(
        UserError, match=r"must be capitals, random:COUNT, text:FILE, or a \.csv"
    ) as caught:
        load_task(reference, codec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limit", [0, -1, 2.0, True, 247])
def test_bad_limit(codec, limit):
    with pytest.raises(UserError, match="limit must"):
        load_task("capitals", codec, limit=limit)


def test_limit_above_random_count(codec):
    with pytest.raises(UserError, match="limit must be at most 5"):
        load_task("random:5", codec, limit=6)


def test_bad_seed(codec):
    with pytest.raises(UserError, match="seed must"):
        load_task("capitals", codec, seed=-1)
