"""Proved limits lie at or above the truth, close to it, and are exact numbers."""

import math
from fractions import Fraction

import numpy as np
import pytest
from flint import arb, arb_mat, ctx
from hypothesis import given
from hypothesis import strategies as st

from promptlimits.base.errors import UserError
from promptlimits.base.exact import working_precision
from promptlimits.lipschitz.balls.matrix import MatrixBall
from promptlimits.lipschitz.balls.rounding import ball, upper
from promptlimits.lipschitz.balls.spectral import (
    ScaledBall,
    is_positive_semidefinite,
    largest_eigenvalue,
    row_norms,
    spectral_norm,
    vector_norm,
)
from promptlimits.lipschitz.paper.attention import THEOREMS
from promptlimits.lipschitz.paper.compose import METHODS, composed_bound
from promptlimits.lipschitz.paper.feedforward import layer_norms, token_radii
from promptlimits.lipschitz.paper.head_norms import head_norms
from promptlimits.lipschitz.paper.invertibility import certify_invertible
from promptlimits.lipschitz.paper.prompt_norm_limit import prompt_norm_limit
from promptlimits.nets.paper.weights import (
    HeadWeights,
    LayerWeights,
    TransformerWeights,
    random_weights,
)


def certainly_at_least_the_norm(limit, matrix):
    """Whether ball arithmetic proves limit >= ||matrix||: det(x I - G) has no root above."""
    with ctx.workprec(300):
        rows = arb_mat([[arb(float(x)) for x in row] for row in np.atleast_2d(matrix)])
        gram = rows * rows.transpose() if rows.nrows() <= rows.ncols() else rows.transpose() * rows
        square = (arb(limit.numerator) / arb(limit.denominator)) ** 2
        # All leading minors of (limit^2 I - G) positive: positive definite (Sylvester).
        size = gram.nrows()
        return all(
            bool(
                arb_mat(
                    [[square * (i == j) - gram[i, j] for j in range(minor)] for i in range(minor)]
                ).det()
                > 0
            )
            for minor in range(1, size + 1)
        )


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1), (3, 3), (4, 7), (9, 5)])
@pytest.mark.parametrize("seed", range(5))
def test_a_norm_is_proved_and_tight(shape, seed):
    matrix = np.random.default_rng(seed).standard_normal(shape)
    limit = spectral_norm(matrix)
    assert isinstance(limit, Fraction)
    assert certainly_at_least_the_norm(limit * (1 + Fraction(1, 2**60)), matrix)
    assert float(limit) <= np.linalg.norm(matrix, 2) * (1 + 1e-12)


@pytest.mark.parametrize("size", [64, 300])
def test_a_wide_matrix_is_proved_tightly(size):
    matrix = np.random.default_rng(size).standard_normal((size, 2 * size))
    truth = np.linalg.svd(matrix, compute_uv=False)[0]
    assert truth * (1 - 1e-12) <= float(spectral_norm(matrix)) <= truth * (1 + 1e-8)


@pytest.mark.parametrize(
    ("matrix", "norm"),
    [
        (np.zeros((3, 2)), 0),
        (np.zeros((0, 4)), 0),
        (np.eye(5), 1),
        (np.diag([-7.0, 2.0, 1e-9]), 7),
        (np.ones((4, 9)), 6),
        (np.full((3, 3), 2.0**-1000), Fraction(3, 2**1000)),
        (np.full((3, 3), 2.0**900), 3 * 2**900),
        (np.array([[0.0, 1e8], [0.0, 0.0]]), 10**8),
    ],
)
def test_known_norms(matrix, norm):
    limit = spectral_norm(matrix)
    assert norm <= limit <= norm * (1 + Fraction(1, 10**11))


@pytest.mark.parametrize("power", [400, 1, -1, -400])
def test_scaling_by_powers_of_two_changes_nothing_else(power):
    matrix = np.random.default_rng(0).standard_normal((6, 4))
    ratio = spectral_norm(np.ldexp(matrix, power)) / spectral_norm(matrix) / Fraction(2) ** power
    assert abs(ratio - 1) <= Fraction(1, 2**50)


def test_entries_of_very_different_size_lose_nothing():
    matrix = np.array([[1e300, 0.0], [0.0, 5e-324]])
    assert spectral_norm(matrix) >= Fraction(1e300)
    tiny = np.full((2, 2), 5e-324)
    assert spectral_norm(tiny) >= 2 * Fraction(5e-324)


def test_the_radius_of_a_ball_is_added():
    ball = MatrixBall(center=np.eye(3), radius=0.25)
    assert Fraction(5, 4) <= spectral_norm(ball) <= Fraction(5, 4) + Fraction(1, 10**9)
    assert largest_eigenvalue(ball) >= Fraction(5, 4)
    assert spectral_norm(MatrixBall(center=np.zeros((2, 2)), radius=0.5)) == Fraction(1, 2)


