"""The search for a large Jacobian: known answers, exact norms of small maps, and its manners."""

import itertools
import math

import numpy as np
import pytest
import torch
from tests.reference.batched_transformer import TransformerStack
from torch import Tensor

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.lipschitz.ascent import (
    KINDS,
    output_changes,
    project,
    singular_directions,
    size,
    starting_points,
)
from promptlimits.lipschitz.estimate import largest_jacobian_norm
from promptlimits.nets.paper.transformer import from_weights
from promptlimits.nets.paper.weights import TransformerWeights, random_weights

EPSILON = torch.finfo(torch.float64).eps


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def estimate(forward, **given):
    sizes = {"dim": 2, "tokens": 3, "radius": 1.0, "norm": "token", "starts": 14, "steps": 40}
    return largest_jacobian_norm(forward, generator=generator(), **(sizes | given))


def weights(seed=0, **given):
    sizes = {
        "dim": 2,
        "heads": 2,
        "head_dim": 2,
        "hidden": 3,
        "layers": 2,
        "masked": True,
        "biases": True,
    }
    return random_weights(generator=np.random.default_rng(seed), **(sizes | given))


def full_jacobian(forward, point):
    """J with axes (output row, output column, input row, input column), by reverse mode."""
    jacobian = torch.autograd.functional.jacobian(lambda x: forward(x[None])[0], point)
    assert isinstance(jacobian, Tensor)
    return jacobian


def exact_token_norm(jacobian, angles=20_000):
    """max_i max_|u|=1 sum_j |J_ij^T u|, for two rows, over a fine grid of u: the dual form."""
    turn = torch.arange(angles, dtype=torch.float64) * (math.pi / angles)
    u = torch.stack([turn.cos(), turn.sin()])
    pulled = torch.einsum("aibj,ag->gibj", jacobian, u)
    return float(pulled.norm(dim=2).sum(dim=-1).max())


def exact_frobenius_norm(jacobian):
    rows = jacobian.shape[0] * jacobian.shape[1]
    return float(torch.linalg.matrix_norm(jacobian.reshape(rows, -1), 2))


def test_a_linear_map_of_each_token_has_its_spectral_norm():
    """Y = M X: both norms are ||M||, everywhere."""
    matrix = torch.randn(3, 4, generator=generator(1), dtype=torch.float64)
    exact = float(torch.linalg.matrix_norm(matrix, 2))
    for norm in ("token", "frobenius"):
        found = estimate(lambda x: matrix @ x, dim=4, norm=norm)
        assert found.value == pytest.approx(exact, rel=1e-9)
        assert found.value <= exact * (1 + 20 * EPSILON)


def test_a_sum_of_tokens():
    """Each output is the sum of n tokens: n in both norms; one column alone: n and sqrt(n)."""
    for norm, read, exact in [
        ("token", None, 5.0),
        ("frobenius", None, 5.0),
        ("token", slice(-1, None), 5.0),
        ("frobenius", slice(-1, None), math.sqrt(5)),
    ]:
        found = estimate(
            lambda x: x.sum(-1, keepdim=True).expand_as(x), tokens=5, norm=norm, read=read
        )
        assert found.value == pytest.approx(exact, rel=1e-9)


def test_one_head_with_equal_attention():
    """A = 0, W = c I, no mask, no MLP: x_i + c mean(x) has norm 1 + c in both norms."""
    plain = weights(heads=1, hidden=0, layers=1, masked=False)
    head = plain.layers[0].heads[0]
    zero = np.zeros_like(head.query)
    identity = np.eye(2)
    same = type(head)(query=zero, key=zero, value=1.5 * identity, output=identity)
    layer = type(plain.layers[0])(
        heads=(same,), w1=plain.layers[0].w1, b1=[], w2=plain.layers[0].w2, b2=[0, 0]
    )
    forward = from_weights(TransformerWeights(layers=(layer,), masked=False))
    for norm in ("token", "frobenius"):
        assert estimate(forward, norm=norm).value == pytest.approx(2.5, rel=1e-9)


def test_the_point_matters():
    """Y = X |x|^2 / 2 + ... has derivative 3 r^2 along x at the sphere, the largest in the ball."""
    for radius in (0.5, 2.0):
        found = estimate(lambda x: x * (x**2).sum(1, keepdim=True), radius=radius)
        assert found.value == pytest.approx(3 * radius**2, rel=1e-6)
        assert float(found.point.norm(dim=0).max()) == pytest.approx(radius, rel=1e-6)


@pytest.mark.parametrize("norm", ["token", "frobenius"])
def test_the_direction_is_the_best_one_at_the_point(norm):
    """At the point found, the norm of the full Jacobian is the value: d = 2, n = 3."""
    exact = exact_token_norm if norm == "token" else exact_frobenius_norm
    for seed in range(3):
        forward = from_weights(weights(seed))
        found = estimate(forward, norm=norm)
        assert found.value == pytest.approx(exact(full_jacobian(forward, found.point)), rel=1e-5)


def test_a_search_beats_random_points_with_their_exact_norms():
    """The largest exact norm over 300 random points stays below what 14 starts reach."""
    forward = from_weights(weights(5, layers=3))
    points = starting_points(dim=2, tokens=3, radius=1.5, count=300, generator=generator(2))
    sampled = max(exact_frobenius_norm(full_jacobian(forward, point)) for point in points)
    assert estimate(forward, radius=1.5, norm="frobenius").value > 1.1 * sampled


