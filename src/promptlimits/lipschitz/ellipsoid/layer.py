"""Ellipsoids carried through the papers' transformer: the tight bound on its Lipschitz constant.

E(Q) = {u : v.u <= sqrt(v^T Q v) for all v} = L times the unit ball, for Q = L L^T of any rank.
Tokens are known to lie in c + E(S), their perturbations eta_j in E(G). Each layer maps both to
ellipsoids, and the token norm of the Jacobian is at most the longest semi-axis at the end.
Column convention; A = W_k^T W_q, W = W_o W_v for each head; P_i the softmax weights of query i
over the keys it sees. Every statement holds for each P_i by itself, hence with any mask and for
any number of tokens.

**Joining quadratic limits.** Let u = sum_k B_k z_k where the vectors z_k obey
sum_k z_k^T X_k z_k <= 1 with symmetric X_k. If Q is such that for all v and z

    v^T Q v + sum_k z_k^T X_k z_k - 2 v^T sum_k B_k z_k >= 0                              (1)

then u lies in E(Q): (1) gives 2 v.u <= v^T Q v + 1; put t v for v and choose the best t. For
X_k > 0 the least such Q is sum_k B_k X_k^(-1) B_k^T. A Minkowski sum is the case
z_k^T z_k <= 1, X_k = w_k I with weights w_k >= 0 of sum at most 1.

**Attention.** The derivative of row i, logits x_j^T A x_i, m_i and C_i mean and covariance of
the keys under P_i, b_i = A x_i, is eta_i plus for each head

    W C_i A eta_i  +  W E_j[eta_j + (x_j - m_i)(b_i . eta_j)].

(a) *The covariance term.* Put x_j = c + L_S y_j, |y_j| <= 1. Then C_i = L_S D L_S^T with D the
covariance of y, so D >= 0 and tr D <= E|y|^2 <= 1: D is an average of e e^T (|e| = 1) and 0. As
2 e e^T - I is a reflection and e e^T z = (z + (2 e e^T - I) z)/2, and 0 = (z - z)/2, any such D
has D z = (z + g)/2 with |g| <= |z|. With z = L_S^T A eta_i:

    W C_i A eta_i  =  (1/2) W S A eta_i  +  (1/2) W L_S g,     |g| <= |L_S^T A eta_i|.

The first part is a fixed map of the same eta_i as the residual's: both together are K eta_i with
K = I + sum_h W_h S A_h / 2. The limit on g is quadratic in eta_i.

(b) *The average.* For v put w = W^T v, s_j = w.(x_j - m_i), so E s = 0. Each
(w + b s_j).eta_j <= ((w + b s_j)^T G (w + b s_j))^(1/2), and by Jensen, the cross term being 0,

    E_j[(w + b s_j).eta_j]  <=  (w^T G w + (b^T G b) w^T C_i w)^(1/2)
                            <=  (v^T W (G + gamma^2 S) W^T v)^(1/2),

with gamma >= |L_G^T A x| for all tokens x; gamma = ||L_G^T A L_S|| + |L_G^T A c| will do. C_i <= S
since a variable in an interval of half-length a has variance at most a^2.

Join: z_0 = y with eta_i = L_own y, |y| <= 1 (weight w_0); per head z = g/2 with multiplier
t_h (|g|^2/4 - |L_S^T A_h eta_i|^2/4 <= 0), and the average (weight w_h). So

    Q  =  K L_own X^(-1) L_own^T K^T
          + sum_h W_h S W_h^T / t_h + sum_h W_h (G + gamma_h^2 S) W_h^T / w_h,
    X  =  w_0 I - sum_h (t_h/4) L_own^T A_h^T S A_h L_own.

**MLP** y + W_2 relu(W_1 y + b_1) + b_2. A diagonal matrix D of slopes in [0, 1] is I/2 + F/2
with |F| <= 1. For u = (I + W_2 W_1/2) eta + W_2 q, q = F W_1 eta / 2, |q_k| <= |(W_1 eta)_k|/2;
with reaches s_k > 0, sum_k q_k^2/s_k^2 <= eta^T W_1^T diag(1/s^2) W_1 eta / 4. So, eta = L y,

    Q = K L X^(-1) L^T K^T + W_2 diag(s^2) W_2^T,
    K = I + W_2 W_1/2,  X = I - L^T W_1^T diag(1/s^2) W_1 L/4.

**Tokens.** x_i + sum_h W_h m_i^h with x_i, m_i^h in the convex set c + E(S): centre
(I + sum_h W_h) c and a Minkowski sum. MLP: relu(W_1 (c + e) + b_1) = relu(W_1 c + b_1) + D W_1 e
with D as above.

**From Jacobians to distances.** The domain (each token in a ball) is convex. Along a segment
everything is Lipschitz in t, and relu(z(t)) has the derivative z'(t) where z > 0 and 0 elsewhere,
for almost every t (z' = 0 almost everywhere on z = 0): the chain rule with slopes in {0, 1}. So
the limits hold along the segment and integrate.

**Only the prompt moves.** A query's own perturbation starts at 0. All tokens' perturbations lie
in E(G) as above, a query's besides in an ellipsoid E(G') of its own, propagated with L_own = L_G'.

In doubles: each Q is rounded to L L^T plus a ridge of 1e-10, and the block matrix of (1) is proved
positive semidefinite in matrix balls. Only these inequalities are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from promptlimits.base.errors import RunFailed
from promptlimits.lipschitz.balls.matrix import MatrixBall, float_up, frobenius_up
from promptlimits.lipschitz.balls.spectral import is_positive_semidefinite, spectral_norm
from promptlimits.nets.paper.weights import Array, HeadWeights, LayerWeights

_MOST_SHIFT: Final = 500
_RIDGES: Final = (1e-10, 1e-9, 1e-8, 1e-6)
_UNIT: Final = 2.0**-53


@dataclass(frozen=True, kw_only=True)
class StepChoice:
    """Free numbers of one ellipsoid's way through one layer; any positive ones are sound."""

    own: float  # w_0, the weight of the token's own part
    heads: tuple[float, ...]  # w_h; with `own` they add up to at most 1
    turns: tuple[float, ...]  # t_h, multipliers of the reflected parts; empty for tokens
    reaches: tuple[float, ...]  # s_k for each hidden neuron


