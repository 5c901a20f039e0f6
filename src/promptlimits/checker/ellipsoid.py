"""An ellipsoid bound on a transformer's Lipschitz constant, in ball arithmetic.

Matrices are flint's at 256 bits where floats found the bound, matrices Q rather than their factors
are carried, and each inequality is decided by a factorisation of balls. From the weights and the
recorded free numbers, for tokens in c + E(S) and perturbations in E(G), E(Q) = {u : v.u <=
sqrt(v^T Q v)}, layer by layer:

1. that gamma_h >= |L_G^T A x| for all tokens: (gamma_h - |L_G^T A c|)^2 I > M M^T, M = L_G^T A L_S;
2. attention:  K L X^-1 L^T K^T + sum_h W S W^T/t_h + sum_h W (G + gamma_h^2 S) W^T / w_h, with
   K = I + sum_h W S A / 2 and X = w_0 I - sum_h t_h L^T A^T S A L / 4, proved positive definite;
3. tokens: S/w_0 + sum_h W S W^T/w_h, centre c + sum_h W c;
4. MLP: K L X^-1 L^T K^T + W_2 diag(s^2) W_2^T, K = I + W_2 W_1/2,
   X = I - L^T W_1^T diag(s^-2) W_1 L / 4, proved positive definite;
5. at the end limit^2 I > Q, but not so for a limit smaller by a part in 2^12.

Why these give a bound is proved in the documentation of `lipschitz.ellipsoid.layer`. Free numbers
may be altered to others for which the recorded limit is still proved: the claim is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

from flint import arb, arb_mat, ctx, fmpq

from promptlimits.checker.core import Refuted, inputs_of

_BITS: Final = 256


def prove_limit(
    certificate: Any, weights: Any, *, on_progress: Callable[[str], None] = lambda line: None
) -> None:
    """Prove the limit of a certificate of this kind from the weights that it names, or refute it.

    Args:
        certificate: Of kind "transformer_lipschitz", found to be one by `core.check`.
        weights: `dim`, `masked`, `sha256()` and `layers` of heads (`query`, `key`, `value`,
            `output`) and an MLP (`w1`, `b1`, `w2`, `b2`), as float64 arrays.
        on_progress: Told of every layer.

    Raises:
        Refuted: It is about another transformer, or the limit is not proved or loose.
    """
    claim, (mantissa, exponent) = inputs_of(certificate), certificate["value"]["limit"]
    limit = mantissa * Fraction(2) ** exponent
    found = (weights.sha256(), weights.masked, weights.dim, len(weights.layers))
    if found != (claim.weights_sha256, claim.masked, claim.dim, len(claim.layers)):
        raise Refuted("the hash, mask, width or number of layers is not that of the weights")
    with ctx.workprec(_BITS):
        final = _propagate(claim, weights, on_progress)
        _root(_identity(claim.dim, _ball(limit**2)) - final, "the limit is too low")
        lower = limit * (1 - Fraction(1, 2**12))
        if _cholesky(_identity(claim.dim, _ball(lower**2)) - final) is not None:
            raise Refuted("the limit is higher than its numbers make it")


def _propagate(claim: Any, weights: Any, on_progress: Callable[[str], None]) -> arb_mat:
    """The ellipsoid of moves behind the last layer, of the tokens that are read."""
    shape = _identity(claim.dim) if claim.shape is None else arb_mat(claim.shape)
    change = shape * shape.transpose()
    tokens, center = _identity(claim.dim, _ball(claim.radius**2)), arb_mat(claim.dim, 1)
    query: arb_mat | None = None  # of a query that stands still
    for place, (free, layer) in enumerate(zip(claim.layers, weights.layers, strict=True)):
        on_progress(f"ellipsoids of layer {place + 1} of {len(claim.layers)}")
        maps = _Maps(layer, free)
        # A larger matrix is a larger ellipsoid: this makes singular ones factor.
        tokens, change = _lifted(tokens), _lifted(change)
        maps.check_lengths(tokens, change, center)
        if free.query is not None:
            own = None if query is None else _lifted(query)
            query = maps.mlp(maps.attention(free.query, tokens, change, own), free.query)
        moved = maps.mlp(maps.attention(free.change, tokens, change, change), free.change)
        tokens = maps.mlp(maps.mean(free.tokens, tokens), free.tokens)
        change, center = moved, maps.moved(center)
    return change if query is None else query


class _Maps:
    """One layer's matrices as balls: A = W_k^T W_q and W = W_o W_v of each head, and the MLP."""

    def __init__(self, layer: Any, free: Any) -> None:
        steps = [step for step in (free.tokens, free.change, free.query) if step is not None]
        hidden = len(layer.w1)
        if len(layer.heads) != len(free.lengths) or {len(s.reaches) for s in steps} != {hidden}:
            raise Refuted("the number of heads or hidden neurons is not that of the weights")
        self.lengths = free.lengths
        self.heads = [
            (_balls(head.key.T) * _balls(head.query), _balls(head.output) * _balls(head.value))
            for head in layer.heads
        ]
        self.w1, self.w2 = _balls(layer.w1), _balls(layer.w2)
        self.b1, self.b2 = (_balls(bias.reshape(-1, 1)) for bias in (layer.b1, layer.b2))

    def check_lengths(self, tokens: arb_mat, change: arb_mat, center: arb_mat) -> None:
        """Step 1."""
        left, right = _root(change), _root(tokens)
        for (score, _), length in zip(self.heads, self.lengths, strict=True):
            pulled = left.transpose() * score
            middle, spread = pulled * center, pulled * right
            rest = _ball(length) - (middle.transpose() * middle)[0, 0].sqrt()
            if not rest > 0:
                raise Refuted("a length is too small")
            square = _identity(left.nrows(), rest * rest)
            _root(square - spread * spread.transpose(), "a length is too small")

    def attention(
        self, step: Any, tokens: arb_mat, change: arb_mat, own: arb_mat | None
    ) -> arb_mat:
        """Step 2; a row that stands still has no part of its own."""
        dim = tokens.nrows()
        rest, seen, moving = arb_mat(dim, dim), arb_mat(dim, dim), _identity(dim)
        free = zip(self.heads, self.lengths, step.heads, step.turns, strict=True)
        for (score, value), length, weight, turn in free:
            spread = value * tokens
            rest += spread * value.transpose() * _ball(1 / turn + length**2 / weight)
            rest += value * change * value.transpose() * _ball(1 / weight)
            moving += spread * score * _ball(Fraction(1, 2))
            seen += score.transpose() * tokens * score * _ball(turn / 4)
        return rest if own is None else rest + _through(moving, own, seen, step.own)

    def mean(self, step: Any, tokens: arb_mat) -> arb_mat:
        """Step 3."""
        total = tokens * _ball(1 / step.own)
        for (_, value), weight in zip(self.heads, step.heads, strict=True):
            total += value * tokens * value.transpose() * _ball(1 / weight)
        return total

    def mlp(self, known: arb_mat, step: Any) -> arb_mat:
        """Step 4."""
        wide = self.w2 * _diagonal([_ball(reach) for reach in step.reaches])
        narrow = self.w1.transpose() * _diagonal([_ball(1 / reach) for reach in step.reaches])
        seen = narrow * narrow.transpose() * _ball(Fraction(1, 4))
        moving = _identity(known.nrows()) + self.w2 * self.w1 * _ball(Fraction(1, 2))
        moved = _through(moving, _lifted(known), seen, Fraction(1))
        return wide * wide.transpose() + moved

    def moved(self, center: arb_mat) -> arb_mat:
        """Where the centre goes."""
        for value in [value * center for _, value in self.heads]:
            center = center + value
        inner = (self.w1 * center + self.b1).entries()
        rectified = arb_mat(len(inner), 1, [(value + abs(value)) / 2 for value in inner])
        return center + self.w2 * rectified + self.b2


