"""E3, E4, E8, E9, E10, E11, E12, E17.

W4 in exact arithmetic: a rational twin of the transformer whose outputs forget the input.
"""

import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest
import torch

from promptlimits.base.errors import UserError
from promptlimits.lab.errata.measures import (
    DEPTH,
    contracting_blocks,
    covering,
    dimension,
    monotone_cover,
    prompt_written_twice,
    published_dimension,
    rademacher_pattern,
    rademacher_prompts,
    running_mean,
    trap,
)
from promptlimits.lab.errata.shares import (
    constant_layer,
    reachable_zero,
    share_of_an_interval,
    share_of_volume,
)
from promptlimits.lipschitz.paper.invertibility import certify_invertible
from promptlimits.nets.paper.transformer import to_weights
from promptlimits.nets.paper.transport import wasserstein_distance


@pytest.mark.parametrize("seed", [0, 1])
def test_the_share_of_the_constant_map_is_a_ratio_of_volumes(seed):
    found = share_of_volume(seed).numbers
    assert found["spread_of_outputs"] == 0
    assert found["true_share"] == pytest.approx(0.2**3)
    assert abs(found["sampled_share"] - 0.008) < 5 * found["standard_error"]
    rows = found["rows"]
    for row in rows:
        constant = row["lipschitz"]
        # [(3 L r/eps)^m_p / (r/(3 eps))^(mk)]^d at r = m = m_p = k = 1, d = 3.
        printed = ((3 * constant / 0.2) / (1 / (3 * 0.2))) ** 3
        assert row["published"] == pytest.approx(printed)
        assert row["published"] < 0.008 < row["corrected"]


def test_the_constant_layer_is_exactly_zero():
    tau = constant_layer(dim=4, heads=2, seed=0)
    x = 1e3 * torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(tau(x).abs().max()) == 0
    assert any(float(head.value.abs().max()) > 0 for head in tau.layers[0].heads)


@pytest.mark.parametrize("heads", [1, 3, 8])
def test_zero_is_reached_by_every_prompt(heads):
    found = reachable_zero(heads, 1).numbers
    assert found["errors"] == [0.0] * 3 * (heads + 1)
    assert found["least_offset"] > 0
    assert found["dim"] == heads**2 + 2 * heads + 1


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_the_monotone_cover_is_counted_right(columns):
    heights = itertools.product(range(columns + 1), repeat=columns)
    rising = sum(all(a <= b for a, b in itertools.pairwise(one)) for one in heights)
    assert monotone_cover(columns) == rising


def test_the_monotone_cover_covers():
    """Each measure on [-1, 1] is within 2/M of the step function that the proof names."""
    generator = np.random.default_rng(0)
    fine = (np.arange(20_000) + 0.5) / 10_000 - 1
    for case in range(60):
        columns, atoms = generator.integers(1, 9, size=2)
        at = np.sort(generator.uniform(-1, 1, atoms))
        if case % 3 == 0:  # atoms on the edges of columns
            at = np.sort(generator.choice(np.linspace(-1, 1, 2 * columns + 1), atoms))
        edges = np.linspace(-1, 1, columns + 1)
        ends = np.searchsorted(at, edges[:-1], "right") + np.searchsorted(at, edges[1:], "left")
        heights = np.round(columns * ends / (2 * atoms)) / columns
        assert (np.diff(heights) >= 0).all()
        steps = heights[np.minimum((fine + 1) / 2 * columns, columns - 1).astype(int)]
        true = np.searchsorted(at, fine, "right") / atoms
        assert 2 * np.mean(np.abs(true - steps)) <= 2 / columns + 1e-3


def test_the_claimed_covering_number_is_more_than_there_are():
    found = covering().numbers
    columns = round(0.2 / found["eps"])
    assert found["log_cover"] == pytest.approx(math.log(math.comb(2 * columns + 2, columns + 1)))
    assert found["log_published"] == pytest.approx(1 / found["eps"] - 100)


def test_a_prompt_written_twice_is_no_other_measure_but_another_prompt():
    for seed in range(4):
        found = prompt_written_twice(seed).numbers
        assert found["prompt_distance"] == 0
        assert found["output_distance"] > 0.05
        assert found["last_token_distance"] > 1e-4


def test_rademacher_patterns_differ_on_half_of_the_positions():
    patterns = [rademacher_pattern(number, 16) for number in range(1, 5)]
    assert patterns[0] == [False] * 8 + [True] * 8
    for one, other in itertools.combinations(patterns, 2):
        assert sum(a != b for a, b in zip(one, other, strict=True)) == 8
    found = rademacher_prompts().numbers
    assert found["distances"] == pytest.approx([5 / math.sqrt(2)] * 10, rel=1e-12)


def test_the_claimed_dimension_is_a_product():
    factorials = math.factorial(768 - 144 - 12) // math.factorial(768 - 144 - 24 - 1)
    assert published_dimension(768, 12) == factorials
    found = dimension().numbers
    assert found["published_dimension"] == 1486060510153306400957649114869760000
    assert found["ambient_dimension"] == 9984
    assert found["corrected_dimension"] == 9203
    assert found["first_dim_of_one_head"] == 7
    assert [published_dimension(d, 1) > 2 * d for d in range(4, 9)] == [False] * 3 + [True] * 2
    with pytest.raises(UserError, match="as Theorem 5"):
        published_dimension(3, 1)


