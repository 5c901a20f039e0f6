"""The table of sizes against the networks themselves, counts by hand, and limits."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from promptlimits.constructions.sizes import SizesRow, sizes_table, sphere_net
from promptlimits.constructions.three_stage import StageSizes, build
from promptlimits.constructions.three_stage_weights import three_stage_weights
from promptlimits.constructions.universal_bound import FunctionClass
from promptlimits.constructions.value_table import table_network
from promptlimits.errors import UserError

TABLE, STAGES, HU, PETROV, LEAST = range(5)


def rows_of(
    dim: int = 1, tokens: int = 1, lipschitz: Fraction | int = 1, eps: str = "1/20", p: int = 2
) -> tuple[SizesRow, ...]:
    return sizes_table(
        FunctionClass(dim=dim, tokens=tokens, lipschitz=lipschitz, eps=Fraction(eps), exponent=p)
    )


@pytest.mark.parametrize(
    ("dim", "tokens", "eps"), [(1, 1, "1/20"), (1, 1, "1"), (2, 1, "1/5"), (1, 3, "1/3")]
)
def test_the_value_table_is_counted_as_it_is_built(dim: int, tokens: int, eps: str) -> None:
    row = rows_of(dim, tokens, eps=eps)[TABLE]
    target = FunctionClass(dim=dim, tokens=tokens, lipschitz=1, eps=Fraction(eps), exponent=2)
    network = table_network(target)
    weights = network.weights
    counted = {
        "prompt tokens": network.prompt_tokens,
        "numbers in the prompt": dim * network.prompt_tokens,
        "cells along a side": network.shape.cells,
        "layers": len(weights.layers),
        "layers with attention": sum(
            any(head.output.any() for head in layer.heads) for layer in weights.layers
        ),
        "heads of a layer": max(len(layer.heads) for layer in weights.layers),
        "width": weights.dim,
        "hidden neurons of a layer": max(layer.hidden for layer in weights.layers),
        "weights": sum(array.size for _, array in weights.arrays()),
    }
    assert {name: size.exact for name, size in row.numbers} == counted


def test_three_stages_by_hand_and_as_built() -> None:
    # (L + 1) d m = 2, eps = 2: two steps; n = 3.
    row = rows_of(eps="2")[STAGES]
    found = {name: size.exact for name, size in row.numbers}
    assert found["1/delta"] == 2
    assert found["prompt tokens"] == 2
    assert found["layers of the quantiser"] == 6
    assert found["layers with attention"] == 7
    assert found["layers of the value map"] == 24
    weights, _ = three_stage_weights(build(StageSizes(dim=1, tokens=1, steps=2)))
    built = sum(array.size for _, array in weights.arrays())
    assert built <= (found["weights"] or 0) <= 2 * built
    # 1/delta = ceil(2 * 2 * 20) = 80 and n = 81: 81 * 80^81 layers.
    value = rows_of()[STAGES].size("layers of the value map")
    assert value.log10 == pytest.approx(math.log10(81) + 81 * math.log10(80), rel=1e-12)


def test_the_footnote() -> None:
    """d = 768, C = 1, alpha = 2, eps = 30, two tokens: 10^640 suffice there; none is needed."""
    rows = rows_of(768, 2, eps="30")
    assert rows[HU].size("prompt tokens").log10 == pytest.approx(640.97, abs=0.01)
    assert rows[HU].size("hidden neurons of a layer").log10_log10 == pytest.approx(643.5, abs=0.1)
    # All inputs are within sqrt(1536)/2 < 30 of the middle: a constant answer is good enough.
    assert rows[TABLE].size("prompt tokens").exact == 2
    assert rows[LEAST].size("prompt tokens").exact == 0
    assert rows[LEAST].notes[0].startswith("none is needed: the constant 1/2")


@pytest.mark.parametrize(
    ("dim", "p", "eps", "least"),
    [
        (1, 2, "1/2", 0),
        (1, 2, "49/100", 1),
        (4, 2, "1", 0),
        (4, 2, "99/100", 1),
        (4, 1, "2", 0),
        (4, 1, "199/100", 1),
        (1536, 2, "2000", 0),
    ],
)
def test_a_prompt_is_needed_below_half_of_the_diameter_only(
    dim: int, p: int, eps: str, least: int
) -> None:
    # The constants 0 and 1 are dim^(1/p) apart; the constant 1/2 is in the middle.
    row = rows_of(dim, eps=eps, p=p)[LEAST]
    assert row.size("prompt tokens").exact == least
    assert row.name.startswith("Transformers as tame as the value table")
    assert any("at every input" in note for note in row.notes)


def test_weights_beyond_whole_numbers_are_those_of_all_stages_once() -> None:
    # n = 81 tokens, 80 steps: the value map has n 80^n layers, beside which the others vanish.
    row = rows_of()[STAGES]
    value, weights = row.size("layers of the value map"), row.size("weights")
    assert value.log10 is not None
    per_layer = 8 * 2 + 4 * 5 + 2
    assert weights.log10 == pytest.approx(value.log10 + math.log10(per_layer), abs=1e-9)
    # One step: the quantiser, d n layers, has more than the value map, n.
    row = rows_of(10**9, 10**9, eps="1000000000000")[STAGES]
    assert row.size("layers of the value map").exact == 2 * 10**9
    quantiser, weights = row.size("layers of the quantiser"), row.size("weights")
    assert quantiser.log10 is not None
    assert weights.log10 is not None
    assert weights.log10 > quantiser.log10 + 9


def test_the_net_of_the_circle_and_the_sphere() -> None:
    # A circle of length 2 pi: 2 * 1 * (2 pi/2)/delta. A sphere: 4 pi (4 pi)/(2 pi)/delta^2.
    assert float(sphere_net(1, Fraction(1, 10))) == pytest.approx(math.log(2 * math.pi * 10))
    assert float(sphere_net(2, Fraction(1, 10))) == pytest.approx(math.log(8 * math.pi * 100))
    row = rows_of()[PETROV]
    assert row.size("prompt tokens").exact == math.ceil(2 * math.pi * 120)
    # 10 + 14 + 4 powers of 20
    assert row.size("prompt tokens as published").log10 == pytest.approx(28 * math.log10(20))


@pytest.mark.parametrize("eps", ["1/10", "1/100", "1/1000", "1/10000"])
@pytest.mark.parametrize(("dim", "tokens"), [(1, 1), (2, 1), (2, 2), (8, 4)])
def test_the_lower_bound_is_below_what_is_built(dim: int, tokens: int, eps: str) -> None:
    rows = rows_of(dim, tokens, eps=eps)
    least = rows[LEAST].size("prompt tokens")
    table = rows[TABLE].size("prompt tokens")
    logarithm = math.log10(table.exact) if table.exact else table.log10
    assert least.log10 is not None
    assert logarithm is not None
    assert least.log10 <= logarithm + 1e-9
    assert (least.exact or 1) <= (table.exact or math.inf)


@pytest.mark.parametrize("eps", ["1/1" + "0" * 40, "1/1" + "0" * 400])
def test_sizes_of_any_magnitude(eps: str) -> None:
    for row in rows_of(3, 2, eps=eps, lipschitz=Fraction(7, 3)):
        assert row.to_json()["name"] == row.name
        for _, size in row.numbers:
            assert "inf" not in size.text()
            assert "nan" not in size.text()


def test_more_precision_takes_no_less() -> None:
    tables = [rows_of(2, 1, eps=f"1/{k}") for k in (2, 4, 8, 16)]
    for place, name in ((TABLE, "prompt tokens"), (STAGES, "tokens in all")):
        counts = [rows[place].size(name).exact or math.inf for rows in tables]
        assert counts == sorted(counts)
        assert counts[0] < counts[-1]


def test_the_norm_needs_an_exponent() -> None:
    with pytest.raises(UserError, match="exponent must be a number"):
        sizes_table(FunctionClass(dim=1, tokens=1, lipschitz=1, eps=Fraction(1, 2)))
