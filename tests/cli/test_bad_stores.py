"""An output folder that cannot be used: one line, exit code 2, and all in it stays as it was."""

import json
import os
import random
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from promptlimits.capacity.store.sqlite import Store

Call = Callable[..., Any]

BRACKET = ("bracket", "--model", "tiny", "--pairs", "pairs.csv", "--out", "out", "--quiet")


def contents(folder):
    """Every file below a folder, but the lock, which names whoever tried last."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def text(store):
    store.write_text("not a database, but quite a bit longer than a header of one\n" * 9)


def database_of_another_program(store):
    with sqlite3.connect(store) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()


def newer(store):
    Store.open(store).close()
    connection = sqlite3.connect(store)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


def damaged(store):
    Store.open(store).close()
    content = bytearray(store.read_bytes())
    content[4096:] = b"\x5a" * len(content[4096:])
    store.write_bytes(content)


def altered(store):
    with Store.open(store) as opened:
        opened.put("verification", {"a": 1}, {"answers": []})
    content = store.read_bytes()
    assert content.count(b"answers") == 1
    store.write_bytes(content.replace(b"answers", b"answerz"))


def without_a_table(store):
    Store.open(store).close()
    connection = sqlite3.connect(store)
    connection.execute("DROP TABLE used_time")
    connection.close()


def cut_to_nothing(store):
    Store.open(store).close()
    os.truncate(store, 0)


def folder(store):
    store.mkdir()


def pipe(store):
    os.mkfifo(store)


STORES = {
    "text": (text, "wrote"),
    "another program's": (database_of_another_program, "another program"),
    "newer": (newer, "version 99"),
    "damaged": (damaged, "damaged"),
    "altered": (altered, "row 1 of records is not as it was written"),
    "without a table": (without_a_table, "no table used_time"),
    "cut to nothing": (cut_to_nothing, "nothing is in it"),
    "a folder": (folder, "a folder"),
    "a pipe": (pipe, "a pipe"),
}


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("command", ["bracket", "fit"])
def test_a_store_that_cannot_be_used_is_one_line(command, kind, call, here):
    make, word = STORES[kind]
    (here / "out").mkdir()
    make(here / "out/store.sqlite")
    before = contents(here)
    call(command, *BRACKET[1:]).says(2, "out/store.sqlite", word)
    assert contents(here) == before


def test_a_folder_that_another_command_uses_is_one_line(call, here):
    with Store.open(here / "out/store.sqlite"):
        call(*BRACKET).says(2, "out/store.sqlite", "free for writing")
        call("fit", *BRACKET[1:]).says(2, "out/store.sqlite", "free for writing")


@pytest.fixture
def finished(call, here, model):
    """The folder of a bracket that has ended; it found nothing, which is quick."""
    ended = call(*BRACKET, "--max-steps", "2", "--learning-rate", "1e-6")
    assert (ended.code, ended.err) == (0, "")
    return here / "out"


def test_no_mistake_costs_finished_work(finished, call, here):
    before = contents(finished)
    assert {"bracket.json", "report.html", "store.sqlite", "ceiling-1-tokens.json"} <= set(before)
    (here / "bad.csv").write_text("key,value\nPeru,\n")
    for mistake in (
        ("--pairs", "bad.csv"),
        ("--pairs", "random:99999"),
        ("--model", "nowhere"),
        ("--prompt-tokens", "0"),
        ("--prompt-tokens", "127"),
        ("--dtype", "int8"),
        ("--device", "nonsense"),
    ):
        call(*BRACKET, *mistake).says(2)
        call("fit", *BRACKET[1:], *mistake).says(2)
    call("verify", "out").says(2)
    assert contents(finished) == before


def test_a_store_with_flipped_bytes_is_refused_or_changes_nothing(finished, call):
    store = finished / "store.sqlite"
    whole, again = store.read_bytes(), (*BRACKET, "--max-steps", "2", "--learning-rate", "1e-6")
    record = json.loads((finished / "bracket.json").read_text())["brackets"]
    draw = random.Random(0)
    for _ in range(12):
        content = bytearray(whole)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        store.write_bytes(content)
        ended = call(*again)
        if ended.code == 0:
            assert json.loads((finished / "bracket.json").read_text())["brackets"] == record
        else:
            ended.says(2, "store.sqlite")
            assert store.read_bytes() == content
        store.write_bytes(whole)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"inputs": 3}', '{"inputs": {}}'])
@pytest.mark.parametrize("name", ["bracket.json", "ceiling-1-tokens.json"])
def test_a_spoiled_result_is_made_again(name, content, finished, call):
    (finished / name).write_text(content)
    ended = call(*BRACKET, "--max-steps", "2", "--learning-rate", "1e-6")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads((finished / name).read_text())["schema"] == 1


def test_a_report_that_contradicts_itself_ends_in_1(finished, call):
    record = json.loads((finished / "bracket.json").read_text())
    record["brackets"][0]["floor"]["pairs"] = 3
    (finished / "bracket.json").write_text(json.dumps(record))
    call("report", "out").says(1, "contradicts itself")