def test_tokens_in_balls_serve_a_third_where_three_tenths_are_published():
    found = share_of_an_interval().numbers
    assert found["lipschitz"] == pytest.approx(1 / 30, rel=1e-12)
    assert found["largest_output"] == pytest.approx(7 / 30, rel=1e-12)
    # 3Lr = eps: [(3Lr/eps)^49 / (r/(3 eps))]^1.
    assert found["published"] == pytest.approx(0.3, rel=1e-10)
    assert found["share_met"] == pytest.approx(1 / 3, abs=1 / 3001)
    assert found["true_share"] == pytest.approx(1 / 3)


def test_running_means_expand_the_mean_over_positions():
    rows = running_mean().numbers["rows"]
    found = {}
    for row in rows:
        found[row["tokens"], row["order"]] = row
    # The Gram matrix of [[1, 0], [1/2, 1/2]] has trace 3/2 and determinant 1/4.
    assert found[2, 2]["averaged"] == pytest.approx(math.sqrt(3 / 4 + math.sqrt(5) / 4))
    for length in (2, 8, 32, 128):
        assert found[length, 2]["averaged"] < 2
        harmonic = sum(1 / n for n in range(1, length + 1))
        assert found[length, 1]["averaged"] == pytest.approx(harmonic)
        assert max(found[length, order]["largest"] for order in (1, 2)) <= 1


def masked_outputs(points, weights, score, value):
    """Masked mean-field attention; points (T, a, d), weights of the T positions."""
    outputs = []
    for place in range(len(points)):
        seen = points[: place + 1].reshape(-1, points.shape[2])
        mass = np.repeat(weights[: place + 1], points.shape[1])
        logits = seen @ score @ points[place].T
        shares = mass[:, None] * np.exp(logits - logits.max(axis=0))
        outputs.append((shares.T @ seen) / shares.sum(axis=0)[:, None] @ value.T)
    return outputs


def test_the_largest_distance_over_positions_obeys_the_formula():
    """What E17 says holds, with the sharper ||V|| (1 + 2 beta) e^beta of its proof."""
    generator = np.random.default_rng(0)
    worst = 0.0
    for _ in range(300):
        d, length, atoms = generator.integers(1, 4, size=3)
        beta = float(generator.choice([0, 0.3, 1, 3]))
        score, value = (m / np.linalg.norm(m, 2) for m in generator.standard_normal((2, d, d)))
        one, other = generator.standard_normal((2, length, atoms, d))
        other = one + 10 ** generator.uniform(-4, 0) * other
        pair = np.stack([one, other])
        one, other = pair / np.linalg.norm(pair, axis=-1).max()
        weights = generator.dirichlet(np.ones(length))
        outputs = [masked_outputs(x, weights, beta * score, value) for x in (one, other)]
        before, after = (
            max(wasserstein_distance(x, y, order=2) for x, y in zip(*pair, strict=True))
            for pair in ((one, other), outputs)
        )
        worst = max(worst, after / before / ((1 + 2 * beta) * math.exp(beta)))
    assert 0.5 < worst <= 1 + 1e-9


Plane = tuple[Fraction, Fraction]
TURN = (Fraction(20, 29), Fraction(21, 29))
"""By 43.6 degrees: a rational point of the circle. Four turns by it, the last one adjusted."""


def times(a, b):
    return (a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0])


def last_turn():
    """The turn w with TURN^3 w = -1: minus the conjugate of TURN^3."""
    cube = times(TURN, times(TURN, TURN))
    return (-cube[0], cube[1])


def outputs(prompt, query):
    """Uniform attention, V = R - I, four layers, in exact arithmetic."""
    columns = [prompt, query]
    for turn in (TURN, TURN, TURN, last_turn()):
        mean = ((columns[0][0] + columns[1][0]) / 2, (columns[0][1] + columns[1][1]) / 2)
        turned = times(turn, mean)
        columns = [(x + turned[0] - mean[0], y + turned[1] - mean[1]) for x, y in columns]
    return columns[0], columns[1]


def test_outputs_do_not_depend_on_the_input_exactly():
    draw = random.Random(0)

    def plane():
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
def test_the_transformer_runs_into_it(seed):
    found = contracting_blocks(seed)
    assert found.refutes
    assert found.numbers["block_constant"] == pytest.approx(0.7653668647, abs=1e-6)
    assert found.numbers["layers"] == DEPTH == 4
    assert "W4" in found.key


def test_several_tokens_lose_their_mean():
    """With m = m_p = 3 the outputs are X - (sum p + sum x) 1^T/3: a common shift is lost."""
    generator = torch.Generator().manual_seed(0)
    prompt, query = torch.randn(2, 2, 3, generator=generator, dtype=torch.float64)
    total = (prompt + query).sum(dim=1, keepdim=True)
    model = trap()
    plain = model.with_prompt(prompt, query)
    torch.testing.assert_close(plain, query - total / 3, rtol=0, atol=1e-14)
    torch.testing.assert_close(model.with_prompt(prompt, query + 5), plain, rtol=0, atol=1e-13)


def test_it_is_one_to_one_on_whole_sequences_and_not_behind_a_prompt():
    weights = to_weights(trap())
    assert certify_invertible(weights, radius=1).floor == 0
    assert certify_invertible(weights, radius=1).whole_floor > 0
