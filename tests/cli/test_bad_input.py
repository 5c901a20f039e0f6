"""Mistakes in options and in lists of pairs: one line each, exit code 2, before any model."""

import json
import os
import shlex
from collections.abc import Callable
from typing import Any

import pytest

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def _no_model(monkeypatch):
    """A mistake that shows without the model must not cost the time to load it."""

    def load(*_arguments, **_settings):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("promptlimits.cli.product.session.Machine.load", load)


OPTIONS = [
    # command, word that the line must hold
    ("brackets", "'brackets'"),
    ("bracket --bogus", "--bogus"),
    ("fit --bogus", "--bogus"),
    ("verify --bogus", "--bogus"),
    ("report --bogus", "--bogus"),
    ("check --bogus", "--bogus"),
    ("doctor --bogus", "--bogus"),
    ("models --bogus", "--bogus"),
    ("models got", "'got'"),
    ("bracket --model", "--model"),
    ("bracket pairs.csv", "pairs.csv"),
    ("verify", "DIR"),
    ("report", "DIR"),
    ("check", "FILE"),
    ("models get", "NAME"),
    ("models get smolm2", "did you mean smollm2-135m?"),
    ("models get gemma3-270m", "--accept-terms"),
    ("bracket --prompt-tokens 0", "--prompt-tokens"),
    ("bracket --prompt-tokens -1", "--prompt-tokens"),
    ("bracket --prompt-tokens a", "--prompt-tokens"),
    ("bracket --prompt-tokens 1,1", "--prompt-tokens"),
    ("bracket --prompt-tokens ''", "--prompt-tokens"),
    ("bracket --prompt-tokens 1,,2", "--prompt-tokens"),
    ("bracket --prompt-tokens 1.5", "--prompt-tokens"),
    ("bracket --prompt-tokens ²", "--prompt-tokens"),
    (f"bracket --prompt-tokens {'1' * 5000}", "--prompt-tokens"),
    ("fit --prompt-tokens 0", "--prompt-tokens"),
    ("fit --prompt-tokens 1,2", "--prompt-tokens"),
    ("bracket --budget 0", "--budget"),
    ("bracket --budget -5", "--budget"),
    ("bracket --budget nan", "--budget"),
    ("bracket --budget soon", "--budget"),
    ("fit --budget 0", "--budget"),
    ("bracket --seed -1", "--seed"),
    ("bracket --seed one", "--seed"),
    ("bracket --seed 9223372036854775807", "--seed"),
    ("bracket --learning-rate 0", "--learning-rate"),
    ("bracket --learning-rate nan", "--learning-rate"),
    ("bracket --learning-rate inf", "--learning-rate"),
    ("bracket --learning-rate -0.1", "--learning-rate"),
    ("fit --learning-rate 0", "--learning-rate"),
    ("bracket --max-steps 0", "--max-steps"),
    ("bracket --max-steps 1e3", "--max-steps"),
    ("bracket --patience 0", "--patience"),
    ("bracket --starts 0", "--starts"),
    ("fit --starts 0", "--starts"),
    ("bracket --first-size 0", "--first-size"),
    ("bracket --first-size -8", "--first-size"),
    ("bracket --threads 0", "--threads"),
    ("bracket --threads 99999999999999", "--threads"),
    ("fit --threads -1", "--threads"),
    ("bracket --memory 0", "--memory"),
    ("bracket --memory nan", "--memory"),
    ("fit --memory -1", "--memory"),
    ("bracket --in-context-tokens -1", "--in-context-tokens"),
    ("bracket --dtype int8", "--dtype"),
    ("fit --dtype half", "--dtype"),
    ("bracket --order hardest", "--order"),
    ("bracket --kind lora", "--kind"),
    ("fit --kind lora", "--kind"),
    ("fit --kind soft,prefix", "--kind"),
    ("bracket --template key", "--template"),
    ("bracket --template {key}{key}", "--template"),
    ("bracket --template {key}}", "--template"),
    ("bracket --template {capital}", "--template"),
    ("bracket --pairs pairs.csv --template '{key} {value}'", "--template"),
    ("bracket --pairs pairs.csv --template '{key} {code}'", "--template"),
    ("bracket --columns key=value", "--columns"),
    ("fit --pairs random:4 --answer value", "--answer"),
    ("fit --pairs text:pairs.csv --choices A,B", "--choices"),
    ("bracket --pairs pairs.csv --columns key", "--columns"),
    ("bracket --pairs pairs.csv --columns =value", "--columns"),
    ("bracket --pairs pairs.csv --columns key=key", "--columns"),
    ("bracket --pairs pairs.csv --columns land=value", "'land', which --columns names"),
    ("bracket --pairs pairs.csv --answer capital", "'capital', which --answer names"),
    ("bracket --pairs pairs.csv --columns key=value --answer value", "--answer"),
    ("bracket --pairs pairs.csv --choices A,A --answer value", "--choices"),
    ("bracket --pairs pairs.csv --choices value --answer value", "--choices"),
    ("bracket --pairs pairs.csv --choices A,B --answer value", "'A', which --choices names"),
    ("bracket --limit 0", "--limit"),
    ("bracket --limit -3", "--limit"),
    ("bracket --limit 247", "--limit"),
    ("bracket --pairs random:4 --limit 5", "--limit"),
    ("bracket --out pairs.csv", "--out"),
    ("bracket --out pairs.csv/below", "--out"),
    (f"bracket --out {'o' * 300}", "--out"),
    ("bracket --pairs random:0", "--pairs"),
    ("bracket --pairs random:-3", "--pairs"),
    ("bracket --pairs random:abc", "--pairs"),
    ("bracket --pairs random:", "--pairs"),
    ("bracket --pairs random:4,0", "--pairs"),
    ("bracket --pairs random:4,1,1,1", "--pairs"),
    ("bracket --pairs random:99999999", "count of random pairs"),
    ("bracket --pairs random:4,99999999", "key tokens"),
    ("bracket --pairs random:4,1,99999999", "value tokens"),
    ("bracket --pairs ''", "--pairs"),
    ("bracket --pairs capitols", "capitols"),
    ("bracket --pairs nowhere.csv", "nowhere.csv"),
    ("fit --pairs nowhere.jsonl", "nowhere.jsonl"),
    ("bracket --pairs .", "directory"),
    (f"bracket --pairs {'p' * 5000}", "--pairs"),
    ("bracket --pairs /dev/null", "/dev/null"),
]