@dataclass(frozen=True, kw_only=True)
class LayerChoice:
    """Free numbers of one layer."""

    tokens: StepChoice  # for the ellipsoid of the tokens
    change: StepChoice  # for that of every token's perturbation
    query: StepChoice | None  # for that of a query's perturbation, if only the prompt moves


@dataclass(frozen=True, kw_only=True, eq=False)
class Ellipsoids:
    """What is known between two layers."""

    center: MatrixBall  # ball around the centre c of the tokens, (d, 1)
    tokens: Array  # L_S, (d, d)
    change: Array  # L_G, (d, d)
    # L_G' of a query, (d, k), k = 0 while it stands still; None unless asked for.
    query: Array | None
    lengths: tuple[float, ...] = ()  # gamma_h of the layer just passed

    @property
    def token_radius(self) -> Fraction:
        """Proved limit on the length of a token."""
        return spectral_norm(self.tokens) + spectral_norm(self.center)

    @property
    def read(self) -> Array:
        """The factor of the perturbations that are read at the end."""
        return self.change if self.query is None else self.query


def start(
    dim: int, radius: Fraction, *, prompt_only: bool, shape: Array | None = None
) -> Ellipsoids:
    """Tokens in the ball of a radius, perturbations in the unit ball or in `shape` times it."""
    return Ellipsoids(
        center=MatrixBall.exact(np.zeros((dim, 1))),
        tokens=float_up(radius) * np.eye(dim),
        change=np.eye(dim) if shape is None else shape,
        query=np.zeros((dim, 0)) if prompt_only else None,
    )


