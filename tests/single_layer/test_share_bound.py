"""Theorem 4': never below the share that sampling finds, and the right slope."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from promptlimits.errors import UserError
from promptlimits.lipschitz.weights import random_weights
from promptlimits.single_layer.setting import (
    SharedQuery,
    attend,
    query_statistics,
    shared_query,
    statistics,
)
from promptlimits.single_layer.share_bound import HeadReach, head_reaches, share_bound


def test_the_formula_by_hand() -> None:
    found = share_bound(
        [HeadReach(rank=2, reach=Fraction(3), spread=5), HeadReach(rank=1, reach=1, spread=2)],
        dim=4,
        pairs=6,
        eps=Fraction(1, 10),
        target_radius=2,
        lipschitz=Fraction(3, 2),
    )
    delta = float(found.delta)

    def log_share(width: float) -> float:
        net = 2 * math.log(1 + 4 * 2 * 1.5 * 3 / width) + math.log(1 + 4 * 2 * 1.5 / width)
        net += math.log(math.ceil(2 * 2 * 1.5 * 3 * 5 / width))
        net += math.log(math.ceil(2 * 2 * 1.5 * 2 / width))
        return net + 24 * math.log((0.1 + width) / 2)

    assert found.share.upper_nats() == pytest.approx(log_share(delta), rel=1e-9)
    others = min(log_share(width) for width in np.geomspace(1e-4, 1.8, 400))
    assert found.share.upper_nats() <= others + 0.02
    assert found.share.source.form == "proved here"


def test_the_capacity_is_where_the_share_falls_below_one() -> None:
    heads = [HeadReach(rank=4, reach=2, spread=3)] * 2
    given = {"dim": 8, "eps": Fraction(1, 100), "target_radius": 1}
    capacity = share_bound(heads, pairs=1, **given).capacity  # type: ignore[arg-type]
    logs = {
        pairs: share_bound(heads, pairs=pairs, **given).share.upper_nats()  # type: ignore[arg-type]
        for pairs in (capacity - 1, capacity, capacity + 1)
    }
    assert logs[capacity] < 0 < logs[capacity - 1]
    # Each further pair costs d log(r/(eps + delta)): most of d log(r/eps) here.
    assert logs[capacity] - logs[capacity + 1] > 8


def test_no_length_of_prompt_enters_and_heads_of_value_zero_cost_nothing() -> None:
    given = {"dim": 2, "pairs": 2, "eps": Fraction(1, 10), "target_radius": 1}
    nothing = share_bound([HeadReach(rank=0, reach=0, spread=1)], **given)  # type: ignore[arg-type]
    # One answer is left: it serves (eps/r)^(dk); our notes' product would be 0.
    assert nothing.share.upper_nats() >= 4 * math.log(0.1)
    assert nothing.share.upper_nats() == pytest.approx(4 * math.log(0.1), abs=1e-6)
    assert nothing.capacity == 1


def one_dimensional(seed: int) -> tuple[SharedQuery, np.random.Generator]:
    generator = np.random.default_rng(seed)
    layer = random_weights(
        dim=1, heads=1, head_dim=1, hidden=0, layers=1, generator=generator, masked=False
    ).layers[0]
    tokens = generator.uniform(-1, 1, (4, 1))
    return shared_query(layer, tokens[0], list(tokens[1:])), generator


@pytest.mark.parametrize("seed", range(4))
def test_sampling_finds_no_more(seed: int) -> None:
    """d = 1, three queries, R = 2: a surface in space, and the targets near it.

    The superset of what prompts reach, A in [-omega, omega] and v in [0, 1], is swept finely;
    its share of random targets must lie under the bound.
    """
    setting, generator = one_dimensional(seed)
    (head,) = head_reaches(setting, 1)
    radius, eps = 2 * float(head.reach), 0.005 * float(head.reach)
    found = share_bound([head], dim=1, pairs=3, eps=Fraction(eps), target_radius=Fraction(radius))
    known = query_statistics(setting)
    means, logs = known.mean[:, 0, 0], known.log_weight[:, 0]
    targets = generator.uniform(-radius, radius, (4_000, 3))
    level = np.linspace(0, 1, 801)[:, None]
    ratio = np.exp(logs - logs.min())
    share = ratio * level / (1 + level * (ratio - 1))
    grid = np.linspace(-float(head.reach), float(head.reach), 801)
    surface = (share[:, None, :] * means + (1 - share)[:, None, :] * grid[None, :, None]).reshape(
        -1, 3
    )
    cells = {tuple(cell) for cell in np.floor(surface / eps).astype(int)}
    near = sum(
        any(
            tuple(base + step) in cells
            for step in np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], [-1, 0, 1]), -1).reshape(-1, 3)
        )
        for base in np.floor(targets / eps).astype(int)
    )
    # Cells count targets up to 2 eps away, so this share is itself too large.
    assert near / len(targets) < math.exp(found.share.upper_nats()) < 1


def test_the_numbers_of_a_layer_hold() -> None:
    for seed in range(5):
        generator = np.random.default_rng(seed)
        layer = random_weights(
            dim=5, heads=2, head_dim=2, hidden=0, layers=1, generator=generator, masked=False
        ).layers[0]
        tokens = generator.standard_normal((4, 5))
        setting = shared_query(layer, tokens[0], list(tokens[1:]))
        heads = head_reaches(setting, Fraction(3, 2))
        known = query_statistics(setting)
        assert [head.rank for head in heads] == [2, 2]
        for i, head in enumerate(heads):
            assert np.linalg.norm(known.mean[:, i], axis=1).max() <= float(head.reach) + 1e-12
            spread = np.exp(np.ptp(known.log_weight[:, i]))
            assert float(head.spread) == pytest.approx(spread)
        for _ in range(50):
            prompt = generator.standard_normal((5, 4))
            prompt *= 1.5 / np.linalg.norm(prompt, axis=0)
            reached = statistics(setting, prompt).mean
            for i, head in enumerate(heads):
                assert np.linalg.norm(reached[i]) <= float(head.reach)
        assert attend(setting, prompt).shape == (3, 5)


def test_bad_input() -> None:
    head = HeadReach(rank=1, reach=1, spread=1)
    given = {"dim": 2, "pairs": 2, "eps": Fraction(1, 10), "target_radius": 1}
    with pytest.raises(UserError, match="eps must be below"):
        share_bound([head], **(given | {"eps": 1}))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="heads"):
        share_bound([], **given)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="rank"):
        HeadReach(rank=-1, reach=1, spread=1)
    with pytest.raises(UserError, match="spread"):
        HeadReach(rank=1, reach=1, spread=Fraction(1, 2))
    with pytest.raises(TypeError):
        HeadReach(rank=1, reach=0.5, spread=1)  # type: ignore[arg-type]
    huge = HeadReach(rank=1, reach=1, spread=Fraction(10) ** 4000)
    assert share_bound([huge], **given).share.upper_log10() > 3000  # type: ignore[arg-type]
