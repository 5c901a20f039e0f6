"""Every bad file is refused in one line that says the rule, the place and the remedy."""

import os

import pytest

from promptlimits.base.errors import UserError
from promptlimits.capacity.task.pairs import read_pairs

HEAD = b"key,value\n"

# name of the file, its bytes, line that must be named, words that must appear
BAD_FILES = {
    "empty": ("a.csv", b"", None, ["an empty file"]),
    "blank": ("a.csv", b" \n\t\n", None, ["white space alone"]),
    "byte order mark alone": ("a.csv", b"\xef\xbb\xbf", None, ["white space alone"]),
    "header alone": ("a.csv", b"key,value\n", 2, ["at least one pair"]),
    "no value column": ("a.csv", b"key,capital\nx,y\n", 1, ["; give --columns key=capital"]),
    "no key column": ("a.csv", b"country,value\nx,y\n", 1, ["; give --columns country=value"]),
    "capital letters": ("a.csv", b"Key,Value\nx,y\n", 1, ["; give --columns Key=Value"]),
    "no header": (
        "a.csv",
        b"France,Paris\nPeru,Lima\n",
        1,
        ["--columns France=Paris, or put the line key,value above it if it is a pair"],
    ),
    "three other columns": (
        "a.csv",
        b"country,capital,iso\nx,y,z\n",
        1,
        ["got 'country', 'capital', 'iso'", "; name the key's", "--columns KEY=VALUE"],
    ),
    "one column": ("a.csv", b"key\nx\n", 1, ["add a column"]),
    "column twice": ("a.csv", b"key,value,key\nx,y,z\n", 1, ["'key' once", "rename the other"]),
    "semicolons and tabs": ("a.csv", b"key;value\tx\nx;y\tz\n", 1, ["add a column"]),
    "empty quotes": ("a.csv", b'""\n', 1, ["header"]),
    "latin-1": ("a.csv", HEAD + b"Peru,Lima\nBrasil,S\xe3o\n", 3, ["UTF-8", "0xE3"]),
    "latin-1 behind a mark": ("a.csv", b"\xef\xbb\xbf" + HEAD + b"a,b\xff\n", 2, ["0xFF"]),
    "utf-16": ("a.csv", "key,value\nx,y\n".encode("utf-16"), 1, ["NUL", "UTF-16"]),
    "nul": ("a.csv", HEAD + b"x,y\nz\0,w\n", 3, ["NUL"]),
    "nul first": ("a.csv", b"\0", 1, ["NUL"]),
    "a comma alone": ("a.csv", HEAD + b"x,y\n,\n", 3, ["have a key"]),
    "too many cells": ("a.csv", HEAD + b"Korea, South,Seoul\n", 2, ["2 cells", "double quotes"]),
    "too few cells": ("a.csv", HEAD + b"x,y\n\nz\n", 4, ["2 cells", "got 1"]),
    "unclosed quote": ("a.csv", HEAD + b'x,y\n"z,w\nu,v\n', 3, ["never closed"]),
    "text behind a quote": ("a.csv", HEAD + b'"x"y,z\n', 2, ["comma-separated"]),
    "huge cell": (
        "a.csv",
        HEAD + b"x," + b"y" * 200_000 + b"\n",
        2,
        ["at most 131,072 characters", "save the list as .jsonl"],
    ),
    "empty key": ("a.csv", HEAD + b"x,y\n,z\n", 3, ["have a key"]),
    "blank key": ("a.csv", HEAD + b"  ,z\n", 2, ["have a key", "white space alone, '  '"]),
    "empty value": ("a.csv", HEAD + b"x,\n", 2, ["have a value"]),
    "blank value": ("a.csv", HEAD + b"x,\t \n", 2, ["have a value"]),
    "pair twice": ("a.csv", HEAD + b"x,y\nz,w\nx,y\n", 4, ["line 2 again", "delete one"]),
    "contradiction": ("a.csv", HEAD + b"x,y\nx,z\n", 3, ["'z' here and 'y' on line 2"]),
    "line break in a repeated key": ("a.csv", HEAD + b'"x\ny",a\n"x\ny",b\n', 4, ["on line 2"]),
    "jsonl: not JSON": ("a.jsonl", b'{"key": "x", "value": "y"}\n{key: x}\n', 2, ["column 2"]),
    "jsonl: a list": ("a.jsonl", b'["x", "y"]\n', 1, ["JSON object"]),
    "jsonl: text": ("a.jsonl", b'"x"\n', 1, ["JSON object"]),
    "jsonl: missing value": (
        "a.jsonl",
        b'{"key": "x", "val": "y"}\n',
        1,
        ["; give --columns key=val"],
    ),
    "jsonl: no field": ("a.jsonl", b"{}\n", 1, ["fields 'key' and 'value'", "got none"]),
    "jsonl: null": ("a.jsonl", b'{"key": null, "value": "y"}\n', 1, ["have a key", "got null"]),
    "jsonl: no answer at all": (
        "a.jsonl",
        b'{"key": "x", "value": null}\n{"key": "y", "value": []}\n',
        None,
        ["at least one pair with an answer", "none in 'value'"],
    ),
    "jsonl: NaN": ("a.jsonl", b'\n{"key": "x", "value": NaN}\n', 2, ["NaN"]),
    "jsonl: list as a key": ("a.jsonl", b'{"key": ["x"], "value": "y"}\n', 1, ["key must be one"]),
    "jsonl: object value": ("a.jsonl", b'{"key": "x", "value": {"a": "y"}}\n', 1, ["an object"]),
    "jsonl: a blank among the answers": (
        "a.jsonl",
        b'{"key": "x", "value": ["y", " "]}\n',
        1,
        ["have a value", "white space alone"],
    ),
    "jsonl: NUL": ("a.jsonl", b'{"key": "x", "value": "a\\u0000b"}\n', 1, ["a NUL character"]),
    "jsonl: a field missing in one row": (
        "a.jsonl",
        b'{"key": "x", "value": "y"}\n{"key": "z", "val": "w"}\n',
        2,
        ["have the field 'value' as other rows do", "got 'key', 'val'"],
    ),
    "jsonl: field twice": ("a.jsonl", b'{"key": "x", "key": "z", "value": "y"}\n', 1, ["once"]),
    "jsonl: empty value": ("a.jsonl", b'{"key": "x", "value": " "}\n', 1, ["have a value"]),
    "jsonl: half a surrogate": ("a.jsonl", b'{"key": "\\ud800", "value": "y"}\n', 1, ["surrogate"]),
    "jsonl: too deep": ("a.jsonl", b"[" * 100_000, 1, ["too deep"]),
    "jsonl: contradiction": (
        "a.jsonl",
        b'{"key": "x", "value": "y"}\n{"key": "x", "value": "z"}\n',
        2,
        ["on line 1"],
    ),
    "tsv: no such columns": ("a.tsv", b"q\ta\nx\ty\n", 1, ["; give --columns q=a"]),
    "tsv: too many cells": ("a.tsv", b"key\tvalue\nx\ty\tz\n", 2, ["2 cells", "one tab between"]),
    "tsv: a stray quote": ("a.tsv", b'key\tvalue\n"x" y\tz\n', 2, ["tab-separated", "twice"]),
    "tsv: latin-1": ("a.tsv", b"key\tvalue\nx\t\xe3\n", 2, ["UTF-8"]),
    "tsv: empty": ("a.tsv", b"", None, ["an empty file"]),
    "sep line, too few cells": ("a.csv", b"sep=;\nkey;value\nx\n", 3, ["2 cells"]),
    "sep line alone": ("a.csv", b"sep=,\nkey,value\n", 3, ["at least one pair"]),
    "json: empty list": ("a.json", b"[]", None, ["an empty list"]),
    "json: text": ("a.json", b'"x"', 1, ["JSON object"]),
    "json: texts": ("a.json", b'["x",\n"y"]', None, ["a.json line 1, entry 1", "JSON object"]),
    "json: cut off": ("a.json", b'[\n{"key": "x", "value": "y"},\n', None, ["line 3, entry 2"]),
    "json: not closed": ("a.json", b'[\n{"key": "x", "value": "y"}\n', 3, ["the end of the file"]),
    "json: no comma": (
        "a.json",
        b'[{"key": "x", "value": "y"}\n{"key": "z", "value": "w"}]',
        2,
        ["no comma between two entries"],
    ),
    "json: more behind it": ("a.json", b'[{"key": "x", "value": "y"}]\n]', 2, ["behind the end"]),
    "json: NaN": ("a.json", b'[\n{"key": "x", "value": NaN}]', None, ["line 2, entry 1", "NaN"]),
    "json: field twice": (
        "a.json",
        b'[{"key": "x", "key": "z", "value": "y"}]',
        None,
        ["line 1, entry 1", "once", "'key' twice"],
    ),
    "json: contradiction": (
        "a.json",
        b'[{"key": "x", "value": "y"},\n{"key": "x", "value": "z"}]',
        None,
        ["line 2, entry 2", "'y' on line 1, entry 1"],
    ),
    "json: two lists": (
        "a.json",
        b'{"train": [{"key": "x"}], "test": [{"key": "y"}]}',
        None,
        ["one list of objects", "'train', 'test'", "a file of its own"],
    ),
    "json: too deep": ("a.json", b"[" * 100_000, None, ["too deep"]),
    "json: half a surrogate": (
        "a.json",
        b'[{"key": "\\ud800", "value": "y"}]',
        None,
        ["line 1, entry 1: key", "surrogate"],
    ),
    "parquet: another file": ("a.parquet", b"key,value\n", None, ["be a Parquet file"]),
    "parquet: empty": ("a.parquet", b"", None, ["be a Parquet file"]),
    "messages: no answer": (
        "a.jsonl",
        b'{"messages": [{"role": "user", "content": "x"}]}\n',
        1,
        ["the assistant's answer", "got user"],
    ),
    "messages: no content": (
        "a.jsonl",
        b'{"messages": [{"role": "user"}, {"role": "assistant", "content": "x"}]}\n',
        1,
        ["messages, message 1", "a role and a content"],
    ),
    "a spreadsheet": ("a.xlsx", b"PK\0\0", None, [".csv, .tsv", "'.xlsx'", "; save it as CSV"]),
    "packed": ("a.jsonl.gz", b"\x1f\x8b", None, ["got '.gz'; unpack it"]),
    "weights": ("a.safetensors", b"\0", None, ["give a model to --model"]),
    "no ending": ("pairs", HEAD, None, [".json, .jsonl or .parquet", "no ending"]),
}


