"""Errors that integers alone exhibit: E8 (covering numbers) and E11 (dimensions)."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final

from promptlimits.base.errors import UserError
from promptlimits.lab.errata.run import Counterexample

HEAD_SIZE: Final = 64
"""Size of a head where only the number of heads is given, as in BERT and GPT-2."""

_RADIUS: Final = Fraction(1, 10)
_LOG_CONSTANT: Final = 100
"""log C of the E8 example; any other C fails from a smaller eps on."""


def published_dimension(dim: int, heads: int) -> int:
    """(d-h^2-h)!/(d-h^2-2h-1)!, the dimension that Theorem 5.7 claims."""
    lowest = dim - heads**2 - 2 * heads
    if heads < 1 or lowest < 1:
        raise UserError(
            "the number of heads",
            "satisfy d - h^2 - 2h > 0, as Theorem 5.7 asks",
            got=f"h = {heads} at d = {dim}",
            remedy="give fewer heads",
        )
    return math.prod(range(lowest, lowest + heads + 1))


def dimension(heads: int = 12) -> Counterexample:
    """E11: the claimed dimension against the ambient one, at d = 64 h."""
    dim = HEAD_SIZE * heads
    claimed, ambient = published_dimension(dim, heads), (heads + 1) * dim
    single = next(d for d in range(4, 100) if published_dimension(d, 1) > 2 * d)
    return Counterexample(
        key="E11",
        refutes=claimed > ambient,
        measured=f"at d = {dim}, h = {heads} the claimed subspace has dimension {claimed:.4g} in "
        f"a space of dimension {ambient}; one that holds has {heads * dim - heads - 1}; "
        f"with h = 1 the claim exceeds the space from d = {single}",
        numbers={
            "dim": dim,
            "heads": heads,
            "published_dimension": claimed,
            "ambient_dimension": ambient,
            "corrected_dimension": heads * dim - heads - 1,
            "first_dim_of_one_head": single,
        },
    )


def monotone_cover(columns: int) -> int:
    """Size of a cover of the distribution functions on [-r, r] at W_1 distance 2r/columns.

    Statement: non-decreasing step functions on M equal columns with values in {0, 1/M, ..., 1}
    are such a cover, and number binom(2M, M). Proof: W_1 is the L_1 distance of distribution
    functions; round the mean of F's values at the ends of a column; on it the error is at most
    half of F's rise plus 1/(2M), and the rises add up to 1 at most: in all
    (2r/M)(1/2 + 1/2). Each step function is that of a uniform measure on M atoms.
    """
    return math.comb(2 * columns, columns)


def covering() -> Counterexample:
    """E8: on [-1/10, 1/10] the true covering number in W_1 against exp(1/eps)/C, log C = 100."""
    columns = next(m for m in range(1, 1000) if _log_claim(m) > math.log(monotone_cover(m + 1)) + 1)
    epsilon = 2 * _RADIUS / columns
    cover, claimed = math.log(monotone_cover(columns + 1)), _log_claim(columns)
    return Counterexample(
        key="E8",
        refutes=claimed > cover,
        measured=f"measures on [-0.1, 0.1] are covered at eps = {float(epsilon):.4g} by "
        f"e^{cover:.1f} balls of W_1; with log C = {_LOG_CONSTANT} at least e^{claimed:.1f} "
        "are claimed",
        numbers={
            "radius": float(_RADIUS),
            "eps": float(epsilon),
            "log_constant": _LOG_CONSTANT,
            "log_cover": cover,
            "log_published": claimed,
        },
    )


def _log_claim(columns: int) -> float:
    """Logarithm of exp(1/eps)/C at eps = 2r/columns."""
    return float(columns / (2 * _RADIUS)) - _LOG_CONSTANT
