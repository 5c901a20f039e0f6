"""A map known by samples: the check, the nearest sample, the limit for all maps through them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from promptlimits.base.errors import UserError
from promptlimits.lab.universal.samples import (
    largest_slope,
    read_samples,
    sampled_prompt,
    samples_from,
)
from promptlimits.lab.universal.universal_bound import as_float_above


def line(count: int = 101) -> np.ndarray:
    places = np.linspace(-1, 2, count)
    return np.column_stack([places, np.sin(2 * places)])


def test_every_map_through_the_samples_stays_within_the_limit() -> None:
    sampled = sampled_prompt(samples_from(line(), name="s"), Fraction(1, 10), lipschitz=2)
    proved = as_float_above(sampled.sup_error)
    assert proved <= 0.1
    found = sampled.measured()
    assert found.largest <= proved
    assert found.points + found.left_out == 101
    real_map = sampled.built.real_map
    unit = np.random.default_rng(0).random((3_000, 1, 1))
    inputs = real_map.inputs(unit)
    answered = sampled.built.answers(unit)
    assert np.abs(answered - np.sin(2 * inputs)).max() <= proved
    # the upper and the lower envelope of all 2-Lipschitz maps through the samples
    away = 2 * np.abs(inputs[:, 0] - line()[None, :, 0])
    for envelope in ((line()[:, 1] + away).min(axis=1), (line()[:, 1] - away).max(axis=1)):
        assert np.abs(answered[:, 0, 0] - envelope).max() <= proved


def test_gaps_count() -> None:
    sampled = sampled_prompt(samples_from(line(7), name="s"), Fraction(1, 10), lipschitz=2)
    assert 0.2 <= sampled.gap <= 0.25
    assert as_float_above(sampled.sup_error) >= 2 * sampled.gap
    assert as_float_above(sampled.sup_error) > 0.1


def test_two_tokens_in_one_table() -> None:
    generator = np.random.default_rng(2)
    inputs = generator.random((800, 2))
    rows = np.hstack([inputs, np.abs(inputs - 0.4)])
    sampled = sampled_prompt(samples_from(rows, tokens=2, name="two"), Fraction(1, 4))
    real_map = sampled.built.real_map
    assert (real_map.dim, real_map.tokens) == (1, 2)
    assert sampled.slope == pytest.approx(1, abs=1e-6)
    assert sampled.measured().largest <= as_float_above(sampled.sup_error) <= 0.25
    wanted = np.abs(np.array([0.2, 0.9]) - 0.4)
    unit = (np.array([[[0.2, 0.9]]]) - float(real_map.low)) / float(real_map.side)
    assert np.abs(sampled.built.answers(unit) - wanted).max() <= 0.25


def test_all_pairs_are_compared_as_a_loop_would() -> None:
    generator = np.random.default_rng(4)
    samples = samples_from(generator.random((40, 6)), tokens=1, name="s")
    for exponent in (None, 1, 2):
        slope, first, second = largest_slope(samples, exponent)
        order = np.inf if exponent is None else exponent
        slopes = {
            (i, j): np.linalg.norm((samples.values[i] - samples.values[j]).ravel(), order)
            / np.linalg.norm((samples.inputs[i] - samples.inputs[j]).ravel(), order)
            for i in range(40)
            for j in range(i)
        }
        assert slope == pytest.approx(max(slopes.values()), rel=1e-12)
        assert slopes[max(first, second), min(first, second)] == pytest.approx(slope, rel=1e-12)


def test_violations_are_named() -> None:
    rows = np.array([[0, 0], [1, 0.5], [2, 3.0]])
    with pytest.raises(
        UserError,
        match=r"s must be Lipschitz with constant 2, got a slope of 2.5 from 1 -> 0.5 to 2 -> 3;",
    ):
        sampled_prompt(samples_from(rows, name="s"), Fraction(1, 10), lipschitz=2)
    twice = np.array([[0, 0], [1, 0.5], [1, 0.75]])
    with pytest.raises(UserError, match=r"s must have one value for one input, got a slope of inf"):
        sampled_prompt(samples_from(twice, name="s"), Fraction(1, 10))


def test_reasons_for_extreme_numbers() -> None:
    close = np.array([[0, 0], [1e-320, 1], [1, 1]])
    with pytest.raises(UserError, match="s must have slopes that float64 holds"):
        sampled_prompt(samples_from(close, name="s"), Fraction(1, 10))
    with pytest.raises(UserError, match=r"hold numbers up to 1e\+300, got 1.7e\+308"):
        samples_from(np.array([[0, -1.7e308], [1, 1.7e308]]), name="s")


def test_gaps_of_small_units_do_not_vanish() -> None:
    # Squares of such distances are 0 in float64.
    rows = np.array([[0, 0, 0, 0], [1e-200, 1e-200, 1e-200, 0]])
    sampled = sampled_prompt(samples_from(rows, name="s"), Fraction(1, 10**201), exponent=2)
    assert sampled.gap >= 0.5e-200


def test_a_constant_map() -> None:
    rows = np.array([[0.0, 2.0], [1.0, 2.0], [0.5, 2.0]])
    sampled = sampled_prompt(samples_from(rows, name="s"), Fraction(1, 10))
    assert sampled.built.answers(np.array([[[0.3]]])).item() == pytest.approx(2, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "got no samples"),
        ("x,y\n1,2\n3\n", "line 3 must hold 2 finite numbers, got 3"),
        ("x,y\n1,2\n3,nan\n", "line 3 must hold 2 finite numbers, got 3,nan"),
        ("1,2\n1,2\n", "hold samples at two inputs or more"),
        ("5\n6\n", "have an input and a value"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=words):
        read_samples(path)


def test_tables_with_and_without_names_are_read_alike(tmp_path: Path) -> None:
    rows = "2,3\n0,1\n\n1,1.5\n"
    (tmp_path / "a.csv").write_text("x,y\n" + rows, encoding="utf-8")
    (tmp_path / "b.csv").write_text(rows, encoding="utf-8")
    first, second = read_samples(tmp_path / "a.csv"), read_samples(tmp_path / "b.csv")
    assert first.inputs.ravel().tolist() == second.inputs.ravel().tolist() == [0, 1, 2]
    assert first.values.ravel().tolist() == [1, 1.5, 3]
    with pytest.raises(UserError, match="be a file of comma-separated numbers"):
        read_samples(tmp_path / "none.csv")
