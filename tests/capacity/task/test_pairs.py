"""Good files: what is kept, what is removed, and the round trip."""

import csv
import io
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptlimits.capacity.task.pairs import Pair, notes_on_texts, read_pairs
from promptlimits.capacity.task.resolve import capitals


def write(path, data):
    path.write_bytes(data)
    return path


def texts(path):
    return [(pair.key, pair.value) for pair in read_pairs(path).pairs]


def test_csv(tmp_path):
    path = write(tmp_path / "facts.CSV", b'key,value\nFrance,Paris\n \t\n"Korea, South",Seoul\n')
    task = read_pairs(path)
    assert task.name == "facts"
    assert task.source == "file facts.CSV"
    assert task.notes == ()
    assert task.pairs == (
        Pair(key="France", value="Paris", where="facts.CSV line 2"),
        Pair(key="Korea, South", value="Seoul", where="facts.CSV line 4"),
    )


def test_jsonl(tmp_path):
    path = write(
        tmp_path / "a.jsonl", b'{"key":"a","value":"b","n":1}\r\n\n{"value":"d","key":"c"}'
    )
    task = read_pairs(path)
    assert [(p.key, p.value, p.where) for p in task.pairs] == [
        ("a", "b", "a.jsonl line 1"),
        ("c", "d", "a.jsonl line 3"),
    ]
    # Not every line has it, so nobody is told to ask with it.
    assert task.notes == ("fields not used: 'n'",)


def test_byte_order_mark_crlf_and_column_order(tmp_path):
    path = write(tmp_path / "a.csv", b"\xef\xbb\xbfvalue, key ,iso\r\nParis,France,FR\r\n")
    task = read_pairs(path)
    assert [(p.key, p.value, p.where) for p in task.pairs] == [("France", "Paris", "a.csv line 2")]
    assert task.notes == (
        r"columns not used: 'iso'; to ask with one of them: --template '{key}\n{iso}'",
    )


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", b'key,value\n a ,b\nc,\td\n"e\n","    f"\n'),
        ("a.tsv", b'key\tvalue\n a \tb\nc\t"\td"\n"e\n"\t    f\n'),
        (
            "a.jsonl",
            b"""{"key": " a ", "value": "b"}
            {"key": "c", "value": "\\td"}\n{"key": "e\\n", "value": "    f"}""",
        ),
    ],
)
def test_white_space_is_kept_with_a_note(name, data, tmp_path):
    task = read_pairs(write(tmp_path / name, data))
    assert [(p.key, p.value) for p in task.pairs] == [(" a ", "b"), ("c", "\td"), ("e\n", "    f")]
    (note,) = task.notes
    assert note.startswith("keys and values that begin or end in white space, kept as they are: 4,")
    assert note.endswith(f" the first is ' a ', {task.pairs[0].where}")


def test_line_separators_inside_json_text_are_kept(tmp_path):
    line = json.dumps({"key": "a\u2028b", "value": "c\x85d"}, ensure_ascii=False)
    assert texts(write(tmp_path / "a.jsonl", line.encode())) == [("a\u2028b", "c\x85d")]


def test_line_numbers_count_lines_inside_cells(tmp_path):
    task = read_pairs(write(tmp_path / "a.csv", b'key,value\n"a\nb",c\nd,e\n'))
    assert [pair.where for pair in task.pairs] == ["a.csv line 2", "a.csv line 4"]


# UTF-8 text without NUL; csv's own line ends inside a cell survive only as \n.
TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1, max_size=12
).filter(lambda text: text.strip() != "")
TABLE = st.dictionaries(TEXT, TEXT, min_size=1, max_size=8)


@given(table=TABLE)
def test_csv_round_trip(table, tmp_path_factory):
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["key", "value"])
    writer.writerows(table.items())
    path = write(tmp_path_factory.mktemp("csv") / "t.csv", out.getvalue().encode())
    assert texts(path) == list(table.items())


@given(table=TABLE, ascii_only=st.booleans())
def test_jsonl_round_trip(table, ascii_only, tmp_path_factory):
    lines = [
        json.dumps({"key": key, "value": value}, ensure_ascii=ascii_only)
        for key, value in table.items()
    ]
    path = write(tmp_path_factory.mktemp("jsonl") / "t.jsonl", "\n".join(lines).encode())
    assert texts(path) == list(table.items())


