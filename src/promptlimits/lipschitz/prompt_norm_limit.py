"""D*: how large prompts must grow before two inputs can get one answer.

**By tokens.** By Theorem I (`invertibility`) the floor of X -> Y behind a fixed prompt falls as
the radius r of the token ball grows. D* is the largest r at which it is proved to be above 0:
while all tokens of P and of both inputs are at most D* long, two different inputs have different
answers, and one common target leaves an error of at least floor ||X - X'|| / 2. Both count: the
ball must hold the inputs' tokens too. For one layer, one head, no MLP it solves
r^2 spread + ||V|| (1 + ||A||^2 r^4)^(1/2) = 1, V = W_o W_v, A = W_k^T W_q.

**By the spectral norm** (one layer; after Theorem 4 of [@wang2023], with the constants of
Theorem B' of `attention`): with k = min(d, n) and a = 1, or 2 under a mask,

    D*^2 = (1 - a sum_h ||V_h||) / ( (1 + k^(1/2)/2) sum_h ||V_h|| ||A_h|| ),

two inputs cannot share an answer while ||[P, X]||_2 and ||[P, X']||_2 are below D*. Since
||[P, X]||^2 <= ||P||^2 + ||X||^2, that is so for ||P||_2 < (D*^2 - ||X||_2^2)^(1/2).
It needs a branch constant ||W_1|| ||W_2|| below 1, and counts n, which the form by tokens does not.

Both are sufficient conditions: beyond D* nothing is proved, and nothing need be possible.

*Cost:* norms of the layers once; then some 60 evaluations of a formula.
Source: proved here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, TypeAlias

from flint import arb

from promptlimits._checks import require_positive_int
from promptlimits.bound import PRECISION_BITS, working_precision
from promptlimits.errors import UserError
from promptlimits.lipschitz.feedforward import RELU, branch_lipschitz
from promptlimits.lipschitz.head_norms import head_norms
from promptlimits.lipschitz.invertibility import (
    BlockNorms,
    InputNorm,
    block_norms,
    certify_with,
    require_norm,
)
from promptlimits.lipschitz.rounding import ball, total
from promptlimits.lipschitz.weights import TransformerWeights

_Test: TypeAlias = Callable[[Fraction], bool]
_LEAST_EXPONENT: Final = -64
_MOST_EXPONENT: Final = 4096
_MANTISSA_STEPS: Final = 30


@dataclass(frozen=True, kw_only=True)
class PromptNormLimit:
    """D*, rounded down.

    Attributes:
        value: Proved for every radius up to this, or below this for the spectral norm; 0 if the
            condition fails at every radius; None if it holds at every radius.
        norm: What is limited: "token" (each token's length) or "spectral" (||[P, X]||_2).
    """

    value: Fraction | None
    norm: str


def prompt_norm_limit(
    weights: TransformerWeights, *, norm: InputNorm = "token", tokens: int | None = None
) -> PromptNormLimit:
    """D* by tokens: the largest radius at which X -> Y is proved one-to-one.

    Args:
        weights: The transformer.
        norm: In which the floor is meant; "token" gives the larger D*.
        tokens: Columns of [P, X]; for the Frobenius norm.

    Returns:
        D*, to within a part in 2^30; 0 where not even radius 2^-64 can be proved.

    Raises:
        UserError: The norm or the number of tokens is out of range.
    """
    require_norm(norm, tokens)
    norms = block_norms(weights)

    def proved(radius: Fraction) -> bool:
        found = certify_with(norms, masked=weights.masked, radius=radius, norm=norm, tokens=tokens)
        return found.floor > 0

    return PromptNormLimit(value=_largest(proved, norms), norm="token")


def spectral_prompt_norm_limit(weights: TransformerWeights, *, tokens: int) -> PromptNormLimit:
    """D* by the spectral norm, in closed form, for one layer.

    Args:
        weights: A transformer of one layer.
        tokens: n, columns of [P, X].

    Returns:
        D*, rounded down.

    Raises:
        UserError: There are several layers, or the number of tokens is out of range.
    """
    require_positive_int("tokens", tokens)
    if len(weights.layers) != 1:
        raise UserError(
            "the transformer",
            "have one layer for the closed form",
            got=f"{len(weights.layers)} layers",
            remedy="use prompt_norm_limit",
        )
    layer = weights.layers[0]
    norms = head_norms(layer.heads)
    with working_precision(PRECISION_BITS):
        values = total(map(ball, norms.value_norms)) * (2 if weights.masked else 1)
        pairs = zip(norms.value_norms, norms.score_norms, strict=True)
        slope = total(ball(v) * ball(a) for v, a in pairs)
        slope *= 1 + arb(min(layer.dim, tokens)).sqrt() / 2
        room = (1 - values).lower()
        if not room > 0 or branch_lipschitz(layer.w1, layer.w2, RELU) >= 1:
            return PromptNormLimit(value=Fraction(0), norm="spectral")
        if slope == 0:
            return PromptNormLimit(value=None, norm="spectral")
        mantissa, exponent = (room / slope).sqrt().lower().man_exp()
    value = Fraction(int(mantissa)) * Fraction(2) ** int(exponent)
    return PromptNormLimit(value=value, norm="spectral")


def _largest(proved: _Test, norms: tuple[BlockNorms, ...]) -> Fraction | None:
    """The largest radius of a falling test: its power of two first, then its digits."""
    if not proved(_power(_LEAST_EXPONENT)):
        return Fraction(0)
    if all(layer.free_of_radius for layer in norms):
        return None
    low, step = _LEAST_EXPONENT, 1
    while low + step < _MOST_EXPONENT and proved(_power(low + step)):
        low, step = low + step, 2 * step
    while step > 1:
        step //= 2
        low = low + step if proved(_power(low + step)) else low
    found, width = _power(low), _power(low)
    for _ in range(_MANTISSA_STEPS):
        width /= 2
        found = found + width if proved(found + width) else found
    return found


def _power(exponent: int) -> Fraction:
    return Fraction(2) ** exponent