def test_what_was_found_is_reproduced_in_the_domain():
    forward = from_weights(weights(1))
    for norm in ("token", "frobenius"):
        found = estimate(forward, norm=norm, radius=0.7)
        changes = output_changes(forward, found.point[None], found.direction[None])[0]
        assert float(size(changes, norm)) == pytest.approx(found.value, rel=1e-13)
        assert float(found.point.norm(dim=0).max()) <= 0.7
        assert float(size(found.direction, norm)) <= 1
        assert found.history[-1] == found.value
        # The direction is turned once more after each comparison: equal up to rounding.
        falls = [late - soon for soon, late in itertools.pairwise(found.history)]
        assert min(falls) >= -1e-13 * found.value
        assert found.point.dtype == torch.float64


def test_the_change_of_the_outputs_is_a_difference_quotient():
    """Central differences of a smooth map agree to h^2: h = 1e-5 leaves 1e-9 at least."""
    forward = from_weights(weights(2, hidden=0))
    found = estimate(forward)
    step = 1e-5 * found.direction[None]
    quotient = (forward(found.point[None] + step) - forward(found.point[None] - step)) / 2e-5
    exact = output_changes(forward, found.point[None], found.direction[None])
    torch.testing.assert_close(quotient, exact, rtol=1e-7, atol=1e-8)


def test_only_the_prompt_moves():
    """Fixed inputs stay, to the last bit; what is found with them is found without, too."""
    forward = from_weights(weights(3))
    inputs = project(torch.randn(2, 2, generator=generator(4), dtype=torch.float64), 1.0)
    given = {"tokens": 5, "perturbed": slice(0, 3), "read": slice(3, None), "steps": 80}
    bound_to = estimate(forward, fixed=inputs, **given)
    free = estimate(forward, **given)
    assert torch.equal(bound_to.point[:, 3:], inputs)
    for found in (bound_to, free):
        assert not found.direction[:, 3:].any()
    assert not torch.equal(free.point[:, 3:], inputs)
    assert free.value > bound_to.value
    everything = estimate(forward, tokens=5, read=slice(3, None), steps=80)
    assert everything.value > free.value


def test_a_masked_first_token_hears_only_itself():
    """Perturb the last token, read the first: 0."""
    forward = from_weights(weights(4))
    found = estimate(forward, perturbed=slice(2, 3), read=slice(0, 1))
    assert found.value == 0


def test_every_kind_of_start_lies_in_the_ball_and_differs():
    aligned = singular_directions(weights(heads=2))
    assert aligned.shape == (2, 8)
    torch.testing.assert_close(aligned.norm(dim=0), torch.ones(8, dtype=torch.float64))
    points = starting_points(
        dim=2, tokens=4, radius=0.3, count=21, generator=generator(), aligned=aligned
    )
    assert points.shape == (21, 2, 4)
    assert float(points.norm(dim=1).max()) <= 0.3
    assert len({tuple(point.flatten().tolist()) for point in points}) == 21
    tied = points[list(KINDS).index("tied")]
    assert torch.equal(tied[:, 0], tied[:, 2])
    assert not torch.equal(tied[:, 0], tied[:, 3])
    near = points[list(KINDS).index("near duplicates")]
    assert float((near[:, 0] - near[:, 2]).norm()) < 0.3 * 0.02
    towards = (points[len(KINDS)] / points[len(KINDS)].norm(dim=0)).T @ aligned
    assert float(towards.abs().amax(dim=1).min()) > 0.95


def test_equal_seeds_give_equal_answers():
    forward = from_weights(weights())
    first, second = estimate(forward), estimate(forward)
    assert first.value == second.value
    assert torch.equal(first.point, second.point)


def test_the_twin_is_the_transformer():
    """The batched twin of the soundness tests and the package's own transformer agree."""
    problems = [weights(seed, masked=bool(seed % 2)) for seed in range(4)]
    points = torch.randn(4, 2, 3, generator=generator(), dtype=torch.float64)
    together = TransformerStack.of(problems)(points)
    for problem, point, output in zip(problems, points, together, strict=True):
        alone = from_weights(problem)(point)
        torch.testing.assert_close(output, alone, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"norm": "max"}, "norm must be 'token' or 'frobenius', got max"),
        ({"radius": 0}, "radius must be a finite number above 0, got 0"),
        ({"starts": 0}, "starts must be a whole number of at least 1, got 0"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"perturbed": slice(3, 5)}, "perturbed must select at least one token"),
        (
            {"perturbed": slice(0, 2), "fixed": torch.ones(2, 2)},
            "fixed must have the 1 columns that are not perturbed, got \\(2, 2\\)",
        ),
        (
            {"perturbed": slice(0, 2), "fixed": torch.ones(2, 1)},
            "fixed must hold tokens of norm at most 1, got 1.41421",
        ),
    ],
)
def test_a_domain_that_cannot_be_searched(given, message):
    with pytest.raises(UserError, match=message):
        estimate(lambda x: x, **given)


def test_a_derivative_that_is_not_finite_is_no_answer():
    with pytest.raises(RunFailed, match="not finite"):
        estimate(lambda x: x * torch.tensor(math.nan))
