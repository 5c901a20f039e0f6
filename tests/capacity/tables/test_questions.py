"""Questions with choices: the letter of the right one, however the file says which that is."""

import json

import pytest

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.form import asking_of
from promptlimits.capacity.tables.reading import Reading
from promptlimits.capacity.task.pairs import PairTask, read_pairs
from promptlimits.capacity.task.resolve import read_source

TEMPLATE = "{key}\n{choices}\nAnswer:"


def ask(path, rows, *choices, **reading):
    path.write_text(json.dumps(rows), encoding="utf-8")
    named = Reading(choices=choices, **(reading or {"answer": "answer"}))
    return read_pairs(path, reading=named, template=TEMPLATE)


def rows(answers, **cells):
    return [{"question": f"Q{n}", **cells, "answer": one} for n, one in enumerate(answers)]


def right(task):
    return [pair.value for pair in task.pairs]


def test_a_number_counts_the_choices_that_are_missing_from_its_row(tmp_path):
    several = [
        {"question": "P", "A": "3", "B": "4", "C": "5", "D": "6", "answer": 0},
        {"question": "Q", "A": "x", "B": "", "C": "y", "D": "z", "answer": 2},
        {"question": "R", "A": "x", "B": "", "C": "y", "D": "z", "answer": 3},
    ]
    assert right(ask(tmp_path / "gaps.json", several, *"ABCD")) == ["A", "C", "D"]
    for row in several:
        row["answer"] += 1
    assert right(ask(tmp_path / "gaps.json", several, *"ABCD")) == ["A", "C", "D"]
    several[0]["answer"] = 3
    assert right(ask(tmp_path / "gaps.json", several, *"ABCD")) == ["C", "C", "D"]


LETTERS = {"A": "3", "B": "4", "C": "5", "D": "6"}
LIST = {"choices": ["three", "four", "five", "six"]}
SIDES = {"sol1": "push", "sol2": "pull"}


@pytest.mark.parametrize(
    ("answers", "cells", "choices", "expected", "way"),
    [
        (["B", "C", "A"], LETTERS, tuple("ABCD"), ["B", "C", "A"], "names of choices"),
        (["b", "c", "a"], LETTERS, tuple("ABCD"), ["B", "C", "A"], "names of choices"),
        (["4", "5", "3"], LETTERS, tuple("ABCD"), ["B", "C", "A"], "texts of choices"),
        ([1, 0, 3], LIST, ("choices",), ["B", "A", "D"], "numbers of choices, counted from 0"),
        ([1], LIST, ("choices",), ["B"], "numbers of choices, counted from 0"),
        ([1, 2, 4], LIST, ("choices",), ["A", "B", "D"], "numbers of choices, counted from 1"),
        (["four", "six"], LIST, ("choices",), ["B", "D"], "texts of choices"),
        (["B", "A"], LIST, ("choices",), ["B", "A"], "names of choices"),
        ([0, 1], SIDES, ("sol1", "sol2"), ["A", "B"], "numbers of choices, counted from 0"),
        (["1", "2"], SIDES, ("sol1", "sol2"), ["A", "B"], "numbers of choices, counted from 1"),
        (["sol2", "sol1"], SIDES, ("sol1", "sol2"), ["B", "A"], "names of choices"),
        (
            ["2", "1"],
            {"choices": {"text": ["x", "y"], "label": ["1", "2"]}},
            ("choices",),
            ["2", "1"],
            "names of choices",
        ),
    ],
)
def test_the_answer_is_read_by_the_one_way_that_fits_all(
    answers, cells, choices, expected, way, tmp_path
):
    task = ask(tmp_path / "a.json", rows(answers, **cells), *choices)
    assert right(task) == expected
    first = f"line 1, entry 1 is {expected[0]}"
    assert task.notes[0] == f"answers in 'answer' are read as {way}: '{answers[0]}' of {first}"


def test_the_key_shows_the_choices(tmp_path):
    task = ask(tmp_path / "a.json", rows(["B"], **LETTERS), *"ABCD")
    assert task.pairs[0].key == "Q0\nA. 3\nB. 4\nC. 5\nD. 6\nAnswer:"
    listed = ask(tmp_path / "a.json", rows([0], **SIDES), "sol1", "sol2")
    assert listed.pairs[0].key == "Q0\nA. push\nB. pull\nAnswer:"
    assert not any("not used" in note for note in task.notes)


def test_a_choice_that_a_row_lacks_is_no_choice_of_it(tmp_path):
    several = rows(["C", "A"], A="x", B="y", C="z")
    several[1]["B"] = None
    task = ask(tmp_path / "a.json", several, *"ABC")
    assert right(task) == ["C", "A"]
    assert task.pairs[1].key == "Q1\nA. x\nC. z\nAnswer:"


