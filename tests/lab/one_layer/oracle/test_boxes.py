"""Limits over boxes: below everything the boxes contain, and tight in small ones."""

import numpy as np
import pytest
from flint import arb
from tests.reference.layers import draw

from promptlimits.base.exact import working_precision
from promptlimits.lab.one_layer.oracle.boxes import box_limits
from promptlimits.lab.one_layer.oracle.inputs import ball_array, exact_inputs
from promptlimits.lab.one_layer.oracle.parts import split
from promptlimits.lab.one_layer.oracle.problem import (
    local_model,
    oracle_problem,
    prompt_statistics,
)
from promptlimits.lab.one_layer.setting import Front, SharedQuery, offsets, query_statistics
from promptlimits.lipschitz.balls.entries import Balls, add_up, multiply_up, sum_up


def random_balls(generator, *shape):
    size = 10.0 ** generator.uniform(-6, 6, shape)
    return Balls(generator.standard_normal(shape) * size, np.abs(generator.standard_normal(shape)))


def inside(balls, generator):
    """Exact numbers of the balls, towards an end as often as not."""
    share = generator.choice([-1.0, -0.5, 0.0, 1.0], balls.shape)
    return [
        arb(m) + arb(r) * arb(s)
        for m, r, s in zip(balls.mid.flat, balls.rad.flat, share.flat, strict=True)
    ]


def contained(value, balls, place):
    return bool(abs(value - arb(float(balls.mid.flat[place]))) <= arb(float(balls.rad.flat[place])))


@pytest.mark.parametrize("seed", range(20))
def test_balls_hold_the_exact_results(seed):
    with working_precision(1000):
        check_balls(np.random.default_rng(seed))


def check_balls(generator):
    left, right = random_balls(generator, 3, 4), random_balls(generator, 3, 4)
    x, y = inside(left, generator), inside(right, generator)
    product = left @ right.swap(0, 1)
    total = left.sum(1)
    for n, (a, b) in enumerate(zip(x, y, strict=True)):
        assert contained(a + b, left + right, n)
        assert contained(a - b, left - right, n)
        assert contained(a * b, left * right, n)
    for i in range(3):
        assert contained(sum(x[4 * i : 4 * i + 4], arb(0)), total, i)
        for j in range(3):
            exact = sum((x[4 * i + r] * y[4 * j + r] for r in range(4)), arb(0))
            assert contained(exact, product, 3 * i + j)
    positive = Balls(np.abs(left.mid) + left.rad * 1.5, left.rad)
    for n, a in enumerate(inside(positive, generator)):
        assert contained(1 / a, positive.reciprocal(), n)
        size = positive.norm_upper((0, 1))
        assert a <= arb(float(size))
    assert np.isinf(Balls(np.array([1.0]), np.array([1.0])).reciprocal().rad).all()


def test_products_of_exact_matrices_account_for_rounding():
    generator = np.random.default_rng(1)
    left = Balls.exact(generator.standard_normal((4, 40)))
    product = left @ left.swap(0, 1)
    with working_precision(1000):
        for i in range(4):
            for j in range(4):
                pairs = zip(left.mid[i].tolist(), left.mid[j].tolist(), strict=True)
                exact = sum((arb(a) * arb(b) for a, b in pairs), arb(0))
                assert contained(exact, product, 4 * i + j)


def test_upper_sums_and_products_are_upper():
    generator = np.random.default_rng(0)
    terms = generator.random((50, 30))
    exact = [sum((arb(float(t)) for t in row), arb(0)) for row in terms]
    assert all(arb(float(u)) >= e for u, e in zip(sum_up(terms), exact, strict=True))
    a, b = terms[:, 0], terms[:, 1]
    for n in range(50):
        assert arb(float(add_up(a, b)[n])) >= arb(float(a[n])) + arb(float(b[n]))
        assert arb(float(multiply_up(a, b)[n])) >= arb(float(a[n])) * arb(float(b[n]))


