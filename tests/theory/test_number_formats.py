"""How many values a number can take, against the formats themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from promptlimits.base.errors import UserError
from promptlimits.theory.number_formats import NumberFormat, number_format


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("float16", np.uint16),
        ("bfloat16", np.uint16),
        ("float8_e5m2", np.uint8),
        ("float8_e4m3fn", np.uint8),
    ],
)
def test_every_finite_bit_pattern_is_counted(name: str, bits: type) -> None:
    patterns = torch.from_numpy(np.arange(np.iinfo(bits).max + 1).astype(bits))
    numbers = patterns.view(getattr(torch, name)).to(torch.float32)
    assert number_format(name).values == int(torch.isfinite(numbers).sum())


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_wide_formats(name: str) -> None:
    info = np.finfo(name)
    exponents = 2**info.iexp - 1  # all but the one of infinities and NaNs
    assert number_format(name).values == 2 * exponents * 2**info.nmant
    assert number_format("float32").values == 4_278_190_080


def test_the_smaller_count_rules() -> None:
    narrow = number_format("bfloat16").values
    assert number_format("bfloat16", "float32").values == narrow
    # Two images more: what overflows on conversion.
    assert number_format("float32", "bfloat16").values == narrow + 2
    assert number_format("float32", "float32") == number_format("float32")
    assert number_format("float32", "bfloat16").name == "float32 stored, bfloat16 computed with"


def test_conversion_reaches_no_more_values_than_counted() -> None:
    """All float16 numbers, computed with in float8: distinct images, overflow included."""
    patterns = torch.from_numpy(np.arange(2**16).astype(np.uint16)).view(torch.float16)
    finite = patterns[torch.isfinite(patterns)]
    for name in ("float8_e5m2", "float8_e4m3fn"):
        images = finite.to(getattr(torch, name)).view(torch.uint8)
        assert len(images.unique()) <= number_format("float16", name).values


@pytest.mark.parametrize("name", ["float31", "", "int8"])
def test_unknown_format(name: str) -> None:
    with pytest.raises(UserError, match="number format must be one of float64, float32"):
        number_format(name)
    with pytest.raises(UserError, match="number format must"):
        number_format("float32", name)


@pytest.mark.parametrize("values", [1, 0, -3, 2.0, True, None])
def test_at_least_two_values(values: object) -> None:
    with pytest.raises(UserError, match="at least 2"):
        NumberFormat(name="x", values=values)  # type: ignore[arg-type]


def test_two_values_are_enough() -> None:
    assert NumberFormat(name="a bit", values=2).values == 2


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("float32", 2),
        ("float32 stored, bfloat16 computed with", 7),
        ("float32 stored, float32 computed with", 2**32 - 2**24),
        ("any real numbers whatsoever, float64", 2),
        ("Float-32", 2),
        ("FLOAT8_E5M2", 248),
    ],
)
def test_the_name_of_a_known_format_is_not_lent(name: str, values: int) -> None:
    with pytest.raises(UserError, match="number format"):
        NumberFormat(name=name, values=values)