def pass_layer(layer: LayerWeights, known: Ellipsoids, choice: LayerChoice) -> Ellipsoids:
    """Carry the ellipsoids through one layer, proving each step."""
    maps = tuple((_score(head), _value(head)) for head in layer.heads)
    lengths = tuple(_length(score, known) for score, _ in maps)
    return Ellipsoids(
        center=_center(layer, maps, known.center),
        tokens=_mlp(layer, _mean(maps, known, choice.tokens), choice.tokens),
        change=_mlp(
            layer, _attention(maps, known, known.change, lengths, choice.change), choice.change
        ),
        query=None
        if known.query is None or choice.query is None
        else _mlp(layer, _attention(maps, known, known.query, lengths, choice.query), choice.query),
        lengths=lengths,
    )


_Maps = tuple[tuple[MatrixBall, MatrixBall], ...]


def _score(head: HeadWeights) -> MatrixBall:
    """A = W_k^T W_q."""
    return MatrixBall.exact(head.key.T) @ MatrixBall.exact(head.query)


def _value(head: HeadWeights) -> MatrixBall:
    """W = W_o W_v."""
    return MatrixBall.exact(head.output) @ MatrixBall.exact(head.value)


def _length(score: MatrixBall, known: Ellipsoids) -> float:
    """The limit gamma >= |L_G^T A x| for every token x."""
    pulled = MatrixBall.exact(known.change.T) @ score
    spread = spectral_norm(pulled @ MatrixBall.exact(known.tokens))
    # A length of 0 would make a matrix singular that a checker proves positive definite.
    return max(float_up(spread + spectral_norm(pulled @ known.center)), 1e-100)


def _center(layer: LayerWeights, maps: _Maps, center: MatrixBall) -> MatrixBall:
    """The centre of the tokens after a layer; relu is 1-Lipschitz, so its radius stands."""
    moved = center
    for _, value in maps:
        moved = moved + value @ center
    if layer.hidden == 0:
        return moved + MatrixBall.exact(layer.b2)
    inner = MatrixBall.exact(layer.w1) @ moved + MatrixBall.exact(layer.b1)
    rectified = MatrixBall(center=np.maximum(inner.center, 0.0), radius=inner.radius)
    return moved + MatrixBall.exact(layer.w2) @ rectified + MatrixBall.exact(layer.b2)


def _attention(
    maps: _Maps, known: Ellipsoids, own: Array, lengths: tuple[float, ...], choice: StepChoice
) -> Array:
    """The factor of Q after attention, for a token whose perturbation is in `own`'s ellipsoid."""
    _require_weights(choice, len(maps))
    dim, size = own.shape
    factor, tokens = MatrixBall.exact(own), MatrixBall.exact(known.tokens)
    change = MatrixBall.exact(known.change)
    moved = factor
    middle = MatrixBall.identity(size).scaled(choice.own)
    rest = MatrixBall.exact(np.zeros((dim, dim)))
    for (score, value), length, weight, turn in zip(
        maps, lengths, choice.heads, choice.turns, strict=True
    ):
        spread = value @ tokens
        seen = tokens.T @ score @ factor
        moved = moved + (spread @ seen).scaled(0.5)
        middle = middle - (seen.T @ seen).scaled(Fraction(turn) / 4)
        share = 1 / Fraction(turn) + Fraction(length) ** 2 / Fraction(weight)
        average = value @ change
        rest = rest + (spread @ spread.T).scaled(share)
        rest = rest + (average @ average.T).scaled(1 / Fraction(weight))
    return _joined(moved, middle, rest)