def _through(moving: arb_mat, known: arb_mat, seen: arb_mat, weight: Fraction) -> arb_mat:
    """K L (weight I - L^T B L)^-1 L^T K^T for K, L L^T, B = `moving`, `known`, `seen`."""
    root = _root(known)
    middle = _identity(known.nrows(), _ball(weight)) - root.transpose() * seen * root
    factor = _root(middle, "its free numbers make a matrix indefinite")
    half = factor.solve((moving * root).transpose())
    return half.transpose() * half


def _lifted(matrix: arb_mat) -> arb_mat:
    """The matrix plus 2^-80 of its trace, and a speck for the zero matrix."""
    lift = abs(matrix.trace()) * _ball(Fraction(1, 2**80)) + _ball(Fraction(1, 2**600))
    return matrix + _identity(matrix.nrows(), lift)


def _root(matrix: arb_mat, reason: str = "an ellipsoid is degenerate") -> arb_mat:
    factor = _cholesky(matrix)
    if factor is None:
        raise Refuted(reason)
    return factor


def _cholesky(matrix: arb_mat) -> arb_mat | None:
    """Balls around L, matrix = L L^T; None if no pivot is proved to be positive.

    Only the lower half is read. Every symmetric matrix in the balls has the positive pivots found.
    """
    side = matrix.nrows()
    rows: list[list[arb]] = []
    for place in range(side):
        row: list[arb] = []
        for column, above in enumerate(rows):
            known = sum((x * y for x, y in zip(row, above, strict=False)), arb(0))
            row.append((matrix[place, column] - known) / above[column])
        pivot = matrix[place, place] - sum((x * x for x in row), arb(0))
        if not pivot > 0:
            return None
        rows.append([*row, pivot.sqrt()])
    return arb_mat([[*row, *[0] * (side - len(row))] for row in rows])


def _identity(side: int, value: arb | int = 1) -> arb_mat:
    return _diagonal([value] * side)


def _diagonal(values: list[Any]) -> arb_mat:
    matrix = arb_mat(len(values), len(values))
    for place, value in enumerate(values):
        matrix[place, place] = value
    return matrix


def _ball(value: Fraction | int) -> arb:
    return arb(fmpq(value.numerator, value.denominator))


def _balls(matrix: Any) -> arb_mat:
    """Exactly this array of float64."""
    rows, columns = matrix.shape
    return arb_mat(rows, columns, matrix.ravel().tolist())
