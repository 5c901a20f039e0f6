"""The formats that people publish lists in: what each gives, and where it says things stand."""

import json
import subprocess
import sys
import tomllib
from datetime import date
from decimal import Decimal

import pytest

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables import formats
from promptlimits.capacity.tables.reading import Reading
from promptlimits.capacity.task.pairs import read_pairs

FACTS = [("France", "Paris"), ("Peru", "Lima")]
ONE, TWO = '{"key": "France", "value": "Paris"}', '{"key": "Peru", "value": "Lima"}'


def read(path, text):
    path.write_text(text, encoding="utf-8", newline="")
    return [
        (pair.key, pair.value, pair.where.removeprefix(f"{path.name} "))
        for pair in read_pairs(path).pairs
    ]


@pytest.mark.parametrize(
    ("name", "text", "places"),
    [
        ("a.tsv", "key\tvalue\nFrance\tParis\nPeru\tLima\n", ("line 2", "line 3")),
        ("a.csv", "sep=,\nkey,value\nFrance,Paris\nPeru,Lima\n", ("line 3", "line 4")),
        ("a.csv", "sep=;\r\nkey;value\r\nFrance;Paris\r\nPeru;Lima", ("line 3", "line 4")),
        ("a.csv", "\ufeffsep=\t\nkey\tvalue\nFrance\tParis\nPeru\tLima\n", ("line 3", "line 4")),
        ("a.csv", "key;value\nFrance;Paris\nPeru;Lima\n", ("line 2", "line 3")),
        ("a.csv", "key\tvalue\nFrance\tParis\nPeru\tLima\n", ("line 2", "line 3")),
        ("a.csv", "key|value\nFrance|Paris\nPeru|Lima\n", ("line 2", "line 3")),
        ("a.jsonl", f"{ONE}\n{TWO}", ("line 1", "line 2")),
        ("a.ndjson", f"{ONE}\n\n{TWO}", ("line 1", "line 3")),
        ("a.json", f"[\n{ONE},\n{TWO}\n]\n", ("line 2, entry 1", "line 3, entry 2")),
        ("a.json", f"[{ONE}, {TWO}]", ("line 1, entry 1", "line 1, entry 2")),
        ("a.jsonl", f"[{ONE},\n{TWO}]", ("line 1, entry 1", "line 2, entry 2")),
        ("a.json", f"{ONE}\n{TWO}\n", ("line 1", "line 2")),
        (
            "a.json",
            f'\ufeff{{"version": "1.1",\n "data":\n[{ONE},\n{TWO}], "more": []}}',
            ("line 3, entry 1", "line 4, entry 2"),
        ),
    ],
)
def test_each_format_gives_the_same_pairs(name, text, places, tmp_path):
    found = read(tmp_path / name, text)
    assert [(key, value) for key, value, _ in found] == FACTS
    assert tuple(where for _, _, where in found) == places


def test_one_object_alone_is_no_list_of_pairs(tmp_path):
    # It could be one pair, or a mapping with as many pairs as fields.
    for text in ('{"France": "Paris", "Peru": "Lima"}', '{\n"key": "a",\n"value": "b"}', "{}"):
        with pytest.raises(UserError, match="must hold a list of objects, got one object"):
            read(tmp_path / "a.json", text)
    assert read(tmp_path / "a.json", f"[{text}]".replace("{}", ONE))[0][:2] == FACTS[0]


def test_a_large_mapping_is_refused_at_once(tmp_path):
    # 2 MB in one second: counting lines from the top for every field would take an hour.
    path = tmp_path / "a.json"
    path.write_text(json.dumps({f"k{n}": f"v{n}\n" for n in range(100_000)}, indent=0))
    with pytest.raises(UserError, match="and 99988 more"):
        read_pairs(path)


def test_other_separators_are_noted_and_commas_in_cells_kept(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("key;value\nKorea, South;Seoul\n", encoding="utf-8")
    task = read_pairs(path)
    assert [(pair.key, pair.value) for pair in task.pairs] == [("Korea, South", "Seoul")]
    assert task.notes == ("cells are separated by semicolons, as in the header",)


def test_numbers_and_truth_values_of_json_keep_their_text(tmp_path):
    written = ["42", "1.50", "-0.0", "1e400", "12345678901234567890123", "true", "false", '"07"']
    lines = [f'{{"key": {n}, "value": {text}}}' for n, text in enumerate(written)]
    for name, text in (("a.jsonl", "\n".join(lines)), ("a.json", f"[{','.join(lines)}]")):
        found = read(tmp_path / name, text)
        assert [value for _, value, _ in found] == [text.strip('"') for text in written]
        assert [key for key, _, _ in found] == list(map(str, range(len(written))))


def test_rows_without_an_answer_are_left_out_with_a_note(tmp_path):
    path = tmp_path / "a.jsonl"
    answers = ['"a"', "null", "[]", '{"text": [], "answer_start": []}', '"b"']
    path.write_text(
        "\n".join(f'{{"key": "k{n}", "value": {answer}}}' for n, answer in enumerate(answers))
    )
    task = read_pairs(path)
    assert [pair.value for pair in task.pairs] == ["a", "b"]
    assert task.notes == ("3 entries without an answer left out, the first on line 2",)


@pytest.mark.parametrize(
    ("answer", "value", "also"),
    [
        ('["Shakespeare", "William Shakespeare"]', "Shakespeare", ("William Shakespeare",)),
        ('{"text": ["a", "b", "a"], "answer_start": [1, 2, 3]}', "a", ("b",)),
        ('{"value": "a", "aliases": ["b", "c"], "type": "t"}', "a", ("b", "c")),
        ("[7, null, 8.50]", "7", ("8.50",)),
        ('["one"]', "one", ()),
    ],
)
def test_the_first_of_several_answers_is_trained_and_any_counts(answer, value, also, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"question": "q", "answer": {answer}}}\n', encoding="utf-8")
    (pair,) = read_pairs(path, reading=Reading(columns="question=answer")).pairs
    assert (pair.value, pair.also) == (value, also)


