"""Laws of the batched solver, and of regression on the papers' transformer."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from promptlimits.base.errors import UserError
from promptlimits.capacity.train.problem import Outcome
from promptlimits.lab.regression import levenberg_marquardt
from promptlimits.lab.regression.levenberg_marquardt import (
    LevenbergMarquardt,
    factored,
    normal_matrix,
    solve,
    step_of,
)
from promptlimits.lab.regression.regression import (
    RegressionProblems,
    RegressionSystem,
    all_reads,
    planted_control,
    planted_targets,
    regression_errors,
    solve_regression,
)
from promptlimits.nets.paper.layers import PaperNorm
from promptlimits.nets.paper.transformer import PaperTransformer, from_weights
from promptlimits.nets.paper.weights import random_weights

D, P, K, M, B = 4, 3, 2, 2, 3


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def damped_step(jacobian, residuals, damping):
    factor, solvable = factored(normal_matrix(jacobian), damping)
    return step_of(factor, jacobian, residuals), solvable


def network(*, masked=False):
    generator = np.random.default_rng(0)
    sizes = {"dim": D, "heads": 2, "head_dim": 2, "hidden": 8, "layers": 2}
    weights = random_weights(**sizes, generator=generator, masked=masked, biases=True)
    return from_weights(weights)


def normed(place, kind="layer"):
    weight, bias = draw(2, D, seed=9)
    shift = bias if kind == "layer" else None
    norm = PaperNorm(kind=kind, weight=weight, bias=shift, epsilon=1e-5)
    layers = [replace(x, attention_norm=norm, mlp_norm=norm) for x in network().layers]
    # Heads of different sizes are padded.
    first = layers[0].heads[0]
    small = replace(first, query=first.query[:1], key=first.key[:1])
    layers[0] = replace(layers[0], heads=(small, *layers[0].heads[1:]))
    return PaperTransformer(
        layers=tuple(layers), norm_place=place, positions=draw(D, P + M, seed=8)
    )


MODELS = {
    "plain": network,
    "masked": lambda: network(masked=True),
    "gelu": lambda: replace(
        network(), layers=tuple(replace(x, activation="gelu") for x in network().layers)
    ),
    "pre": lambda: normed("pre"),
    "post": lambda: normed("post"),
    "rms": lambda: normed("pre", "rms"),
}


def problems(reads, *, seed=1):
    targets = draw(B, K, len(reads), seed=seed + 50)
    return RegressionProblems(queries=draw(B, K, D, M, seed=seed), targets=targets, reads=reads)


class Linear:
    """A x = y for every problem."""

    def __init__(self, matrix, right):
        self.matrix, self.right = matrix, right

    def residuals(self, unknowns, index):
        return (self.matrix[index] @ unknowns[..., None])[..., 0] - self.right[index]

    def jacobian(self, unknowns, index):
        return self.matrix[index].clone()

    def errors(self, residuals):
        return residuals.abs().amax(dim=-1)


@pytest.mark.parametrize("shape", [(3, 7), (5, 5), (7, 3)])
def test_a_step_solves_the_damped_normal_equations(shape):
    jacobian, residuals = draw(B, *shape, seed=0), draw(B, shape[0], seed=1)
    damping = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    step, solvable = damped_step(jacobian, residuals, damping)
    scale = jacobian.square().sum(dim=(1, 2)) / min(shape)
    eye = torch.eye(shape[1], dtype=torch.float64)
    left = jacobian.mT @ jacobian + (damping * scale)[:, None, None] * eye
    expected = -torch.linalg.solve(left, jacobian.mT @ residuals[..., None])[..., 0]
    assert bool(solvable.all())
    torch.testing.assert_close(step, expected, rtol=1e-10, atol=1e-10)


def test_a_larger_damping_makes_a_shorter_step_and_none_at_all_is_newtons():
    jacobian, residuals = draw(1, 4, 4, seed=0), draw(1, 4, seed=1)
    lengths = [
        float(damped_step(jacobian, residuals, torch.tensor([x], dtype=torch.float64))[0].norm())
        for x in (0.0, 1e-3, 1e-1, 1.0, 1e2)
    ]
    assert lengths == sorted(lengths, reverse=True)
    newton = torch.linalg.solve(jacobian[0], residuals[0]).norm()
    assert lengths[0] == pytest.approx(float(newton), rel=1e-8)


def test_a_matrix_without_a_factor_gives_no_step():
    zeros = torch.zeros(1, 2, 3, dtype=torch.float64)
    assert not bool(factored(normal_matrix(zeros), torch.ones(1))[1][0])

    class Flat:
        """Constant residuals: no step lowers them."""

        def residuals(self, unknowns, index):
            return torch.ones(len(index), 2, dtype=torch.float64)

        def jacobian(self, unknowns, index):
            return zeros.expand(len(index), -1, -1).clone()

        def errors(self, residuals):
            return residuals.norm(dim=-1)

    starts = draw(1, 1, 3, seed=0)
    found = solve(Flat(), starts, LevenbergMarquardt())
    assert found.outcomes == (Outcome.STALLED,)
    assert torch.equal(found.unknowns, starts[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_linear_problem_takes_one_step_with_almost_no_damping(dtype):
    matrix, right = draw(B, 3, 5, seed=2).to(dtype), draw(B, 3, seed=3).to(dtype)
    settings = LevenbergMarquardt(tolerance=1e-5, damping=1e-6 if dtype == torch.float32 else 1e-9)
    found = solve(Linear(matrix, right), torch.zeros(1, B, 5, dtype=dtype), settings)
    assert set(found.outcomes) == {Outcome.SOLVED}
    assert found.steps.tolist() == [1] * B
    closed = torch.linalg.pinv(matrix) @ right[..., None]
    torch.testing.assert_close(found.unknowns, closed[..., 0], rtol=1e-4, atol=1e-4)


def test_a_least_squares_problem_without_a_solution_ends_at_its_least():
    matrix, right = draw(B, 6, 2, seed=2), draw(B, 6, seed=3)
    found = solve(
        Linear(matrix, right),
        torch.zeros(2, B, 2, dtype=torch.float64),
        LevenbergMarquardt(max_steps=200),
    )
    assert set(found.outcomes) == {Outcome.STALLED}
    assert found.starts_used.tolist() == [2] * B
    least = torch.linalg.lstsq(matrix, right[..., None]).solution[..., 0]
    torch.testing.assert_close(found.unknowns, least, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_residuals_and_slopes_are_those_of_the_model(name):
    """Against `PaperTransformer` and jacrev of it, for every number of two columns."""
    model, reads = MODELS[name](), all_reads(D, M)
    given = problems(reads)
    system, at = RegressionSystem(model, given, P), torch.arange(B)
    prompts = draw(B, D * P, seed=4)

    def residuals(prompt, queries, targets):
        outputs = model.with_prompt(prompt.view(D, P), queries)
        return (torch.stack([outputs[:, r, c] for r, c in reads], dim=-1) - targets).flatten()

    plain = torch.stack(
        [residuals(*each) for each in zip(prompts, given.queries, given.targets, strict=True)]
    )
    slopes = torch.func.vmap(torch.func.jacrev(residuals))(prompts, given.queries, given.targets)
    torch.testing.assert_close(system.residuals(prompts, at), plain, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(system.jacobian(prompts, at), slopes, rtol=1e-10, atol=1e-10)
    # Many problems are taken in parts.
    system._chunk = 2
    torch.testing.assert_close(system.jacobian(prompts, at), slopes, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("radius", [None, 2.0])
def test_slopes_are_finite_differences(radius):
    given, h = problems(((1, 1), (3, 0))), 1e-6
    system, at = RegressionSystem(network(), given, P, radius=radius), torch.arange(B)
    prompts, direction = draw(B, D * P, seed=4), draw(B, D * P, seed=5)
    ahead, behind = (system.residuals(prompts + s * h * direction, at) for s in (1, -1))
    along = (system.jacobian(prompts, at) @ direction[..., None])[..., 0]
    torch.testing.assert_close(along, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-7)


def test_the_error_is_the_largest_norm_of_a_pair():
    system = RegressionSystem(network(), problems(((0, 0), (1, 0))), P)
    residuals = torch.tensor([[3.0, 4.0, 0.0, 4.5]], dtype=torch.float64)
    assert float(system.errors(residuals)) == 5.0


@pytest.mark.parametrize("slopes", [torch.float64, torch.float32])
def test_planted_prompts_are_matched_to_the_tolerance(slopes):
    model, reads = network(), ((0, 1), (2, 1))
    given = planted_targets(model, draw(B, K, D, M, seed=1), draw(B, D, P, seed=2), reads)
    assert float(regression_errors(model, given, draw(B, D, P, seed=2)).max()) < 1e-14
    found = solve_regression(model, given, draw(2, B, D, P, seed=3), jacobian_dtype=slopes)
    assert set(found.outcomes) == {Outcome.SOLVED}
    prompts = found.unknowns.view(B, D, P)
    outputs = torch.stack(
        [model.with_prompt(p, q) for p, q in zip(prompts, given.queries, strict=True)]
    )
    apart = outputs[:, :, [0, 2], 1] - given.targets
    assert float(apart.norm(dim=-1).max()) <= 1e-6


def test_float32_counts_only_what_holds_in_float64():
    model, queries = network().to(torch.float32), draw(B, K, D, M, seed=1)
    given = planted_targets(model, queries, draw(B, D, P, seed=2), ((0, 1),))
    starts = draw(2, B, D, P, seed=3)
    loose = solve_regression(model, given, starts, settings=LevenbergMarquardt(tolerance=1e-4))
    assert set(loose.outcomes) == {Outcome.SOLVED}
    assert loose.unknowns.dtype == torch.float32
    assert loose.errors.dtype == torch.float64
    # Rounding of float32 hides errors below about 1e-7 of the outputs.
    tight = solve_regression(model, given, starts, settings=LevenbergMarquardt(tolerance=1e-12))
    solved = [outcome is Outcome.SOLVED for outcome in tight.outcomes]
    assert solved == (tight.errors <= 1e-12).tolist()


def test_a_batch_gives_each_problem_what_it_gets_alone():
    model, given, starts = network(), problems(((0, 1), (1, 1))), draw(2, B, D, P, seed=3)
    together = solve_regression(model, given, starts)
    for b in range(B):
        one = RegressionProblems(
            queries=given.queries[b : b + 1], targets=given.targets[b : b + 1], reads=given.reads
        )
        alone = solve_regression(model, one, starts[:, b : b + 1])
        assert alone.outcomes[0] is together.outcomes[b]
        assert alone.steps[0] == together.steps[b]
        torch.testing.assert_close(alone.unknowns[0], together.unknowns[b], rtol=1e-6, atol=1e-6)


def test_the_order_of_the_pairs_does_not_matter():
    model, given, starts = network(), problems(((0, 1), (1, 1))), draw(1, B, D, P, seed=3)
    turned = RegressionProblems(
        queries=given.queries.flip(1), targets=given.targets.flip(1), reads=given.reads
    )
    one, other = (solve_regression(model, x, starts) for x in (given, turned))
    assert one.outcomes == other.outcomes
    torch.testing.assert_close(one.unknowns, other.unknowns, rtol=1e-6, atol=1e-6)


def test_prompts_stay_in_the_ball():
    found = solve_regression(
        network(), problems(all_reads(D, M)), 9 * draw(1, B, D, P, seed=3), radius=0.5
    )
    assert float(found.unknowns.view(B, D, P).norm(dim=1).max()) <= 0.5


def test_a_start_that_is_not_finite_ends_as_diverged_and_the_next_is_tried():
    model, given, starts = network(), problems(((0, 1),)), draw(2, B, D, P, seed=3)
    starts[0, 0] = torch.nan
    starts[:, 1] = torch.inf
    found = solve_regression(model, given, starts)
    assert found.outcomes == (Outcome.SOLVED, Outcome.DIVERGED, Outcome.SOLVED)
    assert found.starts_used.tolist() == [2, 2, 1]
    assert float(found.errors[1]) == float("inf")


def test_too_few_steps_are_said():
    settings = LevenbergMarquardt(max_steps=1, tolerance=1e-12)
    found = solve_regression(
        network(), problems(all_reads(D, M)), draw(1, B, D, P, seed=3), settings=settings
    )
    assert set(found.outcomes) == {Outcome.OUT_OF_STEPS}
    assert found.share_solved == 0.0


def test_a_control_says_what_was_solved_and_claims_no_more():
    control = planted_control(
        network(),
        draw(B, K, D, M, seed=1),
        draw(B, D, P, seed=2),
        draw(2, B, D, P, seed=3),
        reads=((0, 1),),
    )
    shown = json.loads(json.dumps(control.to_json()))
    assert (shown["problems"], shown["solved"], shown["share_solved"]) == (B, B, 1.0)
    assert (shown["residuals"], shown["unknowns"], shown["dtype"]) == (K, D * P, "float64")
    assert shown["largest_error"] <= shown["tolerance"]
    assert "says nothing about whether" in shown["meaning"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: problems(()),
        lambda: problems(((0, 0), (0, 0))),
        lambda: problems(((D, 0),)),
        lambda: replace(problems(((0, 0),)), targets=draw(B, K, 2, seed=0)),
        lambda: replace(problems(((0, 0),)), queries=draw(B, D, M, seed=0)),
        lambda: solve_regression(network(), problems(((0, 0),)), draw(B, D, P, seed=0)),
        lambda: solve_regression(network(), problems(((0, 0),)), draw(1, B, D + 1, P, seed=0)),
        lambda: solve_regression(normed("pre"), problems(((0, 0),)), draw(1, B, D, 9, seed=0)),
        lambda: solve(Linear(draw(1, 2, 2, seed=0), draw(1, 2, seed=0)), draw(1, 2, seed=0),
                      LevenbergMarquardt()),
        lambda: LevenbergMarquardt(tolerance=0),
        lambda: LevenbergMarquardt(max_steps=0),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(wrong):
    with pytest.raises(UserError) as caught:
        wrong()
    assert "\n" not in str(caught.value)


class Bend(Linear):
    """Arctan of one unknown: Newton's step from 3 overshoots ever further."""

    def residuals(self, unknowns, index):
        return unknowns.atan()

    def jacobian(self, unknowns, index):
        return (1 / (1 + unknowns.square()))[..., None]