def _mean(maps: _Maps, known: Ellipsoids, choice: StepChoice) -> Array:
    """The factor of S after attention: x_i + sum_h W_h m_i^h."""
    _require_weights(choice, len(maps))
    tokens = MatrixBall.exact(known.tokens)
    dim = tokens.shape[0]
    rest = MatrixBall.exact(np.zeros((dim, dim)))
    for (_, value), weight in zip(maps, choice.heads, strict=True):
        spread = value @ tokens
        rest = rest + (spread @ spread.T).scaled(1 / Fraction(weight))
    return _joined(tokens, MatrixBall.identity(dim).scaled(choice.own), rest)


def _mlp(layer: LayerWeights, factor: Array, choice: StepChoice) -> Array:
    """The factor of Q after the MLP with its residual."""
    if layer.hidden == 0:
        return factor
    if len(choice.reaches) != layer.hidden or min(choice.reaches) <= 0:
        raise ValueError("an MLP needs one positive reach for each hidden neuron")
    reaches = np.array(choice.reaches)
    # A rounded quotient is off by at most 2^-53: this is 1/s or more, which is sound.
    inverses = np.nextafter(1.0 / reaches, np.inf)
    known, out = MatrixBall.exact(factor), MatrixBall.exact(layer.w2)
    seen = _scaled_entries(layer.w1, inverses[:, None]) @ known
    middle = MatrixBall.identity(factor.shape[1]) - (seen.T @ seen).scaled(0.25)
    moved = known + (out @ (MatrixBall.exact(layer.w1) @ known)).scaled(0.5)
    wide = _scaled_entries(layer.w2, reaches[None, :])
    return _joined(moved, middle, wide @ wide.T)


def _scaled_entries(array: Array, factors: Array) -> MatrixBall:
    """Ball around an array times positive factors for its rows or columns."""
    with np.errstate(over="ignore", invalid="ignore"):  # refused as a centre
        center = array * factors
    radius = frobenius_up(center) * _UNIT * (1 + 2.0**-20) + center.size * 2.0**-1074
    return MatrixBall(center=center, radius=float(np.nextafter(radius, np.inf)))


def _joined(moved: MatrixBall, middle: MatrixBall, rest: MatrixBall) -> Array:
    """A factor L with L L^T >= M X^(-1) M^T + R, for M, X, R = `moved`, `middle`, `rest`.

    Proved as inequality (1): [[L L^T - R, M], [M^T, X]] is positive semidefinite. Its first block
    is scaled by a power of two, which changes no sign but lets one shift serve both blocks.
    """
    try:
        half = np.linalg.solve(np.linalg.cholesky(middle.center), moved.center.T)
    except np.linalg.LinAlgError:
        raise _indefinite() from None
    target = half.T @ half + (rest.center + rest.center.T) / 2
    dim = target.shape[0]
    size = float(np.trace(target)) or 1.0
    scale = 2.0 ** -min(max(round(np.log2(size) / 2), -_MOST_SHIFT), _MOST_SHIFT)
    for ridge in _RIDGES:
        try:
            raised = target + ridge * size * np.eye(dim)
            factor = np.asarray(np.linalg.cholesky(raised), dtype=np.float64)
        except np.linalg.LinAlgError:
            continue
        exact = MatrixBall.exact(factor)
        corner = (exact @ exact.T - rest).scaled(scale**2)
        side = moved.scaled(scale)
        if is_positive_semidefinite(MatrixBall.block([[corner, side], [side.T, middle]])):
            return factor
    raise _indefinite()


def _indefinite() -> RunFailed:
    return RunFailed(
        "no ellipsoid could be proved: the free numbers make a matrix indefinite",
        remedy="search for them again with other settings",
    )


def _require_weights(choice: StepChoice, heads: int) -> None:
    """Weights are positive, one for each head and one for the token, of sum at most 1."""
    weights = (choice.own, *choice.heads)
    if len(choice.heads) != heads or min(weights) <= 0 or min(choice.turns, default=1.0) <= 0:
        raise ValueError("each head needs a positive weight")
    if sum(map(Fraction, weights)) > 1:
        raise ValueError("the weights of a Minkowski sum add up to at most 1")
