"""The list of errors, and what runs."""

import pytest

from promptlimits.base.errors import UserError
from promptlimits.lab.errata.statements import ERRATA, erratum, run


def test_there_are_nineteen_each_with_all_it_needs():
    assert [entry.key for entry in ERRATA] == [*(f"E{n}" for n in range(1, 19)), "W4"]
    for entry in ERRATA:
        assert all(value != "" for value in entry.to_json().values())
        assert erratum(entry.key.lower()) is entry


@pytest.mark.parametrize("entry", ERRATA, ids=lambda entry: entry.key)
def test_what_runs_refutes_and_nothing_else_claims_to_run(entry):
    found = run(entry.key)
    assert (found is not None) == entry.runs
    if found is not None:
        assert found.key == entry.key
        assert found.refutes


@pytest.mark.parametrize(
    ("key", "options", "words"),
    [
        ("E99", {}, "one of E1 to E18 and W4"),
        ("", {}, "one of E1 to E18 and W4"),
        ("E13", {"heads": 0}, "1 or more"),
        ("E13", {"heads": 25}, "from 1 to 24"),
        ("E12", {"heads": 9}, "from 1 to 8"),
        ("E15", {"heads": 25}, "from 1 to 24"),
        ("E11", {"heads": 62}, "Theorem 5.7 asks"),
        ("E3", {"seed": -1}, "2\\^63"),
        ("E14", {"heads": 2}, "come with one of"),
        ("E1", {"seed": 2}, "come with one of"),
    ],
)
def test_bad_options_are_said(key, options, words):
    with pytest.raises(UserError, match=words):
        run(key, **options)


def test_conditions_without_which_the_corrections_are_false():
    assert "in one norm for prompt and output" in erratum("E3").correct
    assert "false" in erratum("E4").status
    trap = erratum("W4")
    assert "Easily read as" in trap.published
    assert "Where all of them are below 1" in trap.correct
    assert "in that ball" in trap.correct
    assert "orthogonal to each other and to each head's output" in erratum("E13").correct
    assert "the queries alone" in erratum("E13").published
    assert "if d^m averages" in erratum("E17").status
    assert "recalled here, not read" in erratum("E17").wrong