def test_a_step_that_raises_the_squares_is_not_taken():
    start = torch.full((1, 1, 1), 3.0, dtype=torch.float64)
    blank = torch.zeros(1, 1, 1, dtype=torch.float64)
    found = solve(Bend(blank, blank[0]), start, LevenbergMarquardt(damping=1e-9))
    assert found.outcomes == (Outcome.SOLVED,)


def test_damping_falls_tenfold_where_the_model_is_exact():
    eye = torch.eye(3, dtype=torch.float64)[None]
    found = solve(
        Linear(eye, torch.ones(1, 3, dtype=torch.float64)),
        torch.zeros(1, 1, 3, dtype=torch.float64),
        LevenbergMarquardt(damping=1.0),
    )
    # The residual is halved, then divided by 11, by 101, by 1001, which makes 4.5e-7 of it.
    assert found.steps.tolist() == [4]


class Parabola(Linear):
    """u + c u^2 = y, number by number."""

    def residuals(self, unknowns, index):
        return unknowns + 0.2 * unknowns.square() - self.right[index]

    def jacobian(self, unknowns, index):
        return torch.diag_embed(1 + 0.4 * unknowns)


def test_a_step_is_newtons_with_the_correction_for_the_second_derivative():
    right = torch.tensor([[0.3, -0.2, 0.1]], dtype=torch.float64)
    settings = LevenbergMarquardt(max_steps=1, damping=1e-12)
    zero = torch.zeros(1, 1, 3, dtype=torch.float64)
    found = solve(Parabola(right, right), zero, settings)
    # From 0 Newton's step is y, and r there is c y^2, which the correction takes off.
    expected = right - 0.2 * right.square()
    torch.testing.assert_close(found.unknowns, expected, rtol=1e-10, atol=1e-10)


