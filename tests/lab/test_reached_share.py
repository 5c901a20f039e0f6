"""The share by counting cubes is the volume of their union."""

import numpy as np
import pytest
from scipy.stats import norm

from promptlimits.lab.reached_share import LineProblem
from promptlimits.lab.regression.random_problems import NetworkShape

DRAWS = 20_000


def share(problem, eps, pairs):
    counted = problem.counted(eps, pairs, draws=DRAWS, seed=0)
    spread = norm.isf(1e-4) * np.sqrt(max(counted, 1)) / DRAWS * problem.factor(eps, pairs)
    return counted / DRAWS * problem.factor(eps, pairs), spread


@pytest.mark.parametrize("pairs", [1, 2])
def test_it_is_the_share_of_random_targets_that_a_prompt_meets(pairs):
    problem = LineProblem.draw(NetworkShape(dim=1, layers=2), pairs=3, prompts=101, seed=1)
    targets = np.random.default_rng(0).uniform(-1, 1, (DRAWS, pairs))
    apart = np.abs(targets[:, None] - problem.outputs[None, :, :pairs]).max(axis=2).min(axis=1)
    for eps in (0.05, 0.2):
        found, spread = share(problem, eps, pairs)
        drawn = (apart <= eps).mean()
        assert found == pytest.approx(drawn, abs=spread + 4 * np.sqrt(drawn / DRAWS))


def test_one_cube_inside_has_its_own_volume_and_one_outside_none():
    inside, outside = (
        LineProblem(model=None, outputs=np.full((7, 5), place)) for place in (0.3, 3.0)
    )
    found, spread = share(inside, 0.1, 5)
    assert found == pytest.approx(0.1**5, abs=spread)
    assert outside.counted(0.1, 5, draws=100, seed=0) == 0