def test_eigenvalues_may_be_negative():
    assert -1 <= largest_eigenvalue(np.diag([-1.0, -2.0])) <= -1 + Fraction(1, 10**9)
    generator = np.random.default_rng(4)
    for _ in range(20):
        matrix = generator.standard_normal((6, 6))
        symmetric = (matrix + matrix.T) / 2
        truth = np.linalg.eigvalsh(symmetric)[-1]
        assert truth - 1e-13 <= float(largest_eigenvalue(symmetric)) <= truth + 1e-10


def test_semidefinite_is_proved_only_where_it_is_so():
    generator = np.random.default_rng(5)
    for _ in range(30):
        factor = generator.standard_normal((8, 8))
        gram = factor @ factor.T
        least = np.linalg.eigvalsh(gram)[0]
        gap = 1e-9 * np.linalg.norm(gram)
        assert is_positive_semidefinite(gram - (least - gap) * np.eye(8))
        assert not is_positive_semidefinite(gram - (least + gap) * np.eye(8))
        # A ball that reaches over the edge is not proved, one that stays inside is.
        inside = gram - (least - 2 * gap) * np.eye(8)
        assert is_positive_semidefinite(MatrixBall(center=inside, radius=gap / 8))
        assert not is_positive_semidefinite(MatrixBall(center=inside, radius=4 * gap))


def test_degenerate_sizes():
    assert is_positive_semidefinite(np.zeros((0, 0)))
    assert is_positive_semidefinite(np.array([[1.0]]))
    assert not is_positive_semidefinite(np.array([[-1.0]]))
    assert 0 <= largest_eigenvalue(np.zeros((3, 3))) < Fraction(1, 10**300)
    for bad in (np.zeros((2, 3)), np.zeros((0, 0))):
        with pytest.raises(ValueError, match="square"):
            largest_eigenvalue(bad)
    with pytest.raises(ValueError, match="square"):
        is_positive_semidefinite(np.zeros((2, 3)))


def test_lengths_of_vectors_and_rows():
    matrix = np.array([[3.0, 4.0], [0.0, 0.0], [1.0, 1.0]])
    lengths = row_norms(matrix)
    assert [float(x) for x in lengths] == pytest.approx([5.0, 0.0, 2**0.5], rel=1e-13)
    assert lengths[0] >= 5
    assert lengths[2] ** 2 >= 2
    assert lengths[0] == vector_norm(matrix[0])


LOOSE = 1 + Fraction(1, 10**7)


def transformer(dim, *, query, key, value, output, mlp=0.0):
    """One head of diagonal matrices, an MLP of one neuron."""
    eye = np.eye(dim)
    head = HeadWeights(query=query * eye, key=key * eye, value=value * eye, output=output * eye)
    unit = np.eye(dim)[:1]
    layer = LayerWeights(
        heads=(head,), w1=mlp * unit, b1=np.zeros(1), w2=mlp * unit.T, b2=np.zeros(dim)
    )
    return TransformerWeights(layers=(layer,), masked=False)


@given(
    seed=st.integers(0, 10**6),
    powers=st.lists(st.integers(-1022, 1023), min_size=3, max_size=3),
)
def test_products_and_sums_hold_the_exact_ones(seed, powers):
    generator = np.random.default_rng(seed)
    arrays = [
        np.ldexp(generator.uniform(-1, 1, shape), power)
        for shape, power in zip(((2, 3), (3, 2), (2, 2)), powers, strict=True)
    ]
    found = ScaledBall.exact(arrays[0]) @ ScaledBall.exact(arrays[1]) + ScaledBall.exact(arrays[2])
    left, right, more = ([[Fraction(x) for x in row] for row in a.tolist()] for a in arrays)
    exact = [
        [sum(left[i][k] * right[k][j] for k in range(3)) + more[i][j] for j in range(2)]
        for i in range(2)
    ]
    power = Fraction(2) ** found.exponent
    away = sum(
        (exact[i][j] - Fraction(float(found.ball.center[i, j])) * power) ** 2
        for i in range(2)
        for j in range(2)
    )
    # The Frobenius norm is at most sqrt(2) times the spectral one.
    assert away <= 2 * (Fraction(found.ball.radius) * power) ** 2
    size = sum(x**2 for row in exact for x in row)
    assert found.frobenius_norm() ** 2 >= size
    assert 2 * found.spectral_norm() ** 2 >= size
    assert np.abs(found.ball.center).max() <= 1


