"""Which columns are read, how they are put, and advice that is right when it is followed."""

import re
import shlex

import pytest

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.form import asking_of
from promptlimits.capacity.tables.reading import Reading, parse_choices
from promptlimits.capacity.task.resolve import read_source

ALPACA = (
    '{"instruction": "Name the capital.", "input": "France", "output": "Paris"}\n'
    '{"instruction": "Name the capital.", "input": "Peru", "output": "Lima"}\n'
)


def read(path, text, *typed, limit=None):
    """What a command reads that is given these options."""
    path.write_text(text, encoding="utf-8")
    options = dict(zip(typed[::2], typed[1::2], strict=True))
    reading = Reading(
        columns=options.pop("--columns", None),
        answer=options.pop("--answer", None),
        choices=parse_choices(options.pop("--choices", None)),
    )
    asking = asking_of(options.pop("--template", None), choices=bool(reading.choices))
    assert not options
    return read_source(str(path), asking=asking, reading=reading, limit=limit)


def asked(source):
    """Key as it is put, and value."""
    template = source.asking.template
    return [(template.replace("{key}", pair.key), pair.value) for pair in source.pairs.pairs]


def notes(source):
    return source.pairs.notes


def test_two_columns_are_named(tmp_path):
    source = read(tmp_path / "a.tsv", "question\tanswer\nx\ty\n", "--columns", "question=answer")
    assert asked(source) == [("x:", "y")]
    assert notes(source) == ()


def test_names_of_columns_may_hold_the_sign(tmp_path):
    source = read(tmp_path / "a.csv", "a=b,c\n1,2\n", "--columns", "a=b=c")
    assert asked(source) == [("1:", "2")]
    with pytest.raises(UserError, match="columns must be KEY=VALUE"):
        read(tmp_path / "b.csv", "a=b,c,a,b=c\n1,2,3,4\n", "--columns", "a=b=c")


@pytest.mark.parametrize(
    ("template", "keys"),
    [
        (r"{instruction}\n{input}", ["Name the capital.\nFrance", "Name the capital.\nPeru"]),
        (
            r"{instruction}\t{{{input}}}:",
            ["Name the capital.\t{France}:", "Name the capital.\t{Peru}:"],
        ),
        (r"{input}\\n", ["France\\n", "Peru\\n"]),
        ("{input} \\d", ["France \\d", "Peru \\d"]),
    ],
)
def test_a_template_of_columns_makes_the_keys(template, keys, tmp_path):
    source = read(tmp_path / "a.jsonl", ALPACA, "--template", template, "--answer", "output")
    assert [key for key, _ in asked(source)] == keys
    assert any("keys are made of the columns by the template" in note for note in notes(source))


def test_key_in_a_template_is_the_named_column(tmp_path):
    typed = ("--columns", "input=output", "--template", r"{instruction}\n{key}:")
    assert asked(read(tmp_path / "a.jsonl", ALPACA, *typed))[0] == (
        "Name the capital.\nFrance:",
        "Paris",
    )


def test_braces_around_a_key_alone(tmp_path):
    source = read(tmp_path / "a.csv", "key,value\nx,y\n", "--template", "{{{key}}}")
    assert asked(source) == [("{x}", "y")]
    built_in = read_source("capitals", asking=asking_of("{{{key}}}"))
    assert asked(built_in)[0] == ("{Afghanistan}", "Kabul")


def test_empty_and_missing_input(tmp_path):
    row = '{"instruction": "Say hello.", "input": %s, "output": "Hello"}\n'
    typed = ("--template", r"{instruction}\n{input}", "--answer", "output")
    for cell in ('""', "null"):
        assert asked(read(tmp_path / "a.jsonl", row % cell, *typed))[0][0] == "Say hello.\n"
    without = '{"instruction": "Say bye.", "output": "Bye"}\n'
    with pytest.raises(UserError, match="line 2 must have the field 'input' as other rows do"):
        read(tmp_path / "a.jsonl", row % '"x"' + without, *typed)


def test_the_answer_alone_is_named_where_one_other_column_is_left(tmp_path):
    assert asked(read(tmp_path / "a.csv", "q,a\nx,y\n", "--answer", "a")) == [("x:", "y")]
    with pytest.raises(UserError, match="header with the columns"):
        read(tmp_path / "a.csv", "q,a,c\nx,y,z\n", "--answer", "a")


def test_keys_that_another_column_tells_apart(tmp_path):
    with pytest.raises(UserError) as caught:
        read(tmp_path / "a.jsonl", ALPACA, "--columns", "instruction=output")
    advice = typed_in(str(caught.value))
    assert advice == ["--template", r"{key}\n{input}"]
    source = read(tmp_path / "a.jsonl", ALPACA, "--columns", "instruction=output", *advice)
    assert asked(source)[1] == ("Name the capital.\nPeru", "Lima")


