"""Monte Carlo: the share of targets that prompts really reach lies under the proved bounds.

Small transformers, one or two numbers in a prompt or token. The ball of prompts is covered by a
grid within h of each prompt. With L a proved constant, outputs at any prompt are within L h of
those at a grid point, so for a list of targets

    some grid point comes within eps        =>  the list is reached,
    no grid point comes within eps + L h    =>  it is not.

Counted over random lists, the first gives the true share from below and the second from above,
up to sampling. Sampling is dealt with by exact (Clopper-Pearson) limits that fail with
probability 1e-9 each; the seeds are fixed.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import beta

from promptlimits.base.exact import grid_up
from promptlimits.bounds.counting import VectorCounting
from promptlimits.bounds.prompt_capacity import PromptCapacity, published_capacity
from promptlimits.lipschitz.paper.compose import composed_bound
from promptlimits.nets.paper.transformer import from_weights
from promptlimits.nets.paper.weights import TransformerWeights, random_weights

Array = NDArray[np.float64]

PAIRS = 4
QUERY = 2
"""Tokens of an input; the last one's output is read."""
SAMPLES = 2000
PRECISIONS = (Fraction(1, 100), Fraction(1, 20), Fraction(1, 5))
SHAPES = ((1, 1), (1, 2), (2, 1))
"""(d, m_p); three numbers would need too fine a grid."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A transformer, its prompts' grid, and the distances of random lists from its outputs.

    `nearest[k - 1]` has for each list the least over the grid of the largest error of its first k
    targets. `width` is L h, rounded up.
    """

    setting: PromptCapacity
    nearest: Array
    width: Fraction
    grid_points: int


def ball_grid(dim, steps):
    """Points of the unit ball, (points, dim), and how far a point of the ball can be from them."""
    ticks = np.linspace(-1, 1, steps)
    grid = np.stack(np.meshgrid(*[ticks] * dim), axis=-1).reshape(-1, dim)
    # Projecting on the ball moves no grid point away from a point of the ball.
    grid /= np.maximum(1, np.linalg.norm(grid, axis=1, keepdims=True))
    return np.unique(grid, axis=0), math.sqrt(dim) / (steps - 1)


def prompts(dim, prompt_tokens):
    """A grid of prompts, (points, d, m_p), and its covering radius in the token norm."""
    numbers = dim * prompt_tokens
    tokens, radius = ball_grid(dim, 1501 if numbers == 1 else 45)
    places = np.stack(np.meshgrid(*[np.arange(len(tokens))] * prompt_tokens), -1)
    return tokens[places.reshape(-1, prompt_tokens)].swapaxes(1, 2), radius


def errors_at(outputs, targets):
    """For k = 1 to PAIRS, the least over the prompts of the largest error; (k, lists)."""
    worst = np.zeros((len(targets), len(outputs)))
    nearest = []
    for pair in range(PAIRS):
        squares = sum(
            (targets[:, pair, None, axis] - outputs[None, :, pair, axis]) ** 2
            for axis in range(targets.shape[2])
        )
        np.maximum(worst, np.sqrt(squares), out=worst)
        nearest.append(worst.min(axis=1))
    return np.array(nearest)


def unit_ball(shape, random):
    """Uniform points of the unit ball of the last axis."""
    directions = random.standard_normal(shape)
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    return directions * random.random((*shape[:-1], 1)) ** (1 / shape[-1])


@functools.cache
def case(shape, depth, seed):
    dim, prompt_tokens = shape
    random = np.random.default_rng([*shape, depth, seed])
    weights = random_weights(
        dim=dim,
        heads=1 + seed % 2,
        head_dim=dim,
        hidden=3,
        layers=depth,
        generator=random,
        masked=seed % 2 == 0,
        scale=0.5,
        biases=True,
    )
    lipschitz = composed_bound(weights, radius=1, method="token-prompt").bound
    grid, covering = prompts(dim, prompt_tokens)
    outputs = outputs_at(weights, grid, unit_ball((PAIRS, QUERY, dim), random).swapaxes(1, 2))
    targets = unit_ball((SAMPLES, PAIRS, dim), random)
    return Case(
        setting=PromptCapacity.model_validate(
            {"dim": dim, "prompt_tokens": prompt_tokens, "lipschitz": lipschitz, "radius": 1,
             "eps": PRECISIONS[0]}
        ),
        nearest=errors_at(outputs, targets),
        width=Fraction(math.exp(lipschitz.upper_nats()) * covering * (1 + 1e-9)),
        grid_points=len(grid),
    )  # fmt: skip


def outputs_at(weights, grid, queries):
    """The last output token for each prompt and query: (points, PAIRS, d)."""
    model = from_weights(weights)
    return model.with_prompt(torch.tensor(grid), torch.tensor(queries))[..., -1].numpy()


def limit_of(setting, **changes):
    """Upper limit on the logarithm of the share that prompts reach."""
    return nats(min(setting.model_copy(update=changes).log_shares()))


def nats(point):
    """A grid point as a float that is no less."""
    return math.nextafter(point / 2**96, math.inf)


def at_least(count):
    """The share behind `count` of SAMPLES is at least this, but for one time in 10^9."""
    return float(beta.ppf(1e-9, count, SAMPLES - count + 1)) if count else 0.0


