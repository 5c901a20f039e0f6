"""Random problems: targets that can be met alone, planted ones, and beginnings of one another."""

import pytest
import torch

from promptlimits.lab.regression.levenberg_marquardt import LevenbergMarquardt
from promptlimits.lab.regression.random_problems import (
    NetworkShape,
    ProblemShape,
    starts_that_solve,
)

NETWORK = NetworkShape(dim=2, layers=2)
SETTINGS = LevenbergMarquardt(tolerance=1e-6, max_steps=80)


def shape(**changes):
    return ProblemShape(**({"network": NETWORK, "prompt_tokens": 2, "pairs": 2} | changes))


def test_a_problem_is_the_beginning_of_a_larger_one_and_repeats():
    (model, queries, targets), (same, more, larger) = (shape(pairs=k).draw(3) for k in (2, 4))
    assert torch.equal(more[:2], queries)
    torch.testing.assert_close(larger[:2], targets, rtol=0, atol=0)
    assert torch.equal(same.layers[0].w1, model.layers[0].w1)
    assert not torch.equal(shape().draw(4)[1], queries)


def test_each_target_alone_is_met_and_planted_ones_together():
    alone = [starts_that_solve(shape(pairs=1), seed=s, starts=6, settings=SETTINGS)
             for s in range(4)]  # fmt: skip
    planted = [starts_that_solve(shape(planted=True), seed=s, starts=6, settings=SETTINGS)
               for s in range(4)]  # fmt: skip
    for solved, error in [*alone, *planted]:
        assert 0 < solved <= 6
        assert error <= 1e-6


def test_more_numbers_asked_for_than_a_prompt_has_are_not_met():
    for seed in range(4):
        solved, error = starts_that_solve(shape(pairs=3), seed=seed, starts=6, settings=SETTINGS)
        assert solved == 0
        assert error > 1e-4


def test_the_activation_is_the_one_asked_for():
    relu, gelu = (
        shape(network=NetworkShape(dim=2, activation=name)).draw(0) for name in ("relu", "gelu")
    )
    assert {layer.activation for layer in gelu[0].layers} == {"gelu"}
    assert torch.equal(relu[1], gelu[1])
    assert not torch.allclose(relu[2], gelu[2])


@pytest.mark.parametrize("norm", ["layer-pre", "layer-post", "rms-pre", "rms-post"])
def test_norms_are_where_they_are_named(norm):
    kind, place = norm.split("-")
    model, _, targets = shape(network=NetworkShape(dim=4, heads=2, norm=norm)).draw(0)
    assert model.norm_place == place
    assert model.layers[0].mlp_norm.kind == kind
    if norm == "layer-post":
        torch.testing.assert_close(targets.mean(dim=-2), torch.zeros(2, 1).double())
    assert torch.isfinite(targets).all()
