"""Theorems A to D for attention: soundness against exact Jacobians, laws, tightness."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from flint import ctx
from tests.reference.layers import attention_only, rotated
from tests.reference.lipschitz_twin import (
    attention_output,
    frobenius_operator_norm,
    jacobian,
    token_clouds,
    token_operator_norm,
)

from promptlimits.base.errors import UserError
from promptlimits.lipschitz.paper.attention import Inputs, attention_bound
from promptlimits.lipschitz.paper.head_norms import head_norms
from promptlimits.nets.paper.weights import HeadWeights, random_weights

# Norms are proved to 1e-8; twins are computed in double precision.
TIGHT = 1 + 1e-6


def one_head(A, W):
    identity = np.eye(len(A))
    return attention_only(HeadWeights(query=A, key=identity, value=W, output=identity))


def random_layer(seed, heads=2, dim=4, scale=1.0):
    drawn = random_weights(
        dim=dim,
        heads=heads,
        head_dim=max(dim // heads, 2),
        hidden=0,
        layers=1,
        generator=np.random.default_rng(seed),
        masked=False,
        scale=scale,
    )
    return drawn.layers[0]


def bound(layer, radius, method, **given):
    return attention_bound(layer, Inputs(radius=radius, **given), method)


def number(found):
    return math.exp(found.upper_nats())


def value(layer, radius, method, **given):
    return number(bound(layer, radius, method, **given))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("seed", "heads", "radius"), [(0, 1, 1), (1, 2, 2), (2, 4, 1), (3, 2, 4)])
def test_no_jacobian_exceeds_the_bounds(seed, heads, radius, masked):
    n, d, generator = 5, 4, np.random.default_rng(seed)
    layer = random_layer(seed, heads, d, scale=1.5)
    token, whole = value(layer, radius, "token"), value(layer, radius, "frobenius", tokens=n)
    read = value(layer, radius, "frobenius", tokens=2)
    prompt = value(layer, radius, "token-prompt")
    for name, X in token_clouds(d, n, radius, generator).items():
        J = jacobian(lambda Z: attention_output(Z, layer.heads, masked), X)
        assert token_operator_norm(J, generator) <= token * TIGHT, name
        assert frobenius_operator_norm(J) <= whole * TIGHT, name
        assert frobenius_operator_norm(J[:, -2:]) <= read * TIGHT, name
        assert token_operator_norm(J[:, 3:, :, :3], generator) <= prompt * TIGHT, name
        ball = bound(
            layer,
            Fraction(float(np.linalg.norm(X, 2))) * Fraction(1 + 1e-12),
            "spectral-ball",
            tokens=n,
            masked=masked,
        )
        assert frobenius_operator_norm(J) <= number(ball) * TIGHT, name


@pytest.mark.parametrize("seed", range(4))
def test_the_forms_of_the_literature_are_never_smaller(seed):
    """Lemma L, 5(a), Castin et al. and the mean-field form follow with looser steps."""
    layer, n = random_layer(seed, heads=1 + seed % 3, dim=6), 7
    norms = head_norms(layer.heads)
    for radius in (Fraction(1, 4), 1, 3):
        pairs = [
            (float(w), float(a) * float(radius) ** 2)
            for w, a in zip(norms.value_norms, norms.score_norms, strict=True)
        ]
        lemma_l = sum(w * (1 + 2 * beta) for w, beta in pairs)
        five_a = sum(w * (n**0.5 + beta * (1 + n**0.5)) for w, beta in pairs)
        theorem_a = sum(w * (beta + (1 + beta**2) ** 0.5) for w, beta in pairs)
        token, whole = bound(layer, radius, "token"), bound(layer, radius, "frobenius", tokens=n)
        assert number(token) <= theorem_a * TIGHT <= lemma_l * TIGHT**2
        assert number(whole) <= five_a * TIGHT
        castin = bound(layer, radius, "published-frobenius", tokens=n)
        twin = sum(3**0.5 * w * (beta**2 * (4 * n + 1) + n) ** 0.5 for w, beta in pairs)
        assert number(castin) == pytest.approx(twin, rel=1e-12)
        assert whole.log < castin.log
        published = bound(layer, radius, "published-meanfield")
        twin = sum(w * (1 + 3 * beta) * math.exp(2 * beta) for w, beta in pairs)
        assert number(published) == pytest.approx(twin, rel=1e-12)
        for order in (1, 2, 5):
            assert bound(layer, radius, "meanfield", order=order).log <= published.log


@pytest.mark.parametrize("radius", [Fraction(1, 3), 1, 2])
def test_closed_forms_for_one_head(radius):
    layer, n, r = random_layer(6, heads=1), 5, float(radius)
    norms = head_norms(layer.heads)
    w, a, kappa = float(norms.value_norms[0]), float(norms.score_norms[0]), float(norms.spread)
    W, A = layer.heads[0].output @ layer.heads[0].value, layer.heads[0].key.T @ layer.heads[0].query
    assert w == pytest.approx(np.linalg.norm(W, 2), rel=1e-7)
    assert a == pytest.approx(np.linalg.norm(A, 2), rel=1e-7)
    # (P1) by brute force over directions: for d >= 3 the least over t is the maximum over v.
    v = np.random.default_rng(0).standard_normal((4, 200_000))
    v /= np.linalg.norm(v, axis=0)
    crossed = (np.linalg.norm(W @ v, axis=0) * np.linalg.norm(A.T @ v, axis=0)).max()
    assert 0.98 * kappa <= crossed <= kappa * TIGHT
    beta, kappa, front = a * r**2, kappa * r**2, (1 + (a * r**2) ** 2) ** 0.5
    assert value(layer, radius, "token-prompt") == pytest.approx(w * front)
    assert value(layer, radius, "token") == pytest.approx(kappa + w * front)
    assert value(layer, radius, "frobenius", tokens=n) == pytest.approx(kappa + n**0.5 * w * front)
    for q, price in ((1, 1 + 2 * beta), (Fraction(3, 2), 1 + 2 * beta), (2, front), (6, front)):
        expected = kappa + w * price * math.exp(2 * beta / float(q))
        assert value(layer, radius, "meanfield", order=q) == pytest.approx(expected)
    for masked in (False, True):
        ball = bound(layer, radius, "spectral-ball", tokens=3, masked=masked)
        expected = w * (1 + masked + beta * (1 + 3**0.5 / 2))
        assert number(ball) == pytest.approx(expected)


def test_many_heads_cost_less_together_than_apart():
    layer = random_layer(5, heads=4, dim=8)
    norms = head_norms(layer.heads)
    apart = sum(
        float(w) * (float(a) + (1 + float(a) ** 2) ** 0.5)
        for w, a in zip(norms.value_norms, norms.score_norms, strict=True)
    )
    assert value(layer, 1, "token") < 0.8 * apart


def test_orthogonal_heads_mix_like_one():
    """W_h = e_h e_h^T, equal costs c: max_u c sum |u_h| = c h^(1/2), attained by Theorem C."""
    d = 4
    units = np.eye(d)
    heads = tuple(
        HeadWeights(
            query=np.zeros((1, d)), key=np.zeros((1, d)), value=units[h : h + 1],
            output=units[:, h : h + 1],
        )
        for h in range(d)
    )  # fmt: skip
    assert value(attention_only(*heads), 3, "token") == pytest.approx(2.0, rel=1e-6)
    assert value(attention_only(*heads), 3, "token") >= 2.0


def test_without_scores_the_token_bound_is_attained():
    """A = 0: attention is W times the mean, so the constant is ||W||."""
    W = np.random.default_rng(0).standard_normal((3, 3))
    found = value(one_head(np.zeros((3, 3)), W), 5, "token")
    norm = float(np.linalg.norm(W, 2))
    assert norm <= found <= norm * (1 + 1e-7)


def test_the_covariance_term_is_attained_and_the_whole_within_a_factor():
    """Two clusters at +-r v, undecided: C = r^2 v v^T; W = A = I at r = 1, bound 1 + 2^(1/2)."""
    layer, n = one_head(np.eye(3), np.eye(3)), 6
    norms = head_norms(layer.heads)
    assert 1 <= norms.spread <= 1 + Fraction(1, 10**6)
    v = np.array([1.0, 0, 0])
    X = np.stack([v * (-1) ** j for j in range(n)] + [np.zeros(3)], axis=1)
    J = jacobian(lambda Z: attention_output(Z, layer.heads, False), X)
    own = np.linalg.norm(J[:, n, :, n] - np.eye(3) / (n + 1), 2)
    assert own == pytest.approx(n / (n + 1), rel=1e-9)  # C of six of seven tokens, A = I
    generator = np.random.default_rng(1)
    best = max(
        token_operator_norm(
            jacobian(lambda Z: attention_output(Z, layer.heads, False), Y), generator
        )
        for Y in (
            np.stack([v * (-1) ** (j > 0) * s for j in range(8)], axis=1)
            for s in np.linspace(0.4, 1, 13)
        )
    )
    found = value(layer, 1, "token")
    assert found == pytest.approx(1 + 2**0.5, rel=1e-6)
    assert found / best < 1.5


def test_crossed_norms_beat_the_product_of_norms():
    """W sees e_1, A^T sees e_2: max_v |Wv||A^T v| = 1/2, not 1."""
    W, A = np.diag([1.0, 0.0, 0.0]), np.diag([0.0, 1.0, 0.0])
    spread = head_norms(one_head(A, W).heads).spread
    assert Fraction(1, 2) <= spread <= Fraction(1, 2) + Fraction(1, 10**5)


def test_laws():
    layer, generator = random_layer(9, heads=3, dim=6), np.random.default_rng(9)
    base = value(layer, 2, "token")
    logs = [bound(layer, Fraction(k, 4), "token").log for k in range(1, 12)]
    assert logs == sorted(logs)
    # A doubled value matrix doubles the constant, exactly a power of two.
    doubled = replace(layer, heads=tuple(replace(h, value=2 * h.value) for h in layer.heads))
    assert value(doubled, 2, "token") == pytest.approx(2 * base, rel=1e-6)
    # x -> Qx, with weights conjugated; and any order of the heads.
    Q = np.linalg.qr(generator.standard_normal((6, 6)))[0]
    other = rotated(replace(layer, heads=layer.heads[::-1]), Q)
    assert value(other, 2, "token") == pytest.approx(base, rel=2e-2)
    # Scores times t equal a radius times t^(1/2).
    sharper = replace(layer, heads=tuple(replace(h, key=4 * h.key) for h in layer.heads))
    assert value(sharper, 1, "token") == pytest.approx(base, rel=1e-6)


def test_one_row_makes_frobenius_the_token_bound_and_large_orders_too():
    layer = random_layer(3)
    assert bound(layer, 1, "frobenius", tokens=1).log == bound(layer, 1, "token").log
    far = value(layer, 1, "meanfield", order=10**9)
    assert far == pytest.approx(value(layer, 1, "token"), rel=1e-6)
    orders = [bound(layer, 1, "meanfield", order=q).log for q in (2, 3, 4, 8)]
    assert orders == sorted(orders, reverse=True)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_transport_of_empirical_measures_stays_under_the_mean_field_bound(order):
    """Near measures of n atoms are coupled by position: W_q is a mean over tokens."""
    layer, n, generator = one_head(np.diag([1.0, -0.5]), np.eye(2)), 6, np.random.default_rng(order)
    limit = value(layer, 1, "meanfield", order=order)
    for X in token_clouds(2, n, 1.0, generator).values():
        J = jacobian(lambda Z: attention_output(Z, layer.heads, False), X)
        for _ in range(40):
            e = generator.standard_normal((2, n)) * generator.uniform(size=n) ** 8
            moved = np.linalg.norm(np.einsum("abij,ij->ab", J, e), axis=0)
            gain = (moved**order).mean() / (np.linalg.norm(e, axis=0) ** order).mean()
            assert gain ** (1 / order) <= limit * TIGHT


def test_the_published_masked_mean_field_constant_is_exceeded_by_a_running_mean():
    """Proposition 2.16 at A = 0, V = I gives 1; two tokens stretch by 1.144."""
    layer = one_head(np.zeros((1, 1)), np.eye(1))
    published = bound(layer, 1, "published-meanfield", masked=True)
    J = jacobian(lambda Z: attention_output(Z, layer.heads, True), np.array([[0.3, -0.2]]))
    assert number(published) == pytest.approx(1, rel=1e-6)
    assert frobenius_operator_norm(J) == pytest.approx((0.75 + 0.3125**0.5) ** 0.5)
    assert [a.holds for a in published.assumptions].count(False) == 1
    many = jacobian(lambda Z: attention_output(Z, layer.heads, True), np.zeros((1, 60)))
    assert 1.5 < frobenius_operator_norm(many) < 2  # Hardy's 2, as in Theorem B'
    ball = bound(layer, 1, "spectral-ball", tokens=60, masked=True)
    assert frobenius_operator_norm(many) < number(ball) == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize("bits", [30, 53, 400])
def test_the_ambient_precision_changes_nothing(bits):
    layer = random_layer(4)
    known = bound(layer, Fraction(1, 3), "token")
    with ctx.workprec(bits):
        assert bound(layer, Fraction(1, 3), "token") == known


@pytest.mark.parametrize("radius", [0, -1, 0.5, float("nan"), "1", True, None])
def test_a_radius_is_exact_and_positive(radius):
    with pytest.raises(UserError, match="the radius must be an exact number above 0"):
        bound(random_layer(0), radius, "token")
    with pytest.raises(UserError, match="order q"):
        bound(random_layer(0), 1, "meanfield", order=Fraction(1, 2))
    with pytest.raises(UserError, match="without a mask"):
        bound(random_layer(0), 1, "meanfield", masked=True)