def at_most(count):
    """The share behind `count` of SAMPLES is at most this, but for one time in 10^9."""
    return float(beta.ppf(1 - 1e-9, count + 1, SAMPLES - count)) if count < SAMPLES else 1.0


def log_share(share):
    return math.log(share) if share else -math.inf


CASES = [(shape, depth, seed) for shape in SHAPES for depth in (1, 2) for seed in range(3)]


@pytest.mark.parametrize(("shape", "depth", "seed"), CASES)
def test_the_true_share_lies_under_the_theorem(shape, depth, seed):
    """Twelve cases for each transformer (k from 1 to 4, three eps): 216 in all."""
    assert len(CASES) * PAIRS * len(PRECISIONS) >= 100
    drawn = case(shape, depth, seed)
    proved_something = 0
    for eps in PRECISIONS:
        for pairs, nearest in enumerate(drawn.nearest, 1):
            limit = limit_of(drawn.setting, eps=eps, pairs=pairs)
            reached = at_least(int((nearest <= float(eps)).sum()))
            assert log_share(reached) <= limit
            # The finer statement: nothing at all is reached outside this wider set.
            wider = eps + drawn.width
            if wider < 1:
                widened = limit_of(drawn.setting, eps=wider, pairs=pairs)
                count = int((nearest <= float(wider)).sum())
                assert log_share(at_least(count)) <= widened
            proved_something += limit < 0
    assert proved_something >= 3


# All eighteen transformers at once: some 6 s on one core if no other test has run them.
@pytest.mark.slow
def test_in_over_a_hundred_cases_even_the_overestimate_lies_under_the_theorem():
    """The wider set, plus the sampling error, is a true upper limit on the share."""
    under = 0
    for shape, depth, seed in CASES:
        drawn = case(shape, depth, seed)
        for eps in PRECISIONS:
            for pairs, nearest in enumerate(drawn.nearest, 1):
                limit = limit_of(drawn.setting, eps=eps, pairs=pairs)
                over = at_most(int((nearest <= float(eps + drawn.width)).sum()))
                under += math.log(over) <= limit
    assert under >= 100


@pytest.mark.parametrize(("shape", "depth", "seed"), CASES[::3])
def test_counted_prompts_reach_no_more_than_their_number_times_a_ball(shape, depth, seed):
    """The grid itself as a vocabulary: one choice among its points, at any Lipschitz constant."""
    drawn = case(shape, depth, seed)
    for eps in PRECISIONS:
        for pairs, nearest in enumerate(drawn.nearest, 1):
            sizes = {"dim": drawn.setting.dim, "prompt_tokens": 1, "radius": 1, "eps": eps}
            counted = {"pairs": pairs, "values": drawn.grid_points, "per_token": True}
            cap = VectorCounting.model_validate(sizes | counted)
            reached = at_least(int((nearest <= float(eps)).sum()))
            assert log_share(reached) <= nats(grid_up(cap.log_share))


def test_the_theorem_is_not_far_above_the_truth():
    """d = m_p = 1, depth 1: k = 2 at eps = 1/20, within a factor of 20 of what was measured."""
    drawn = case((1, 1), 1, 0)
    measured = float((drawn.nearest[1] <= 0.05).mean())
    limit = limit_of(drawn.setting, eps=PRECISIONS[1], pairs=2)
    assert 0 < limit - math.log(measured) < math.log(20)


def test_a_constant_map_has_the_share_of_one_ball_and_the_published_one_is_false():
    """E3: W_v = 0 and an MLP that cancels its input; every L > 0 is admissible.

    The share is (eps/r)^(d k) exactly. Theorem 1 tends to it as L falls; the published
    proportion falls to 0.
    """
    zero, one = np.zeros((2, 2)), np.eye(2)
    plain = random_weights(
        dim=2, heads=1, head_dim=2, hidden=4, layers=1, masked=True,
        generator=np.random.default_rng(0),
    )  # fmt: skip
    head = replace(plain.layers[0].heads[0], value=zero)
    layer = replace(
        plain.layers[0],
        heads=(head,),
        w1=np.concatenate([one, -one]),
        b1=np.zeros(4),
        w2=np.concatenate([-one, one], axis=1),
        b2=np.zeros(2),
    )
    weights = TransformerWeights(layers=(layer,), masked=True)
    random = np.random.default_rng(1)
    grid, _ = prompts(2, 1)
    outputs = outputs_at(weights, grid, unit_ball((PAIRS, QUERY, 2), random).swapaxes(1, 2))
    assert not outputs.any()
    nearest = errors_at(outputs, unit_ball((SAMPLES, PAIRS, 2), random))
    eps = Fraction(3, 10)
    sizes = {"dim": 2, "prompt_tokens": 1, "lipschitz": Fraction(1, 1000), "radius": 1, "eps": eps}
    setting = PromptCapacity.model_validate(sizes)
    for pairs in (1, 2):
        limit = limit_of(setting, pairs=pairs)
        exact = 2 * pairs * math.log(eps)
        assert exact <= limit <= exact + 0.02
        measured = at_least(int((nearest[pairs - 1] <= float(eps)).sum()))
        assert log_share(measured) <= limit
        published = published_capacity(setting.model_copy(update={"pairs": pairs})).log_share
        assert published is not None
        assert nats(published) < log_share(measured)
