"""W4 in exact arithmetic: a rational twin of the transformer whose outputs forget the input."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
import torch

from promptlimits.lab.errata.measures import DEPTH, contracting_blocks, trap
from promptlimits.lipschitz.paper.invertibility import certify_invertible
from promptlimits.nets.paper.transformer import to_weights

Plane = tuple[Fraction, Fraction]
TURN = (Fraction(20, 29), Fraction(21, 29))
"""By 43.6 degrees: a rational point of the circle. Four turns by it, the last one adjusted."""


def times(a: Plane, b: Plane) -> Plane:
    return (a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0])


def last_turn() -> Plane:
    """The turn w with TURN^3 w = -1: minus the conjugate of TURN^3."""
    cube = times(TURN, times(TURN, TURN))
    return (-cube[0], cube[1])


def outputs(prompt: Plane, query: Plane) -> tuple[Plane, Plane]:
    """Uniform attention, V = R - I, four layers, in exact arithmetic."""
    columns = [prompt, query]
    for turn in (TURN, TURN, TURN, last_turn()):
        mean = ((columns[0][0] + columns[1][0]) / 2, (columns[0][1] + columns[1][1]) / 2)
        turned = times(turn, mean)
        columns = [(x + turned[0] - mean[0], y + turned[1] - mean[1]) for x, y in columns]
    return columns[0], columns[1]


def test_outputs_do_not_depend_on_the_input_exactly() -> None:
    draw = random.Random(0)

    def plane() -> Plane:
        return (Fraction(draw.randint(-99, 99), 7), Fraction(draw.randint(-99, 99), 11))

    for turn in (TURN, last_turn()):
        assert turn[0] ** 2 + turn[1] ** 2 == 1
        # ||V||^2 = |turn - 1|^2 = 2 - 2 cos < 1: every block contracts.
        assert 2 - 2 * turn[0] < 1
    prompt = plane()
    for _ in range(20):
        query = plane()
        carried, kept = outputs(prompt, query)
        assert kept == (-prompt[0], -prompt[1])
        assert carried == (-query[0], -query[1])


@pytest.mark.parametrize("seed", range(3))
def test_the_transformer_runs_into_it(seed: int) -> None:
    found = contracting_blocks(seed)
    assert found.refutes
    assert found.numbers["block_constant"] == pytest.approx(0.7653668647, abs=1e-6)
    assert found.numbers["layers"] == DEPTH == 4
    assert "W4" in found.key


def test_several_tokens_lose_their_mean() -> None:
    """With m = m_p = 3 the outputs are X - (sum p + sum x) 1^T/3: a common shift is lost."""
    generator = torch.Generator().manual_seed(0)
    prompt, query = torch.randn(2, 2, 3, generator=generator, dtype=torch.float64)
    total = (prompt + query).sum(dim=1, keepdim=True)
    model = trap()
    plain = model.with_prompt(prompt, query)
    torch.testing.assert_close(plain, query - total / 3, rtol=0, atol=1e-14)
    torch.testing.assert_close(model.with_prompt(prompt, query + 5), plain, rtol=0, atol=1e-13)


def test_it_is_one_to_one_on_whole_sequences_and_not_behind_a_prompt() -> None:
    weights = to_weights(trap())
    assert certify_invertible(weights, radius=1).floor == 0
    assert certify_invertible(weights, radius=1).whole_floor > 0