@pytest.mark.parametrize("shape", [(6, 1, 3, 2), (6, 2, 2, 3), (8, 3, 2, 3), (6, 2, 6, 3)])
def test_the_local_model_is_the_taylor_polynomial(shape):
    setting, targets, generator = draw(*shape, 0)
    problem = oracle_problem(setting, targets).weighted(generator.uniform(0.5, 1.5, shape[3]))
    at = generator.uniform(0.2, 0.8, (1, shape[1]))
    model = local_model(problem, at)
    statistics = prompt_statistics(problem, at[0], model.solution[0])
    away = offsets(query_statistics(setting), statistics) - targets
    assert model.value[0] == pytest.approx(((away * problem.scale[:, None]) ** 2).sum(), rel=1e-10)
    for i, step in enumerate(1e-4 * np.eye(shape[1])):
        ahead, behind = local_model(problem, at + step), local_model(problem, at - step)
        slope = (ahead.value - behind.value)[0] / 2e-4
        assert 2 * model.slope[0, i] == pytest.approx(slope, abs=1e-5)
        bend = (ahead.slope - behind.slope)[0] / 2e-4
        assert model.curvature[0, i] == pytest.approx(bend, abs=1e-5)


@pytest.mark.parametrize(
    "shape",
    [
        (6, 1, 3, 2),
        (6, 2, 2, 3),
        (8, 2, 4, 3),
        (6, 2, 4, 3),
        (6, 2, 6, 3),
        (8, 3, 2, 3),
        (6, 3, 3, 4),
    ],
)
def test_limits_are_below_f_everywhere_in_a_box(shape):
    for seed in range(4):
        setting, targets, generator = draw(*shape, seed)
        heads = shape[1]
        scale = generator.uniform(0.3, 2.0, shape[3])
        problem = oracle_problem(setting, targets).weighted(scale)
        parts = split(exact_inputs(setting, targets), scale)
        size = 2.0 ** -generator.integers(0, 9, (60, heads))
        low = np.floor(generator.random((60, heads)) / size) * size
        low[:20] = 0.0  # boxes at the corner where heads degenerate
        limits, _ = box_limits(parts, low, low + size)
        for _ in range(30):
            inner = low + size * generator.choice([0, 1, 0.5, generator.random()], (60, heads))
            assert (local_model(problem, inner).value >= limits * (1 - 1e-9)).all()


def test_points_are_limited_to_all_digits():
    # The parts add up to the whole, also where two ranges share a subspace.
    for shape in [(6, 2, 2, 3), (6, 2, 4, 3), (6, 2, 6, 3), (8, 3, 2, 3)]:
        setting, targets, generator = draw(*shape, 1)
        parts = split(exact_inputs(setting, targets), np.ones(shape[3]))
        at = generator.integers(1 << 18, 1 << 20, (20, shape[1])) / (1 << 20)
        limits, _ = box_limits(parts, at, at)
        exact = local_model(oracle_problem(setting, targets), at).value
        assert limits == pytest.approx(exact, rel=1e-10)
        assert (limits <= exact * (1 + 1e-13)).all()


def test_small_boxes_err_by_the_third_power():
    setting, targets, _ = draw(8, 2, 3, 3, 0)
    parts = split(exact_inputs(setting, targets), np.ones(3))
    problem = oracle_problem(setting, targets)
    at = np.array([[0.5, 0.25]])
    gaps = []
    for size in (2.0**-4, 2.0**-6):
        grid = np.stack(np.meshgrid(*[np.linspace(-size, size, 41)] * 2), -1).reshape(-1, 2)
        least = local_model(problem, at + grid).value.min()
        gaps.append(least - box_limits(parts, at - size, at + size)[0][0])
    assert 0 < gaps[1] < gaps[0] / 30  # a quarter of the size: 1/64 of the loss


@pytest.mark.parametrize("kind", ["plain", "front", "rotary"])
def test_exact_inputs_enclose_the_statistics(kind):
    setting, targets, generator = draw(6, 2, 4, 3, 0)
    front = Front(gamma=generator.standard_normal(6), beta=generator.standard_normal(6), eps=1e-5)
    setting = SharedQuery(
        layer=setting.layer,
        queries=setting.queries,
        front=front if kind == "front" else None,
        rotary_base=100.0 if kind == "rotary" else None,
    )
    inputs, problem = exact_inputs(setting, targets), oracle_problem(setting, targets)
    means = ball_array([a for row in inputs.means for a in row], 6)
    assert means.mid.reshape(3, 2, 6) == pytest.approx(problem.means, rel=1e-12, abs=1e-14)
    assert means.rad.max() < 1e-15
    excess = [float(x.mid()) for row in inputs.excess for x in row]
    assert excess == pytest.approx(problem.excess.reshape(-1), rel=1e-12, abs=1e-14)
    for vectors, basis in zip(inputs.bases, problem.bases, strict=True):
        here = ball_array(vectors, 6).mid
        assert here.T @ here == pytest.approx(basis @ basis.T, abs=1e-12)