def test_templates_of_columns_are_told_apart_by_their_own_fields(tmp_path):
    rows = [("a", "b", "1", "x"), ("a", "b", "2", "y")]
    text = "one,two,three,answer\n" + "".join(f"{','.join(row)}\n" for row in rows)
    with pytest.raises(UserError, match="tell them apart by another column") as caught:
        read(tmp_path / "a.csv", text, "--template", "{one}: {two}", "--answer", "answer")
    advice = typed_in(str(caught.value))
    assert advice == ["--template", r"{one}\n{two}\n{three}"]
    source = read(tmp_path / "a.csv", text, "--answer", "answer", *advice)
    assert [key for key, _ in asked(source)] == ["a\nb\n1", "a\nb\n2"]


def test_what_a_note_says_of_an_unused_column_is_right(tmp_path):
    text = '{"key": "Name the capital.", "input": "France", "value": "Paris"}\n'
    (note,) = notes(read(tmp_path / "a.jsonl", text))
    assert note.startswith("fields not used: 'input'; ")
    source = read(tmp_path / "a.jsonl", text, *typed_in(note))
    assert asked(source) == [("Name the capital.\nFrance", "Paris")]


def typed_in(message):
    """The options that a message tells its reader to type, the last ones if it gives several."""
    text = re.split(r"; |, or ", message)[-1]
    words = shlex.split(text[text.index("--") :])
    return words[: next((n for n, word in enumerate(words) if n % 2 == 0 and word[0] != "-"), None)]


MCQ = "question,A,B,C,D,answer\nWhat is 2+2?,3,4,5,6,B\nCapital of Peru?,Lima,Cusco,Quito,Uyuni,A\n"


@pytest.mark.parametrize(
    ("name", "text", "pairs"),
    [
        ("a.csv", "country,capital\nx,y\n", [("x:", "y")]),
        ("a.csv", "the country,its capital\nx,y\n", [("x:", "y")]),
        ("a.csv", "answer,question\ny,x\n", [("x:", "y")]),
        ("a.csv", "value,Name\ny,x\n", [("x:", "y")]),
        ("a.csv", "Key,Value\nx,y\n", [("x:", "y")]),
        ("a.csv", "id;question;answer\n1;x;y\n", [("x:", "y")]),
        ("a.csv", "id,question,context,answer\n1,Who?,x,Ann\n", [("x\nWho?", "Ann")]),
        ("a.jsonl", '{"question": "x", "answer": ["y", "z"]}\n', [("x:", "y")]),
        ("a.json", '[{"prompt": "x", "completion": "y"}]', [("x:", "y")]),
        (
            "a.jsonl",
            ALPACA,
            [("Name the capital.\nFrance", "Paris"), ("Name the capital.\nPeru", "Lima")],
        ),
        (
            "a.csv",
            MCQ,
            [
                ("What is 2+2?\nA. 3\nB. 4\nC. 5\nD. 6\nAnswer:", "B"),
                ("Capital of Peru?\nA. Lima\nB. Cusco\nC. Quito\nD. Uyuni\nAnswer:", "A"),
            ],
        ),
        (
            "a.jsonl",
            '{"question": "x?", "subject": "s", "choices": ["n", "o"], "answer": 1}\n',
            [("x?\nA. n\nB. o\nAnswer:", "B")],
        ),
    ],
)
def test_advice_for_unknown_columns_is_right_when_followed(name, text, pairs, tmp_path):
    path = tmp_path / name
    with pytest.raises(UserError) as caught:
        read(path, text)
    message = str(caught.value)
    assert "\n" not in message
    # A file without a header has no names: then the line says so behind the option.
    message = message.removesuffix(", or put the line key,value above it if it is a pair")
    assert asked(read(path, text, *typed_in(message))) == pairs


def test_a_list_without_a_header_is_read_once_the_line_is_there(tmp_path):
    text = "France,Paris\nPeru,Lima\n"
    with pytest.raises(UserError, match="put the line key,value above it if it is a pair"):
        read(tmp_path / "a.csv", text)
    assert asked(read(tmp_path / "a.csv", f"key,value\n{text}"))[0] == ("France:", "Paris")


def test_a_limit_draws_by_the_key_and_not_by_the_template(tmp_path):
    text = "key,value\n" + "".join(f"k{n},v{n}\n" for n in range(20))
    plain = read(tmp_path / "a.csv", text, limit=5)
    framed = read(tmp_path / "a.csv", text, "--template", "Q: {key}", limit=5)
    assert [value for _, value in asked(plain)] == [value for _, value in asked(framed)]


@pytest.mark.parametrize("template", ["", "key", "{key", "key}", "{}", "{key}{key}", "a {b} {b}"])
def test_bad_templates(template, tmp_path):
    with pytest.raises(UserError, match="the template must hold"):
        read(tmp_path / "a.csv", "key,value\nx,y\n", "--template", template)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (("--template", "{key} {land}"), "{land}; use {key}, or in braces one of 'key', 'value'"),
        (("--template", "{key} {value}"), "must not hold the answer"),
        (("--template", "{key} {choices}"), "{choices}"),
        (("--columns", "key=value", "--answer", "value"), "give --columns key=value alone"),
    ],
)
def test_options_that_do_not_fit(typed, words, tmp_path):
    with pytest.raises(UserError, match=re.escape(words)):
        read(tmp_path / "a.csv", "key,value\nx,y\n", *typed)
