"""The main job on a tiny model: its record, its files, and kills at any moment."""

import json
import math
import multiprocessing
import random
import shutil
import signal
import time
from dataclasses import replace
from fractions import Fraction

import pytest
from flint import arb
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.capacity.cases import (
    attempt_of,
    loaded,
    measured,
    result_of,
    verified,
    without_times,
)

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.base.exact import working_precision
from promptlimits.bounds.counting import Counting
from promptlimits.capacity.bracket import bracket_of
from promptlimits.capacity.ceiling import TaskCeiling, floor_bits, task_ceiling
from promptlimits.capacity.floor import Floor
from promptlimits.capacity.search.ordering import Order
from promptlimits.capacity.search.request import PromptSize, Request
from promptlimits.capacity.search.search import SearchConfig
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.random_tokens import random_pairs
from promptlimits.capacity.task.text import TextSpec, text_task
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.problem import Outcome
from promptlimits.certificates import check_certificate
from promptlimits.nets.protocol import PromptKind
from promptlimits.record.record import read_record

KILLS = 20
SIZE = PromptSize(PromptKind.SOFT, 1)
TRAINING = TrainingConfig(prompt_tokens=1, learning_rate=0.3, max_steps=60, patience=30)
REQUEST = Request(
    prompt_tokens=(2, 4),
    search=SearchConfig(training=TRAINING, first_size=2, starts=2),
    order=Order.EASIEST,
    budget_seconds=math.inf,
    command="promptlimits bracket",
)


def work(model_directory, folder, request=REQUEST):
    """One command, from loading to the record."""
    model = loaded(model_directory)
    task = random_pairs(model.codec, count=6, seed=0)
    return measured(model, task, request, folder)


def killed_after(context, model_directory, folder, seconds):
    """Run the command in a process and kill it; whether it had ended by itself before."""
    child = context.Process(target=work, args=(model_directory, folder))
    child.start()
    child.join(seconds)
    ended = child.exitcode is not None
    if not ended:
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
    else:
        assert child.exitcode == 0
    return ended


def stored(folder):
    """Everything a store says of its runs, less times."""
    with Store.open(folder / "store.sqlite") as store:
        return [
            (
                run.spec_hash,
                run.outcome,
                run.steps,
                json.dumps(run.result, sort_keys=True),
                store.artifact(run.id),
                json.dumps(without_times(store.curve(run.id)), sort_keys=True),
            )
            for run in store.runs()
        ]


@pytest.fixture(scope="module")
def tiny(tiny_gpt2):
    return tiny_gpt2


