"""Verify an ellipsoid bound on a transformer's Lipschitz constant in ball arithmetic.

This shares no code with what wrote the certificate: matrices are flint's at 256 bits rather than
doubles, matrices Q rather than their factors are carried, and each inequality is decided by a
factorisation of balls. From the weights and the recorded free numbers it computes, for tokens in
c + E(S) and perturbations in E(G) (E(Q) = {u : v.u <= sqrt(v^T Q v)}), layer by layer:

1. that gamma_h >= |L_G^T A x| for all tokens: (gamma_h - |L_G^T A c|)^2 I > M M^T, M = L_G^T A L_S;
2. attention:  K L X^-1 L^T K^T + sum_h W S W^T/t_h + sum_h W (G + gamma_h^2 S) W^T / w_h, with
   K = I + sum_h W S A / 2 and X = w_0 I - sum_h t_h L^T A^T S A L / 4, proved positive definite;
3. tokens: S/w_0 + sum_h W S W^T/w_h, centre c + sum_h W c;
4. MLP: K L X^-1 L^T K^T + W_2 diag(s^2) W_2^T, K = I + W_2 W_1/2,
   X = I - L^T W_1^T diag(s^-2) W_1 L / 4, proved positive definite;
5. at the end limit^2 I > Q, but not so for a limit smaller by a part in 2^12.

Why these give a bound is proved in the documentation of `promptlimits.lipschitz.ellipsoid.layer`.

**What a forger can do** who computes the digest anew: alter free numbers to others for which the
recorded limit is still proved, and the limit by a part in 2^12 upwards; every such claim is true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from typing import Any, Final

import numpy as np
from flint import arb, arb_mat, ctx
from numpy.typing import NDArray

from promptlimits.checking.intervals import log_of
from promptlimits.checking.record import (
    open_certificate,
    reading,
    refuted,
    require_assumptions,
    require_log,
    require_same,
    require_source,
)
from promptlimits.checking.transformer_record import (
    HEAD,
    INPUT_FIELDS,
    MLP,
    Claim,
    LayerRecord,
    StepRecord,
    array_names,
    read_arrays,
    read_claim,
    weights_sha256,
)

_BITS: Final = 256
_ASSUMPTIONS: Final = (
    (
        "Every token that enters the first layer, of the prompt and of the input, lies in the "
        "ball of the stated radius; any number of tokens."
    ),
    "The transformer is the exact one of these weights: no rounding, no normalisation.",
    (
        "Double precision is IEEE 754 with rounding to nearest, and a matrix product is "
        "computed as sums of products, in any order (as BLAS does)."
    ),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Maps:
    """The matrices of one layer as balls: (A, W) of each head, and the MLP."""

    heads: tuple[tuple[arb_mat, arb_mat], ...]
    w1: arb_mat
    b1: arb_mat
    w2: arb_mat
    b2: arb_mat
    hidden: int


def check(
    certificate: Any, *, weights: Any, on_progress: Callable[[str], None] = lambda line: None
) -> str:
    """Verify a certificate of the kind "transformer_lipschitz"."""
    with reading("transformer_lipschitz"):
        inputs, bound = open_certificate(
            certificate, kind="transformer_lipschitz", inputs=INPUT_FIELDS
        )
        claim = read_claim(inputs)
    require_source(
        bound,
        reference="promptlimits",
        statement="ellipsoid propagation (promptlimits.lipschitz.ellipsoid.layer)",
        form="proved here",
    )
    require_assumptions(bound, _ASSUMPTIONS, holds=(None, None, None))
    require_same(bound.quantity, _quantity(claim), "the bound's quantity")
    require_same(bound.direction, "upper", "the bound's direction")
    require_same(len(bound.factors), 0, "the number of factors")
    require_log(
        bound.log,
        lambda digits: log_of(claim.limit, digits),
        direction="upper",
        what="the Lipschitz constant",
    )
    if weights is not None:
        masked, arrays = read_arrays(weights)
        require_same(claim.sha256, weights_sha256(masked, arrays), "the hash of the weights")
        require_same(claim.masked, masked, "the mask")
        _check_sizes(claim, arrays)
        with _precision():
            _verify(claim, arrays, on_progress)
    return _in_words(claim)


def _check_sizes(claim: Claim, arrays: Mapping[str, NDArray[np.float64]]) -> None:
    """The free numbers are for just these heads, neurons and layers: none is passed over."""
    names: list[str] = []
    for place, layer in enumerate(claim.layers):
        names += array_names(place, len(layer.lengths))
    require_same(names, list(arrays), "the number of layers or heads")
    for place, layer in enumerate(claim.layers):
        for number in range(len(layer.lengths)):
            query = arrays[f"layers.{place}.heads.{number}.query"]
            require_same(query.shape[1], claim.dim, "the width")
        hidden = arrays[f"layers.{place}.w1"].shape[0]
        for step in (layer.tokens, layer.change, layer.query):
            if step is not None:
                require_same(len(step.reaches), hidden, "the number of hidden neurons")


def _precision() -> AbstractContextManager[Any]:
    manager: AbstractContextManager[Any] = ctx.workprec(_BITS)
    return manager


def _verify(
    claim: Claim, arrays: Mapping[str, NDArray[np.float64]], on_progress: Callable[[str], None]
) -> None:
    dim = claim.dim
    change = _identity(dim)
    if claim.shape is not None:
        shape = arb_mat([[_ball(entry) for entry in row] for row in claim.shape])
        change = shape * shape.transpose()
    tokens = _identity(dim) * _ball(claim.radius**2)
    center = arb_mat(dim, 1)
    query: arb_mat | None = None  # of a query that stands still
    for place, layer in enumerate(claim.layers):
        on_progress(f"ellipsoids of layer {place + 1} of {len(claim.layers)}")
        maps = _maps(arrays, place, len(layer.lengths))
        # A larger matrix is a larger ellipsoid: this makes singular ones factor.
        tokens, change = _lifted(tokens), _lifted(change)
        _check_lengths(maps, layer.lengths, tokens, change, center)
        if layer.query is not None:
            own = None if query is None else _lifted(query)
            query = _attention(maps, layer, layer.query, tokens, change, own)
            query = _mlp(maps, layer.query, query)
        moved = _attention(maps, layer, layer.change, tokens, change, change)
        tokens = _mlp(maps, layer.tokens, _mean(maps, layer.tokens, tokens))
        change, center = _mlp(maps, layer.change, moved), _moved_center(maps, center)
    final = query if query is not None else change
    _require_definite(_identity(dim) * _ball(claim.limit**2) - final, "the limit is too low")
    lower = claim.limit * (1 - Fraction(1, 2**12))
    if _factor(_identity(dim) * _ball(lower**2) - final) is not None:
        raise refuted("the limit is higher than its numbers make it")


def _check_lengths(
    maps: _Maps, lengths: tuple[Fraction, ...], tokens: arb_mat, change: arb_mat, center: arb_mat
) -> None:
    left, right = _root(change), _root(tokens)
    for (score, _), length in zip(maps.heads, lengths, strict=True):
        pulled = left.transpose() * score
        middle = pulled * center
        rest = _ball(length) - (middle.transpose() * middle)[0, 0].sqrt()
        if not rest > 0:
            raise refuted("a length is too small")
        spread = pulled * right
        square = _identity(left.nrows()) * (rest * rest)
        _require_definite(square - spread * spread.transpose(), "a length is too small")


def _attention(
    maps: _Maps,
    layer: LayerRecord,
    step: StepRecord,
    tokens: arb_mat,
    change: arb_mat,
    own: arb_mat | None,
) -> arb_mat:
    dim = tokens.nrows()
    rest, moving = arb_mat(dim, dim), _identity(dim)
    seen = arb_mat(dim, dim)
    for (score, value), length, weight, turn in zip(
        maps.heads, layer.lengths, step.heads, step.turns, strict=True
    ):
        spread = value * tokens
        rest += spread * value.transpose() * _ball(1 / turn + length**2 / weight)
        rest += value * change * value.transpose() * _ball(1 / weight)
        moving += spread * score * _ball(Fraction(1, 2))
        seen += score.transpose() * tokens * score * _ball(turn / 4)
    return rest if own is None else rest + _through(moving, own, seen, step.own)


def _mean(maps: _Maps, step: StepRecord, tokens: arb_mat) -> arb_mat:
    total = tokens * _ball(1 / step.own)
    for (_, value), weight in zip(maps.heads, step.heads, strict=True):
        total += value * tokens * value.transpose() * _ball(1 / weight)
    return total


def _mlp(maps: _Maps, step: StepRecord, known: arb_mat) -> arb_mat:
    if maps.hidden == 0:
        return known
    known = _lifted(known)
    wide = _columns_times(maps.w2, [_ball(reach) for reach in step.reaches])
    narrow = _columns_times(maps.w1.transpose(), [_ball(1 / reach) for reach in step.reaches])
    seen = narrow * narrow.transpose() * _ball(Fraction(1, 4))
    moving = _identity(known.nrows()) + maps.w2 * maps.w1 * _ball(Fraction(1, 2))
    return wide * wide.transpose() + _through(moving, known, seen, Fraction(1))


def _through(moving: arb_mat, known: arb_mat, seen: arb_mat, weight: Fraction) -> arb_mat:
    """K L (weight I - L^T B L)^-1 L^T K^T for K, L L^T, B = `moving`, `known`, `seen`."""
    root = _root(known)
    middle = _identity(known.nrows()) * _ball(weight) - root.transpose() * seen * root
    factor = _require_definite(middle, "its free numbers make a matrix indefinite")
    half = factor.solve((moving * root).transpose())
    return half.transpose() * half


def _moved_center(maps: _Maps, center: arb_mat) -> arb_mat:
    moved = center
    for _, value in maps.heads:
        moved = moved + value * center
    if maps.hidden == 0:
        return moved + maps.b2
    inner = maps.w1 * moved + maps.b1
    rectified = arb_mat([[_relu(inner[row, 0])] for row in range(maps.hidden)])
    return moved + maps.w2 * rectified + maps.b2


def _relu(value: arb) -> arb:
    return (value + abs(value)) / 2


def _lifted(matrix: arb_mat) -> arb_mat:
    """The matrix plus 2^-80 of its trace, and a speck for the zero matrix."""
    trace = sum((matrix[row, row] for row in range(matrix.nrows())), arb(0))
    return matrix + _identity(matrix.nrows()) * (
        abs(trace) * _ball(Fraction(1, 2**80)) + _ball(Fraction(1, 2**600))
    )


def _root(matrix: arb_mat) -> arb_mat:
    return _require_definite(matrix, "an ellipsoid is degenerate")


def _require_definite(matrix: arb_mat, reason: str) -> arb_mat:
    factor = _factor(matrix)
    if factor is None:
        raise refuted(reason)
    return factor


def _factor(matrix: arb_mat) -> arb_mat | None:
    """The Cholesky factor; None if no pivot is proved positive. Only its lower half is read.

    Every symmetric matrix in the balls then has positive pivots, hence is positive definite.
    """
    size = matrix.nrows()
    rows: list[list[arb]] = []
    for i in range(size):
        row: list[arb] = []
        for j in range(i + 1):
            other = rows[j] if j < i else row
            value = matrix[i, j]
            for k in range(j):
                value -= row[k] * other[k]
            if j < i:
                row.append(value / other[j])
            elif value > 0:
                row.append(value.sqrt())
            else:
                return None
        rows.append(row)
    return arb_mat([row + [arb(0)] * (size - len(row)) for row in rows])


def _identity(size: int) -> arb_mat:
    return arb_mat([[int(i == j) for j in range(size)] for i in range(size)])


def _columns_times(matrix: arb_mat, factors: list[arb]) -> arb_mat:
    return arb_mat(
        [
            [matrix[row, column] * factor for column, factor in enumerate(factors)]
            for row in range(matrix.nrows())
        ]
    )


def _ball(value: Fraction) -> arb:
    return arb(value.numerator) / value.denominator


def _exact(array: NDArray[np.float64]) -> arb_mat:
    """A float64 array as balls of radius 0."""
    rows, columns = array.shape
    return arb_mat(rows, columns, [arb(float(entry)) for entry in array.reshape(-1)])


def _maps(arrays: Mapping[str, NDArray[np.float64]], place: int, heads: int) -> _Maps:
    """The matrices of a layer, of the shapes that the formulas take."""
    found = []
    for number in range(heads):
        query, key, value, output = (
            arrays[f"layers.{place}.heads.{number}.{name}"] for name in HEAD
        )
        found.append((_exact(key.T) * _exact(query), _exact(output) * _exact(value)))
    w1, b1, w2, b2 = (arrays[f"layers.{place}.{name}"] for name in MLP)
    return _Maps(
        heads=tuple(found),
        w1=_exact(w1),
        b1=_exact(b1.reshape(-1, 1)),
        w2=_exact(w2),
        b2=_exact(b2.reshape(-1, 1)),
        hidden=w1.shape[0],
    )


def _quantity(claim: Claim) -> str:
    who = (
        "of the other tokens by the prompt" if claim.prompt_only else "of all tokens by all tokens"
    )
    cells = "" if claim.shape is None else ", moves measured by an ellipsoid"
    depth = len(claim.layers)
    return f"token-norm Lipschitz constant of {depth} layers of width {claim.dim}, {who}{cells}"


def _in_words(claim: Claim) -> str:
    moves = "the prompt moves the other tokens" if claim.prompt_only else "tokens move tokens"
    measure = "" if claim.shape is None else ", moves measured in the recorded ellipsoid"
    radius = _rounded(claim.radius, ROUND_FLOOR, 12)
    limit = _rounded(claim.limit, ROUND_CEILING, 6)
    return (
        f"With every token in the ball of radius {radius}, {moves} by at most "
        f"{limit} times the largest move of a token, after {len(claim.layers)} "
        f"layers of width {claim.dim}{measure} (weights {claim.sha256[:12]})."
    )


def _rounded(value: Fraction, rounding: str, digits: int) -> Decimal:
    """A number of any size to some digits: a limit upwards, what it assumes downwards."""
    context = Context(prec=digits, rounding=rounding, Emin=MIN_EMIN, Emax=MAX_EMAX)
    return context.divide(Decimal(value.numerator), Decimal(value.denominator))
