"""Conversations: the last message is the value, those before it are asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.form import asking_of
from promptlimits.capacity.task.pairs import PairTask
from promptlimits.capacity.task.resolve import Source, read_source

SYSTEM = {"role": "system", "content": "Be brief."}
QUESTION = {"role": "user", "content": "Capital of France? "}
ANSWER = {"role": "assistant", "content": " Paris\n"}


def read(path: Path, *conversations: Any, field: str = "messages", **settings: Any) -> Source:
    lines = [json.dumps({field: messages, "id": n}) for n, messages in enumerate(conversations)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return read_source(str(path), **settings)


def pairs(source: Source) -> PairTask:
    assert isinstance(source.pairs, PairTask)
    return source.pairs


def test_messages(tmp_path: Path) -> None:
    source = read(tmp_path / "a.jsonl", [SYSTEM, QUESTION, ANSWER])
    (pair,) = pairs(source).pairs
    assert pair.turns == (("system", "Be brief."), ("user", "Capital of France? "))
    assert (pair.key, pair.value) == ("Capital of France? ", " Paris\n")
    assert source.asking.template == "{key}"
    assert pairs(source).notes[:2] == (
        "the last message of 'messages' is the value, those before it are asked",
        "fields not used: 'id'",
    )


def test_messages_in_an_array_are_no_array_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"data": [{"messages": [QUESTION, ANSWER]}], "messages": [{}]}))
    (pair,) = pairs(read_source(str(path))).pairs
    assert (pair.value, pair.where) == (" Paris\n", "a.json line 1, entry 1")


def test_the_default_template_of_the_command_line_does_not_touch_them(tmp_path: Path) -> None:
    source = read(tmp_path / "a.jsonl", [QUESTION, ANSWER], asking=asking_of(None))
    assert source.asking.template == "{key}"
    with pytest.raises(UserError, match="the template must be left out for conversations"):
        read(tmp_path / "a.jsonl", [QUESTION, ANSWER], asking=asking_of("{id}"))


def test_messages_in_parts_and_in_the_form_of_sharegpt(tmp_path: Path) -> None:
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}]}
    assert pairs(read(tmp_path / "a.jsonl", [parts, ANSWER])).pairs[0].key == "ab"
    shared = [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]
    (pair,) = pairs(read(tmp_path / "a.jsonl", shared, field="conversations")).pairs
    assert (pair.turns, pair.value) == ((("user", "x"),), "y")


def test_an_entry_without_messages_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 2: messages must be a list of messages, got null"):
        read(tmp_path / "a.jsonl", [QUESTION, ANSWER], None)


def test_one_question_behind_different_beginnings_is_two_pairs(tmp_path: Path) -> None:
    other = SYSTEM | {"content": "Be long."}
    source = read(tmp_path / "a.jsonl", [SYSTEM, QUESTION, ANSWER], [other, QUESTION, ANSWER])
    assert len(pairs(source).pairs) == 2
    with pytest.raises(UserError, match=r"line 2 must give the key .* only once, got the pair"):
        read(tmp_path / "a.jsonl", [QUESTION, ANSWER], [QUESTION, ANSWER])


def test_key_and_value_beside_messages_are_read_and_the_messages_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"key": "k", "value": "v", "messages": [QUESTION, ANSWER]}))
    (pair,) = pairs(read_source(str(path))).pairs
    assert (pair.key, pair.turns) == ("k", ())


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [ANSWER],
        [QUESTION],
        [QUESTION, ANSWER, QUESTION],
        [ANSWER, ANSWER],
        [QUESTION, {"role": "assistant", "content": None}],
        [QUESTION, {"role": "assistant", "tool_calls": []}],
        [QUESTION, {"role": "assistant", "content": "  "}],
        [{"role": "user", "content": [{"type": "image"}]}, ANSWER],
        ["text", ANSWER],
    ],
)
def test_other_forms_are_refused_in_one_line(messages: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a.jsonl line 1\b.* must ") as caught:
        read(tmp_path / "a.jsonl", messages)
    assert "\n" not in str(caught.value)
