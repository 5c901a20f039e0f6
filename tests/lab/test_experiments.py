"""The two experiments on invertibility, at sizes that run in seconds."""

import math

import pytest
import torch

from promptlimits.base.errors import UserError
from promptlimits.lab import experiments
from promptlimits.lab.experiments import fitted_prompt


def test_no_prompt_beats_the_floor_and_far_above_the_threshold_one_meets_it():
    points = experiments.threshold(scales=(0.2, 0.4, 2.0), starts=4, steps=40)
    low, middle, high = points
    for point in points:
        assert point.two_to_one_error >= point.proved_least_error
    for point in (low, middle):
        assert point.proved_least_error > 0.05
        assert point.two_to_one_error > 0.3
        assert point.invertible_error < 1e-6
    assert high.proved_least_error == high.floor == 0
    assert high.two_to_one_error < 1e-6
    assert low.floor > middle.floor
    assert low.deviation < 1 < middle.deviation < high.deviation
    assert experiments.to_json(points)["points"][0]["scale"] == 0.2


def test_a_run_repeats():
    first, second = (
        experiments.threshold(scales=(0.3,), starts=2, steps=5, seed=4) for _ in range(2)
    )
    assert first == second


def test_the_prompt_leaves_the_ball_in_which_one_answer_is_impossible():
    found = experiments.norm_growth(steps=300, learning_rate=0.12)
    assert len(found.losses) == len(found.errors) == len(found.spectral_norms) == 301
    assert found.token_norms[0] < found.limit < found.token_norms[-1]
    assert found.spectral_norms[-1] > 10 * found.spectral_norms[0]
    assert found.losses[-1] < 1e-2 * found.losses[0]
    for spectral, token in zip(found.spectral_norms, found.token_norms, strict=True):
        assert token <= spectral * (1 + 1e-12) <= math.sqrt(4) * token * (1 + 1e-9)
    record = found.to_json()
    assert record["experiment"] == "norm"
    assert record["losses"] == list(found.losses)


def test_a_fit_reaches_what_can_be_reached_within_the_ball():
    goal = torch.tensor([[0.3], [0.4]], dtype=torch.float64)
    starts = torch.randn(3, 2, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    near = fitted_prompt(lambda p: p - goal, starts, radius=1.0, steps=40)
    torch.testing.assert_close(near, goal, rtol=0, atol=1e-10)
    far = fitted_prompt(lambda p: p - 4 * goal, starts, radius=1.0, steps=40)
    assert float(far.norm()) <= 1
    assert float((far - 4 * goal).norm()) == pytest.approx(1.0, abs=0.05)


def test_bad_input_of_the_growth():
    with pytest.raises(UserError, match="smaller scale"):
        experiments.norm_growth(scale=2.0)