def assert_one_line(error, name, line, words):
    message = str(error)
    assert "\n" not in message
    assert "\r" not in message
    assert len(message) < 400
    assert " must " in message
    assert ", got " in message
    assert "; " in message
    assert f"{name} line {line}" in message if line else name in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file(case, tmp_path):
    name, data, line, words = BAD_FILES[case]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_pairs(path)
    assert_one_line(caught.value, name, line, words)
    assert caught.value.exit_code == 2


def test_missing_file(tmp_path):
    for name in ("none.csv", "none.txt"):
        with pytest.raises(UserError) as caught:
            read_pairs(tmp_path / name)
        assert_one_line(caught.value, name, None, ["no such file"])


def test_directory(tmp_path):
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(UserError) as caught:
        read_pairs(tmp_path / "d.csv")
    assert_one_line(caught.value, "d.csv", None, ["a directory"])


def test_file_as_directory(tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(UserError) as caught:
        read_pairs(tmp_path / "f" / "a.csv")
    assert_one_line(caught.value, "a.csv", None, ["not a directory"])


def test_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "p.csv")
    with pytest.raises(UserError) as caught:
        read_pairs(tmp_path / "p.csv")
    assert_one_line(caught.value, "p.csv", None, ["a pipe where a file should be"])


def test_unreadable(tmp_path, monkeypatch):
    # Permissions do not stop the superuser, under whom tests often run: so refuse by hand.
    def refuse(path, *, at_most):
        raise PermissionError(13, "Permission denied", str(path))

    path = tmp_path / "a.csv"
    path.write_bytes(HEAD + b"x,y\n")
    monkeypatch.setattr("promptlimits.capacity.tables.files.read_regular", refuse)
    with pytest.raises(UserError) as caught:
        read_pairs(path)
    assert_one_line(caught.value, "a.csv", None, ["permission denied", "permissions"])


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "parquet", "txt"])
def test_only_regular_files_of_a_sensible_size_are_opened(ending, tmp_path):
    device, sparse = tmp_path / f"zero.{ending}", tmp_path / f"sparse.{ending}"
    device.symlink_to("/dev/zero")
    sparse.touch()
    os.truncate(sparse, 1 << 40)
    for path, got in ((device, "a device"), (sparse, "a file of 1,099,511,627,776 bytes")):
        with pytest.raises(UserError) as caught:
            read_pairs(path)
        assert_one_line(caught.value, path.name, None, [f"got {got}", "to a file of its own"])


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("adapter_config.json", ["a PEFT adapter", "promptlimits score"]),
        ("witness.json", ["a witness", "promptlimits verify"]),
        ("config.json", ["the folder of a model", "--model"]),
        ("dataset_info.json", ["`datasets`", "to_json('pairs.jsonl')"]),
        ("bracket.json", ["the output of `promptlimits bracket`"]),
    ],
)
def test_a_folder_is_named_for_what_it_is(inside, words, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / inside).write_text("{}")
    # A witness is a PEFT adapter, too, and so are adapters saved beside their model.
    if inside == "witness.json":
        (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError) as caught:
        read_pairs(folder)
    assert_one_line(caught.value, "folder", None, words)


@pytest.mark.parametrize("name", ["a\nb.csv", "a\0b.csv", "x" * 5000 + ".csv"])
def test_odd_file_name(name, tmp_path):
    with pytest.raises(UserError) as caught:
        read_pairs(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_line_breaks_in_cells_stay_out_of_messages(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(HEAD + b'x,"one\ntwo"\nx,"three\nfour"\n')
    with pytest.raises(UserError) as caught:
        read_pairs(path)
    assert_one_line(caught.value, "a.csv", 4, ["three", "on line 2"])