@given(data=st.binary(max_size=60), head=st.sampled_from([b"", b"key,value\n", b'{"key":"']))
def test_any_bytes_give_pairs_or_one_line(data, head, tmp_path_factory):
    from promptlimits.base.errors import UserError

    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("t.csv", "t.tsv", "t.json", "t.jsonl", "t.parquet"):
        try:
            pairs = read_pairs(write(folder / name, head + data)).pairs
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert len({pair.key for pair in pairs}) == len(pairs) >= 1


def test_capitals():
    task = capitals()
    found = {pair.key: pair.value for pair in task.pairs}
    assert len(found) == len(task.pairs) == 246
    assert found["France"] == "Paris"
    assert found["Curacao"] == "Willemstad"  # the data have a blank in front
    assert [pair.key for pair in task.pairs] == sorted(found)
    assert all(pair.key.strip() == pair.key and pair.value for pair in task.pairs)
    assert "Antarctica" not in found
    assert "MIT" in task.source
    assert "CC BY 4.0" in task.source
    assert task.notes == ("6 entries without a capital left out",)
    assert task == capitals()


def test_reading_tasks_does_not_import_torch():
    code = (
        "import sys, promptlimits.capacity.task.resolve, promptlimits.bounds.counting\n"
        "import promptlimits.certificates\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_column_of_lists_is_advised_to_ask_with(tmp_path):
    path = tmp_path / "more.jsonl"
    row = {"key": "a", "value": "b", "ids": ["x"], "meta": {"n": "1"}, "topic": "t"}
    path.write_text(json.dumps(row) + "\n")
    (note,) = (note for note in read_pairs(path).notes if "not used" in note)
    assert note == (
        "fields not used: 'ids', 'meta', 'topic'; to ask with one of them: "
        "--template '{key}\\n{topic}'"
    )
    path.write_text(json.dumps({"key": "a", "value": "b", "ids": ["x"]}) + "\n")
    assert "fields not used: 'ids'" in read_pairs(path).notes


def pairs(*texts):
    return [Pair(key=key, value=value, where=f"f {n}") for n, (key, value) in enumerate(texts, 1)]


def test_ordinary_texts_need_no_note():
    # Emoji, Persian and Hindi need characters of no width.
    assert notes_on_texts(pairs(("a b", "c"), ("👨‍👩‍👧", "می‌روم"), ("Curaçao", "c"))) == ()


def test_two_unicode_forms_of_a_key():
    (note,) = notes_on_texts(pairs(("Cura\xe7ao", "a"), ("Curac\u0327ao", "b")))
    assert note == (
        "keys that look like an earlier one, in another Unicode form or with characters that do "
        r"not show: 1, the first are 'Cura\xe7ao', f 1, and 'Curac\u0327ao', f 2"
    )


@pytest.mark.parametrize("hidden", ["\u200b", "\u00ad", "\ufeff", "\u2060", "\u202e"])
def test_characters_that_do_not_show(hidden):
    holds, alike = notes_on_texts(pairs(("ab", "x"), (f"a{hidden}b", "y")))
    assert holds.startswith("keys and values with characters that do not show, kept as they are: 1")
    assert "f 2" in holds
    assert alike.startswith("keys that look like an earlier one")


@pytest.mark.parametrize("second", ["paris", "PARIS", "Ｐaris"])
def test_values_alike_but_for_case_or_form(second):
    (note,) = notes_on_texts(pairs(("a", "Paris"), ("b", second), ("c", "Paris")))
    assert note.startswith("values that differ from an earlier one only in case, white space or")
    assert f": 1, the first are 'Paris', f 1, and {second!a}, f 2" in note


def test_white_space_at_the_ends_makes_keys_alike():
    ends, alike = notes_on_texts(pairs(("Peru", "a"), ("Peru ", "b")))
    assert ends.startswith("keys and values that begin or end in white space, kept as they are: 1")
    assert alike.startswith("keys that differ from an earlier one only in case, white space")