@pytest.fixture(scope="module")
def task(model):
    return random_pairs(model.codec, count=6, seed=0)


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """One command that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, *work(tiny, folder)


@pytest.mark.slow  # decodes both prompts in fresh processes, which import torch
def test_the_record_says_what_was_done(whole):
    folder, record, notes = whole
    parsed = read_record(record)
    assert [bracket.prompt_tokens for bracket in parsed.brackets] == [2, 4]
    for bracket in parsed.brackets:
        assert bracket.floor.pairs >= 1
        assert bracket.ceiling.pairs is not None
        assert bracket.floor.pairs <= bracket.ceiling.pairs
        assert bracket.floor.bits <= bracket.ceiling.bits
        assert bracket.floor.witness is not None
        witness = json.loads((folder / bracket.floor.witness / "witness.json").read_text())
        exact = [answer["exact"] for answer in witness["verification"]["answers"]]
        assert sum(exact) == bracket.floor.pairs
        certificate = json.loads((folder / bracket.ceiling.certificate).read_text())
        check_certificate(certificate)
    assert json.loads((folder / "bracket.json").read_text()) == record
    names = [baseline.name for baseline in parsed.baselines]
    assert names == ["no prompt", "in context"]
    assert {length for length, _ in notes.steps} == {2, 4}
    for bracket in parsed.brackets:
        # Runs that ended hold a size that failed, or the whole list.
        whole_list = bracket.stopped_because == "the whole list is held"
        assert (bracket.control is None) == whole_list
        assert bracket.control is None or bracket.control.status == "measured"
    assert any(bracket.control for bracket in parsed.brackets)


@pytest.mark.slow  # decodes a prompt in a fresh process
def test_the_control_can_be_left_out_and_changes_no_floor(tiny, whole, tmp_path):
    record, _ = work(tiny, tmp_path, replace(REQUEST, control=False))
    brackets = read_record(record).brackets
    assert [bracket.control for bracket in brackets] == [None, None]
    expected = [bracket.floor.pairs for bracket in read_record(whole[1]).brackets]
    assert [bracket.floor.pairs for bracket in brackets] == expected


@pytest.mark.slow  # loads models again and again
def test_the_same_command_returns_at_once(tiny, whole):
    folder, record, _ = whole
    before = stored(folder)
    again, notes = work(tiny, folder)
    assert again == record
    assert notes.steps == []
    assert stored(folder) == before


@pytest.mark.slow  # decodes a prompt in a fresh process
def test_a_witness_that_was_touched_is_made_again_not_believed(tiny, whole, tmp_path):
    folder, record, _ = whole
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    adapter = tmp_path / "witness-2-tokens" / "adapter_model.safetensors"
    changed = bytearray(adapter.read_bytes())
    changed[-1] ^= 1
    adapter.write_bytes(changed)
    again, notes = work(tiny, tmp_path)
    assert notes.steps == []
    assert without_times(again) == without_times(record)
    assert adapter.read_bytes() == (folder / adapter.relative_to(tmp_path)).read_bytes()


@pytest.mark.slow  # decodes a prompt in a fresh process
def test_another_command_in_the_same_folder_does_not_lend_its_files(tiny, whole, tmp_path):
    folder, record, _ = whole
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    training = replace(TRAINING, seed=5)
    other = replace(REQUEST, prompt_tokens=(2,), search=replace(REQUEST.search, training=training))
    work(tiny, tmp_path, other)
    again, notes = work(tiny, tmp_path)
    assert notes.steps == []
    assert without_times(again) == without_times(record)


def floor_of(model, task, exact, claimed, unprompted):
    floor = Floor(targets=task.targets, witness="w", verification=verified(exact), claimed=claimed)
    ceiling = task_ceiling(model.card, task, size=SIZE)
    return bracket_of(floor, ceiling, result_of(), unprompted=unprompted).floor


def test_pairs_answered_without_a_prompt_are_not_credited_to_it(model, task):
    exact = [index != 2 for index in range(6)]
    floor = floor_of(model, task, exact, (0, 1, 2, 3, 4, 5), frozenset({0, 5}))
    assert (floor.pairs, floor.tokens, floor.also_answered_unprompted) == (3, None, 2)
    assert [answer.counted for answer in floor.answers] == [
        False, True, False, True, True, False
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("claimed", "unprompted", "tokens", "pairs"),
    [
        (6, 0, 7, 1),
        (3, 0, 4, 0),
        # What the model writes by itself is a shorter beginning, or as long a one.
        (3, 3, 4, 0),
        (3, 4, 0, 0),
        (6, 7, 0, 0),
    ],
)
def test_the_floor_of_a_text_is_in_tokens(claimed, unprompted, tokens, pairs, model):
    spec = TextSpec(text="the dog and the cat: one two", file="t.txt", tokens=7)
    text = text_task(spec, model.codec)
    floor = floor_of(model, text, [True], (claimed,), frozenset(range(unprompted)))
    assert (floor.tokens, floor.pairs) == (tokens, pairs)
    assert floor.witness == ("w" if tokens else None)
    (answer,) = floor.answers
    assert answer.counted == (tokens != 0)


@pytest.mark.parametrize("size", [2, 8, 2**40])
def test_bits_of_a_power_of_two_are_whole(size, model, task):
    ceiling = task_ceiling(model.card, replace(task, answer_set_size=size), size=SIZE)
    each = size.bit_length() - 1
    assert floor_bits(ceiling, 3) == 3 * each
    assert ceiling.answer_bits == each * (ceiling.pairs or 0)


@given(st.integers(2, 10**9), st.integers(1, 10**4))
@settings(max_examples=60, deadline=None)
def test_floor_bits_are_rounded_down_and_ceiling_bits_up(size, pairs):
    sizes = {"dim": 3, "prompt_tokens": 2, "values": "float32", "answers": size}
    ceiling = TaskCeiling(
        counting=Counting.model_validate(sizes),
        answer_set="",
        answers_random=True,
        kind=PromptKind.SOFT,
        stored_bits=192,
        certificate_name="",
    )
    low, most = Fraction(floor_bits(ceiling, pairs)), ceiling.pairs or 0
    high = Fraction(ceiling.answer_bits)
    # 2^low <= M^pairs and M^most <= 2^high, with integer exponents on a grid of 1/8.
    assert 2 ** math.floor(8 * low) <= size ** (8 * pairs)
    assert size ** (8 * most) <= 2 ** math.ceil(8 * high)
    assert floor_bits(ceiling, most) <= ceiling.answer_bits
    with working_precision(400):
        exact = pairs * arb(size).log() / arb(2).log()
        # Equal for powers of two, where no ball can tell.
        assert arb(floor_bits(ceiling, pairs)) <= exact + arb(2) ** -300


def test_every_choice_among_the_list_is_counted(model, task):
    # Two answers and a list far longer than the ceiling: there the choice costs most.
    pairs, places = task.pairs[:1] * 20_000, task.places[:1] * 20_000
    coins = replace(task, pairs=pairs, places=places, answer_set_size=2)
    found = task_ceiling(model.card, coins, size=SIZE)
    sizes = {"dim": model.card.dim, "prompt_tokens": 1, "values": "float32", "answers": 2}
    all_of_a_list = Counting.model_validate(sizes).value()["pairs"]
    assert found.pairs is not None
    assert found.pairs > 5 * all_of_a_list
    assert found.stated.pool == 20_000


@pytest.mark.slow  # 20 kills, then a whole run
def test_kills_at_random_moments_change_nothing(tiny, whole, tmp_path):
    folder, record, _ = whole
    # Imports are done once: each child then starts within a fraction of a second.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    moments = random.Random(0)
    killed = 0
    began = time.monotonic()
    while killed < KILLS:
        if killed_after(context, tiny, tmp_path, moments.uniform(0.3, 2.5)):
            # It came through: the next kills hit another work, from its start.
            assert without_times(stored_record(tmp_path)) == without_times(record)
            for path in tmp_path.glob("store.sqlite*"):
                path.unlink()
            (tmp_path / "bracket.json").unlink()
        else:
            killed += 1
        assert time.monotonic() - began < 600
    final, _ = work(tiny, tmp_path)
    assert without_times(final) == without_times(record)
    assert stored(tmp_path) == stored(folder)


def stored_record(folder):
    return json.loads((folder / "bracket.json").read_text())


@pytest.mark.slow  # decodes a prompt in a fresh process
def test_out_of_budget_is_no_loss_and_a_larger_budget_goes_on(tiny, whole, tmp_path):
    short = replace(REQUEST, budget_seconds=1e-3)
    first, notes = work(tiny, tmp_path, short)
    assert notes.steps == []
    brackets = read_record(first).brackets
    assert [bracket.floor.pairs for bracket in brackets] == [0, 0]
    assert {bracket.state for bracket in brackets} == {"not_searched"}
    assert all("budget was used up" in bracket.stopped_because for bracket in brackets)
    for bracket in brackets:
        assert bracket.control.status == "not run"
        assert "it limits the floor" in bracket.control.conclusion
    full, _ = work(tiny, tmp_path)
    expected = [bracket.floor.pairs for bracket in read_record(whole[1]).brackets]
    assert [bracket.floor.pairs for bracket in read_record(full).brackets] == expected


def test_a_prompt_longer_than_the_context_is_refused_before_any_work(tiny, tmp_path):
    with pytest.raises(UserError, match="fit into the model's context"):
        work(tiny, tmp_path, replace(REQUEST, prompt_tokens=(1, 500)))
    assert not (tmp_path / "bracket.json").exists()


@pytest.mark.slow  # trains, and decodes in fresh processes
def test_a_floor_above_the_ceiling_of_random_answers_is_never_printed(tiny, tmp_path, monkeypatch):
    from promptlimits.capacity import bracket as module

    monkeypatch.setattr(module.TaskCeiling, "pairs", property(lambda _self: 0))
    with pytest.raises(RunFailed, match="above the ceiling of 0"):
        work(tiny, tmp_path, replace(REQUEST, prompt_tokens=(4,)))
    assert not (tmp_path / "bracket.json").exists()


def test_the_control_takes_a_share_of_the_time_of_its_length_once_a_size_has_failed(
    tiny, tmp_path, monkeypatch
):
    from promptlimits.capacity import job as module
    from promptlimits.capacity.search import control as control_module

    seconds = {}

    def searched(_place, _pairs, config, **given):
        searching = given["should_stop"].__self__
        seconds["before"] = searching._until.left_seconds
        failed = attempt_of(2, Outcome.STALLED)
        for _ in range(config.starts):
            given["on_attempt"](failed)
        seconds["search"] = searching._until.left_seconds
        return result_of(failed)

    def controlled(*_given, should_stop, **_options):
        seconds["control"] = should_stop.__self__.left_seconds

    monkeypatch.setattr(module, "search_list", searched)
    monkeypatch.setattr(control_module, "run_control", controlled)
    once = replace(REQUEST, prompt_tokens=(2,), budget_seconds=10_000.0)
    work(tiny, tmp_path, once)
    both = seconds["search"] + seconds["control"]
    assert seconds["control"] / both == pytest.approx(0.15, rel=0.01)
    assert seconds["before"] == pytest.approx(both, rel=0.02)
    assert both < 10_000
    seconds.clear()
    work(tiny, tmp_path, replace(once, control=False))
    for moment in ("before", "search"):
        assert seconds[moment] == pytest.approx(both, rel=0.02)
