"""The mean-field transformer generalises the discrete one (Appendix A, corrected by E16)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from promptlimits.base.errors import UserError
from promptlimits.nets.paper.layers import PaperNorm
from promptlimits.nets.paper.mean_field import TokenMeasure, gamma, mean_field, token_measure
from promptlimits.nets.paper.transformer import PaperTransformer, from_weights
from promptlimits.nets.paper.transport import wasserstein_distance
from promptlimits.nets.paper.weights import random_weights

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def model(*, masked=False, layers=2):
    generator = np.random.default_rng(0)
    sizes = {"dim": 3, "heads": 2, "head_dim": 2, "hidden": 4, "layers": layers}
    return from_weights(random_weights(**sizes, generator=generator, masked=masked, biases=True))


def tokens(columns, seed=0):
    return torch.randn(
        3, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def integral(head, measure, x, time):
    """One head's quotient of integrals, atom by atom (Definition 2.6)."""
    above, below = torch.zeros(3, dtype=torch.float64), 0.0
    for number, (y, mass) in enumerate(zip(measure.points, measure.weights, strict=True)):
        if time is not None and measure.times is not None and measure.times[number] > time:
            continue
        density = float(mass) * float(torch.exp((head.key @ y) @ (head.query @ x)))
        above, below = above + density * (head.output @ (head.value @ y)), below + density
    return above / below


@pytest.mark.parametrize("timed", [False, True])
def test_gamma_is_the_integral_of_its_definition_and_atoms_move_by_it(timed):
    [layer] = model(layers=1).layers
    weights = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64)
    times = torch.tensor([0.25, 0.5, 0.5, 1.0], dtype=torch.float64) if timed else None
    measure = TokenMeasure(points=tokens(4).T, weights=weights, times=times)
    points = tokens(3, seed=1).T
    at = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64) if timed else None
    expected = torch.stack(
        [
            sum(
                (
                    integral(h, measure, x, None if at is None else float(at[i]))
                    for h in layer.heads
                ),
                torch.zeros(3, dtype=torch.float64),
            )
            for i, x in enumerate(points)
        ]
    )
    torch.testing.assert_close(gamma(layer, measure, points, at), expected, **EXACT)
    # Every atom moves by the layer's MLP, with the residual inside.
    inside = gamma(layer, measure, measure.points, times) + measure.points
    after = torch.relu(inside @ layer.w1.T + layer.b1) @ layer.w2.T + layer.b2 + inside
    moved = mean_field(model(masked=timed, layers=1), measure)
    torch.testing.assert_close(moved.points, after, **EXACT)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_the_measure_of_the_image_is_the_image_of_the_measure(masked, layers):
    tau, x = model(masked=masked, layers=layers), tokens(5)
    image = mean_field(tau, token_measure(x, timed=masked))
    torch.testing.assert_close(image.points.T, tau(x), **EXACT)
    assert wasserstein_distance(image.points, tau(x).T, order=2) < 1e-12


def test_a_residual_outside_the_mlp_is_another_map():
    """As Appendix A prints it; E16."""
    tau, x = model(layers=1), tokens(5)
    [layer] = tau.layers
    attended = gamma(layer, token_measure(x), x.T)
    outside = torch.relu(attended @ layer.w1.T + layer.b1) @ layer.w2.T + layer.b2 + attended + x.T
    assert wasserstein_distance(outside, tau(x).T) > 0.1


def test_duplicates_and_their_joint_mass_are_one_measure():
    tau, x = model(), tokens(3)
    thrice = torch.cat([x, x[:, :1], x[:, :1]], dim=1)
    masses = torch.tensor([3.0, 1.0, 1.0], dtype=torch.float64) / 5
    weighted = mean_field(tau, TokenMeasure(points=x.T, weights=masses))
    torch.testing.assert_close(weighted.points.T, tau(thrice)[:, :3], **EXACT)
    distance = wasserstein_distance(
        weighted.points, tau(thrice).T, order=1, first_weights=weighted.weights
    )
    assert distance < 1e-9
    # An atom without mass is moved, and moves nothing.
    more = TokenMeasure(
        points=torch.cat([x.T, tokens(1, seed=9).T]), weights=torch.cat([masses, torch.zeros(1)])
    )
    torch.testing.assert_close(mean_field(tau, more).points[:3], weighted.points, **EXACT)


def test_norms_are_applied_within_measures_as_within_sequences():
    norm = PaperNorm(kind="rms", weight=torch.ones(3).double(), bias=None, epsilon=1e-5)
    layers = tuple(replace(one, attention_norm=norm, mlp_norm=norm) for one in model().layers)
    for place in ("pre", "post"):
        tau = PaperTransformer(layers=layers, norm_place=place)
        x = tokens(4)
        torch.testing.assert_close(mean_field(tau, token_measure(x)).points.T, tau(x), **EXACT)
        assert torch.equal(mean_field(tau, token_measure(x)).weights, token_measure(x).weights)


def test_what_is_no_measure_is_said():
    x = tokens(3).T
    third = torch.full((3,), 1 / 3, dtype=torch.float64)
    for weights, words in (
        (third * 2, "add up to 1"),
        (third[:2], "shapes"),
        (third * float("nan"), "finite"),
    ):
        with pytest.raises(UserError, match=words):
            TokenMeasure(points=x, weights=weights)
    with pytest.raises(UserError, match=r"lie in \[0, 1\]"):
        TokenMeasure(points=x, weights=third, times=third * 6)
    with pytest.raises(UserError, match="exactly when the transformer is masked"):
        mean_field(model(masked=True), token_measure(tokens(3)))
    with pytest.raises(UserError, match="no positional encodings"):
        mean_field(replace(model(), positions=tokens(3)), token_measure(tokens(3)))
    [layer] = model(layers=1).layers
    timed = token_measure(tokens(3), timed=True)
    with pytest.raises(UserError, match="given exactly when"):
        gamma(layer, timed, x)
    with pytest.raises(UserError, match="as early"):
        gamma(layer, timed, x, torch.zeros(3, dtype=torch.float64))