@pytest.mark.parametrize("power", [-1074, -1000, -600, 0, 500, 1023])
def test_norms_of_single_matrices_at_the_ends_of_doubles(power):
    one = math.ldexp(1.0, power)
    matrix = np.full((3, 3), one)
    exact = 3 * Fraction(one)
    for limit in (spectral_norm(matrix), largest_eigenvalue(matrix), vector_norm(matrix.ravel())):
        assert exact <= limit <= exact * LOOSE + Fraction(1, 2**1060)


@pytest.mark.parametrize(
    ("query", "key", "value", "output"),
    [
        (1e160, 1e160, 1e160, 1e160),
        (1e210, 1.0, 1e-115, 1.0),
        (1e-160, 1e-160, 1e300, 1e300),
        (1e300, 1e-300, 1e-300, 1e300),
        (1.7e308, 1.7e308, 1.7e308, 1.7e308),
        (1e-300, 1e-300, 1e-300, 1e-300),
    ],
)
def test_one_dimension_in_closed_form(query, key, value, output):
    """Lip = 1 + |W| (|A| r^2 + (1 + |A|^2 r^4)^(1/2)) for numbers W = o v, A = k q."""
    weights = transformer(1, query=query, key=key, value=value, output=output)
    wide = abs(Fraction(output) * Fraction(value))
    steep = abs(Fraction(key) * Fraction(query))
    radius = Fraction(1, 3)
    with working_precision(400):
        root = upper((1 + ball(steep * radius**2) ** 2).sqrt())
        exact = 1 + wide * (steep * radius**2 + root)
        found = upper(composed_bound(weights, radius=radius, method="token").bound.log.exp())
    assert exact / LOOSE <= found <= exact * LOOSE
    assert (
        wide * radius <= token_radii(layer_norms(weights), radius)[1] <= (1 + wide) * radius * LOOSE
    )
    proof = certify_invertible(weights, radius=radius)
    assert proof.one_to_one is (exact - 1 < 1)
    norms = head_norms(weights.layers[0].heads)
    assert wide * steep <= norms.spread <= wide * steep * LOOSE


@given(seed=st.integers(0, 10**6), power=st.integers(-1000, 1000))
def test_a_scale_moved_from_queries_to_keys_changes_nothing(seed, power):
    generator = np.random.default_rng(seed)
    plain = random_weights(
        dim=3, heads=2, head_dim=2, hidden=2, layers=1, generator=generator, masked=False
    ).layers[0]

    def moved(head):
        return HeadWeights(
            query=np.ldexp(head.query, power),
            key=np.ldexp(head.key, -power),
            value=np.ldexp(head.value, -power),
            output=np.ldexp(head.output, power),
        )

    one, two = head_norms(plain.heads), head_norms([moved(head) for head in plain.heads])
    pairs = [(one.spread, two.spread), *zip(one.value_norms, two.value_norms, strict=True)]
    pairs += zip(one.score_norms, two.score_norms, strict=True)
    for left, right in pairs:
        assert abs(left - right) <= left / 10**6


@pytest.mark.parametrize("seed", range(40))
def test_weights_of_all_sizes_have_bounds_or_are_refused_in_one_line(seed, recwarn):
    """Each matrix, or each number, at a scale from 1e-300 to 1e300."""
    generator = np.random.default_rng(seed)
    drawn = random_weights(
        dim=3, heads=2, head_dim=2, hidden=2, layers=2, generator=generator, masked=seed % 2 == 1
    )

    def scaled(array):
        shape = array.shape if seed % 3 == 0 else ()
        return array * 10.0 ** generator.uniform(-300, 300, shape)

    layers = tuple(
        LayerWeights(
            heads=tuple(
                HeadWeights(**{n: scaled(getattr(h, n)) for n in vars(h)}) for h in layer.heads
            ),
            **{n: scaled(getattr(layer, n)) for n in ("w1", "b1", "w2", "b2")},
        )
        for layer in drawn.layers
    )
    weights = TransformerWeights(layers=layers, masked=drawn.masked)
    for method in METHODS:
        try:
            found = composed_bound(weights, radius=1, method=method, tokens=4)
        except UserError:
            assert THEOREMS[method].norm == "W_q"  # exp of a score, or a mask
            continue
        assert found.bound.log.is_finite()
    assert 0 <= certify_invertible(weights, radius=1).floor <= 1
    assert prompt_norm_limit(weights).norm == "token"
    assert not recwarn.list


def test_the_level_is_that_of_the_centre_or_the_radius():
    zero = ScaledBall(ball=MatrixBall(center=np.zeros((2, 2)), radius=2.0**-900), exponent=7)
    level = zero.levelled()
    assert level.ball.radius == 0.5
    assert level.exponent == 7 - 899
    assert level.spectral_norm() == zero.spectral_norm()