@pytest.mark.parametrize(
    ("command", "word"), [pytest.param(*case, id=case[0][:60] or "none") for case in OPTIONS]
)
def test_a_mistake_in_the_command_is_one_line(command, word, call, here):
    call(*shlex.split(command)).says(2, word)
    assert {path.name for path in here.iterdir()} == {"pairs.csv"}, "it left something behind"


FILES = {
    # file, what is in it, words that the line must hold
    "empty": ("a.csv", b"", ("a.csv", "an empty file")),
    "blank": ("a.csv", b" \n\n", ("a.csv", "white space")),
    "no header": ("a.csv", b"France,Paris\n", ("a.csv line 1", "header")),
    "missing column": ("a.csv", b"key,answer\nFrance,Paris\n", ("a.csv line 1", "'value'")),
    "column twice": ("a.csv", b"key,value,value\na,b,c\n", ("a.csv line 1", "once")),
    "other columns": ("a.tsv", b"q\ta\nFrance\tParis\n", ("a.tsv line 1", "give --columns q=a")),
    "no rows": ("a.csv", b"key,value\n", ("a.csv line 2", "pair")),
    "wrong encoding": ("a.csv", b"key,value\nPeru,Lim\xe1\n", ("a.csv line 2", "UTF-8")),
    "NUL": ("a.csv", b"key,value\nPeru,Li\0ma\n", ("a.csv line 2", "NUL")),
    "UTF-16": ("a.csv", "key,value\nPeru,Lima\n".encode("utf-16"), ("a.csv line 1", "UTF-16")),
    "ragged": ("a.csv", b"key,value\nFrance,Paris,yes\n", ("a.csv line 2", "3")),
    "short row": ("a.csv", b"key,value\nFrance\n", ("a.csv line 2", "cells")),
    "open quote": ("a.csv", b'key,value\nFrance,"Paris\n', ("a.csv line 2", "quote")),
    "empty key": ("a.csv", b"key,value\n,Paris\n", ("a.csv line 2", "key")),
    "empty value": ("a.csv", b"key,value\nFrance, \n", ("a.csv line 2", "value")),
    "repeated": ("a.csv", b"key,value\nPeru,Lima\nPeru,Lima\n", ("a.csv line 3", "line 2")),
    "contradiction": ("a.csv", b"key,value\nPeru,Lima\nPeru,Cuzco\n", ("a.csv line 3", "'Cuzco'")),
    "invalid JSON": ("a.jsonl", b'{"key": "Peru"\n', ("a.jsonl line 1", "JSON")),
    "not an object": ("a.jsonl", b'["Peru", "Lima"]\n', ("a.jsonl line 1", "object")),
    "missing field": ("a.jsonl", b'{"key": "Peru"}\n', ("a.jsonl line 1", "'value'")),
    "object": ("a.jsonl", b'{"key": "Peru", "value": {}}\n', ("a.jsonl line 1", "text")),
    "null": ("a.jsonl", b'{"key": null, "value": "Lima"}\n', ("a.jsonl line 1", "null")),
    "NaN": ("a.jsonl", b'{"key": "Peru", "value": NaN}\n', ("a.jsonl line 1", "NaN")),
    "field twice": (
        "a.jsonl",
        b'{"key": "Peru", "key": "Cuba", "value": "Lima"}\n',
        ("a.jsonl line 1", "once"),
    ),
    "half a surrogate": ("a.jsonl", rb'{"key": "\ud800", "value": "a"}', ("a.jsonl line 1", "key")),
    "brackets too deep": ("a.jsonl", b"[" * 200_000 + b"\n", ("a.jsonl line 1", "deep")),
    "unknown ending": ("a.xlsx", b"PK", ("a.xlsx", ".csv", "save it as CSV")),
    "no ending": ("pairs", b"key,value\nPeru,Lima\n", ("pairs", "no ending")),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("command", ["bracket", "fit"])
def test_a_mistake_in_a_list_is_one_line_and_names_the_line(command, kind, call, here):
    name, content, words = FILES[kind]
    (here / name).write_bytes(content)
    call(command, "--pairs", name).says(2, *words)
    assert not (here / "runs").exists()


def test_what_does_not_print_is_shown_as_an_escape(call, here):
    (here / "a\x1b[31m\u2028.csv").write_bytes(b"")
    ended = call("bracket", "--pairs", "a\x1b[31m\u2028.csv")
    ended.says(2, r"\x1b[31m\u2028.csv")
    assert ended.err.isascii()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("brackets",), "'brackets'"),
        (("bracket", "--prompt-tokens", "0"), "--prompt-tokens"),
        (("fit", "--pairs", "nowhere.csv"), "nowhere.csv"),
        (("report", "nowhere"), "bracket.json"),
        (("models", "get", "smolm2"), "smollm2-135m"),
        (("doctor", "extra"), "extra"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_installed_command_says_the_same(arguments, word, spawn):
    spawn(*arguments).says(2, word)


def test_the_kinds_are_many_and_differ():
    commands = [command for command, _ in OPTIONS]
    contents = [content for _, content, _ in FILES.values()]
    assert len(set(commands)) == len(commands)
    assert len(set(contents)) == len(contents)
    assert len(commands) + len(contents) >= 60


# ------------------------------------------------------------------------------ report


def record(**changes):
    """A bracket record with nothing right in it but what is given."""
    return json.dumps({"schema": 1, "kind": "bracket"} | changes).encode()


RECORDS = {
    "none": (None, ("run/bracket.json", "No such file")),
    "not JSON": (b'{"schema": 1,', ("run/bracket.json", "line 1")),
    "not UTF-8": (b"\xff\xfe", ("run/bracket.json", "utf-8")),
    "NaN": (record(seconds=1).replace(b"1}", b"NaN}"), ("run/bracket.json", "NaN")),
    "too deep": (b"[" * 200_000, ("run/bracket.json", "cannot")),
    "a list": (b"[]", ("record", "bracket")),
    "a fit": (record(kind="fit"), ("record", "'fit'")),
    "newer": (record(schema=99), ("schema", "99")),
    "nothing in it": (record(), ("record field",)),
    "no lengths": (record(brackets=[]), ("record field",)),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_that_cannot_be_drawn_is_one_line(kind, call, here):
    content, words = RECORDS[kind]
    (here / "run").mkdir()
    if content is not None:
        (here / "run/bracket.json").write_bytes(content)
    call("report", "run").says(2, *words)
    assert not (here / "run/report.html").exists()


@pytest.mark.parametrize("folder", ["nowhere", "pairs.csv", ""])
def test_a_report_of_no_folder_is_one_line(folder, call):
    call("report", folder).says(2, "bracket.json")


def test_a_pipe_is_no_record(call, here):
    (here / "run").mkdir()
    os.mkfifo(here / "run/bracket.json")
    call("report", "run").says(2, "bracket.json", "a pipe where a file should be")