def test_rows_without_an_answer_are_left_out(tmp_path):
    task = ask(tmp_path / "a.json", rows([None, "B"], **LETTERS), *"ABCD")
    assert right(task) == ["B"]
    assert task.notes[0] == "1 entry without an answer left out, the first on line 1, entry 1"


@pytest.mark.parametrize(
    ("answers", "cells", "choices", "words"),
    [
        (["B", "E"], LETTERS, tuple("ABCD"), "entry 2: answer must name one of the choices"),
        ([0, 4], LIST, ("choices",), "entry 2: answer must name"),
        (["seven"], LIST, ("choices",), "got 'seven'"),
        (["A"], {"A": "B", "B": "A"}, ("A", "B"), "stands for A and is the text of B"),
        ([1], {"choices": ["1", "2"]}, ("choices",), "stands for B and is the text of A"),
        ([0], {"choices": ["one"]}, ("choices",), "hold 2 to 26 choices"),
        ([0], {"choices": ["x"] * 27}, ("choices",), "hold 2 to 26 choices"),
        (["A"], {f"c{n}": "x" for n in range(27)}, tuple(f"c{n}" for n in range(27)), "at most 26"),
        ([0], {"choices": "A, B"}, ("choices",), "hold a list of choices"),
    ],
)
def test_what_cannot_be_told_is_refused(answers, cells, choices, words, tmp_path):
    with pytest.raises(UserError) as caught:
        ask(tmp_path / "a.json", rows(answers, **cells), *choices)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_template_of_ones_own_shows_what_it_names(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows(["B"], **LETTERS)))
    reading = Reading(choices=tuple("ABCD"), answer="answer")
    task = read_pairs(path, reading=reading, template="{question} {B} or {A}?")
    assert task.pairs[0].key == "Q0 4 or 3?"


SYSTEM = {"role": "system", "content": "Be brief."}
QUESTION = {"role": "user", "content": "Capital of France? "}
ANSWER = {"role": "assistant", "content": " Paris\n"}


def read(path, *conversations, field="messages", **settings):
    lines = [json.dumps({field: messages, "id": n}) for n, messages in enumerate(conversations)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return read_source(str(path), **settings)


def pairs(source):
    assert isinstance(source.pairs, PairTask)
    return source.pairs


def test_messages(tmp_path):
    source = read(tmp_path / "a.jsonl", [SYSTEM, QUESTION, ANSWER])
    (pair,) = pairs(source).pairs
    assert pair.turns == (("system", "Be brief."), ("user", "Capital of France? "))
    assert (pair.key, pair.value) == ("Capital of France? ", " Paris\n")
    assert source.asking.template == "{key}"
    assert pairs(source).notes[:2] == (
        "the last message of 'messages' is the value, those before it are asked",
        "fields not used: 'id'",
    )


def test_messages_in_an_array_are_no_array_of_rows(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"data": [{"messages": [QUESTION, ANSWER]}], "messages": [{}]}))
    (pair,) = pairs(read_source(str(path))).pairs
    assert (pair.value, pair.where) == (" Paris\n", "a.json line 1, entry 1")


def test_the_default_template_of_the_command_line_does_not_touch_them(tmp_path):
    source = read(tmp_path / "a.jsonl", [QUESTION, ANSWER], asking=asking_of(None))
    assert source.asking.template == "{key}"
    with pytest.raises(UserError, match="the template must be left out for conversations"):
        read(tmp_path / "a.jsonl", [QUESTION, ANSWER], asking=asking_of("{id}"))


def test_messages_in_parts_and_in_the_form_of_sharegpt(tmp_path):
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}]}
    assert pairs(read(tmp_path / "a.jsonl", [parts, ANSWER])).pairs[0].key == "ab"
    shared = [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]
    (pair,) = pairs(read(tmp_path / "a.jsonl", shared, field="conversations")).pairs
    assert (pair.turns, pair.value) == ((("user", "x"),), "y")


def test_an_entry_without_messages_is_named(tmp_path):
    with pytest.raises(UserError, match="line 2: messages must be a list of messages, got null"):
        read(tmp_path / "a.jsonl", [QUESTION, ANSWER], None)


def test_one_question_behind_different_beginnings_is_two_pairs(tmp_path):
    other = SYSTEM | {"content": "Be long."}
    source = read(tmp_path / "a.jsonl", [SYSTEM, QUESTION, ANSWER], [other, QUESTION, ANSWER])
    assert len(pairs(source).pairs) == 2
    with pytest.raises(UserError, match=r"line 2 must give the key .* only once, got the pair"):
        read(tmp_path / "a.jsonl", [QUESTION, ANSWER], [QUESTION, ANSWER])


def test_key_and_value_beside_messages_are_read_and_the_messages_are_not(tmp_path):
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
def test_other_forms_are_refused_in_one_line(messages, tmp_path):
    with pytest.raises(UserError, match=r"a.jsonl line 1\b.* must ") as caught:
        read(tmp_path / "a.jsonl", messages)
    assert "\n" not in str(caught.value)