def test_a_correction_that_raises_the_squares_is_left_out():
    """For c y = -0.44 it makes the residual 0.44 * 2.44 = 1.07 times that after the step."""
    right = torch.tensor([[-2.2]], dtype=torch.float64)
    settings = LevenbergMarquardt(max_steps=1, damping=1e-12)
    found = solve(Parabola(right, right), torch.zeros(1, 1, 1, dtype=torch.float64), settings)
    torch.testing.assert_close(found.unknowns, right, rtol=1e-10, atol=1e-10)


class Counted(Bend):
    """Counts its Jacobians."""

    jacobians = 0

    def jacobian(self, unknowns, index):
        self.jacobians += 1
        return super().jacobian(unknowns, index)


def test_a_refused_step_costs_no_jacobian():
    start = torch.full((1, 1, 1), 3.0, dtype=torch.float64)
    problem = Counted(torch.zeros(1, 1, 1, dtype=torch.float64), torch.zeros(1, 1))
    solve(problem, start, LevenbergMarquardt(damping=1e-9, max_steps=3))
    assert problem.jacobians == 1


def test_residuals_are_of_float32_far_from_a_solution_and_of_float64_near_it():
    model, queries, planted = network(), draw(B, K, D, M, seed=1), draw(B, D, P, seed=2)
    given = planted_targets(model, queries, planted, ((0, 1), (2, 1)))
    mixed = RegressionSystem(model, given, P, jacobian_dtype=torch.float32)
    exact, at = RegressionSystem(model, given, P), torch.arange(B)
    near = planted.flatten(1) + 1e-4 * draw(B, D * P, seed=5)
    both = torch.cat([near[:1], draw(1, D * P, seed=3), near[2:]])
    one, other = mixed.residuals(both, at), exact.residuals(both, at)
    assert one.dtype == torch.float64
    torch.testing.assert_close(one[[0, 2]], other[[0, 2]], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(one[1], other[1], rtol=1e-5, atol=1e-5)
    assert float((one[1] - other[1]).abs().max()) > 1e-12


@pytest.mark.parametrize("radius", [None, 2.0])
@pytest.mark.parametrize("name", MODELS)
def test_the_backward_pass_by_hand_is_autograds(name, radius):
    given, at = problems(all_reads(D, M)[1:5]), torch.arange(B)
    system = RegressionSystem(MODELS[name](), given, P, radius=radius)
    prompts = draw(B, D * P, seed=4).requires_grad_(True)
    residuals, weights = system.residuals_with_graph(prompts, at), draw(B, 4 * K, seed=6)
    (slope,) = torch.autograd.grad((residuals * weights).sum(), prompts)
    by_hand = (weights[:, None] @ system.jacobian(prompts.detach(), at))[:, 0]
    torch.testing.assert_close(by_hand, slope, rtol=1e-10, atol=1e-10)


def test_layers_without_heads_and_three_layers_have_the_same_slopes():
    plain = network()
    bare = replace(plain.layers[0], heads=())
    for layers in ((bare, *plain.layers), (*plain.layers, bare)):
        model = replace(plain, layers=layers)
        system = RegressionSystem(model, problems(all_reads(D, M)[:3]), P)
        prompts, at = draw(B, D * P, seed=4).requires_grad_(True), torch.arange(B)
        residuals, weights = system.residuals_with_graph(prompts, at), draw(B, 3 * K, seed=6)
        (slope,) = torch.autograd.grad((residuals * weights).sum(), prompts)
        by_hand = (weights[:, None] @ system.jacobian(prompts.detach(), at))[:, 0]
        torch.testing.assert_close(by_hand, slope, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("gain", "factor"),
    [(0.1, 2.0), (0.3, 1.0), (0.6, 0.6), (0.8, 0.3), (0.95, 0.1), (float("nan"), 2.0)],
)
def test_damping_after_a_step_falls_with_its_gain(gain, factor):
    one, blank = torch.ones(1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    work = levenberg_marquardt._Work(
        index=torch.zeros(1, dtype=torch.long),
        unknowns=blank,
        residuals=blank,
        jacobian=blank[None],
        normal=blank[None],
        damping=one,
        growth=4 * one,
    )
    of_gain = torch.tensor([gain], dtype=torch.float64)
    taken = levenberg_marquardt._damped_anew(work, of_gain, torch.tensor([True]))
    refused = levenberg_marquardt._damped_anew(work, of_gain, torch.tensor([False]))
    assert (float(taken.damping), float(taken.growth)) == (factor, 2.0)
    assert (float(refused.damping), float(refused.growth)) == (4.0, 8.0)