# ------------------------------------------------------------------------------- parquet


def write_parquet(path, columns, **settings):
    import pyarrow
    from pyarrow import parquet as file_of

    file_of.write_table(pyarrow.table(columns), path, **settings)
    return path


def test_parquet(tmp_path):
    import pyarrow

    path = write_parquet(
        tmp_path / "a.parquet",
        {
            "key": pyarrow.array([" a ", "b", "c"]).dictionary_encode(),
            "value": ["x\n", None, "z"],
            "image": [b"\x00", b"\x01", b"\x02"],
            "uuid": pyarrow.array([b"\xff" * 16] * 3, pyarrow.uuid()),
        },
        row_group_size=2,
    )
    task = read_pairs(path)
    assert [(pair.key, pair.value, pair.where) for pair in task.pairs] == [
        (" a ", "x\n", "a.parquet row 1"),
        ("c", "z", "a.parquet row 3"),
    ]
    assert task.notes[0] == "1 entry without an answer left out, the first on row 2"
    assert task.notes[1].startswith("columns not used: 'image', 'uuid'")


@pytest.mark.parametrize(
    ("answers", "value", "also"),
    [
        ([7], "7", ()),
        ([1.5], "1.5", ()),
        ([True], "true", ()),
        ([date(2020, 2, 29)], "2020-02-29", ()),
        ([Decimal("1.50")], "1.50", ()),
        ([["a", "b"]], "a", ("b",)),
        ([[3, 4]], "3", ("4",)),
        ([{"text": ["a", "b"], "answer_start": [1, 2]}], "a", ("b",)),
    ],
)
def test_parquet_types(answers, value, also, tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"key": ["k"], "value": answers})
    (pair,) = read_pairs(path).pairs
    assert (pair.value, pair.also) == (value, also)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"key": ["a"], "value": [b"x"]}, ["a.parquet row 1: value must be one text"]),
        ({"question": ["a"], "answer": ["x"]}, ["schema", "; give --columns question=answer"]),
        ({"key": ["a", "a"], "value": ["x", "y"]}, ["row 2", "'x' on row 1"]),
        ({"key": ["a\0"], "value": ["x"]}, ["row 1: key", "a NUL character"]),
        ({"key": ["a"], "value": [" "]}, ["row 1 must have a value", "white space alone"]),
    ],
)
def test_a_bad_parquet_file_is_one_line(columns, words, tmp_path):
    path = write_parquet(tmp_path / "a.parquet", columns)
    with pytest.raises(UserError) as caught:
        read_pairs(path)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_no_rows_in_parquet(tmp_path):
    import pyarrow

    none = pyarrow.array([], pyarrow.string())
    path = write_parquet(tmp_path / "a.parquet", {"key": none, "value": none})
    with pytest.raises(UserError, match=r"a\.parquet row 1 must come after at least one pair"):
        read_pairs(path)


def test_what_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "a.parquet", {"key": ["k"], "value": ["x" * 100_000]})
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(formats, "MOST_BYTES", 50_000)
    with pytest.raises(UserError, match="at most 50,000 bytes when unpacked"):
        read_pairs(path)


@pytest.mark.parametrize("cut", [5, 100, -5])
def test_a_damaged_parquet_file_is_one_line(cut, tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"key": ["k"] * 9, "value": ["x"] * 9})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match="must be a Parquet file, got a fault") as caught:
        read_pairs(path)
    assert "\n" not in str(caught.value)


def test_without_pyarrow_the_line_says_what_to_run(tmp_path, repository):
    path = write_parquet(tmp_path / "a.parquet", {"key": ["k"], "value": ["x"]})
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from promptlimits.base.errors import UserError\n"
        "from promptlimits.capacity.task.pairs import read_pairs\n"
        f"try:\n    read_pairs({str(path)!r})\n"
        "except UserError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"run {sys.executable} -m pip install '{formats.PYARROW}'\n" in done.stdout
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["parquet"] == [formats.PYARROW]


def test_all_of_json_is_read_from_parquet_alike(tmp_path):
    row = {"key": "q", "value": {"text": ["a"], "answer_start": [3]}, "other": [{"n": 1}]}
    write_parquet(tmp_path / "a.parquet", {name: [cell] for name, cell in row.items()})
    (tmp_path / "a.json").write_text(json.dumps([row]))
    one, two = (read_pairs(tmp_path / name).pairs[0] for name in ("a.parquet", "a.json"))
    assert (one.key, one.value, one.also) == (two.key, two.value, two.also)
