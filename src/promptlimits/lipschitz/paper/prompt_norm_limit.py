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

*Cost:* norms of the layers once; then some 60 evaluations of a formula. Its dear part is the
mixing limit m(c) = max over |u| = 1 of sum_h c_h |W_h^T u|, monotone and homogeneous in c >= 0:
m(c) <= m(c') max_h c_h/c'_h. So limits already proved at nearby c' are used again. For large
layers "nearby" is a part in 2^7, and D* is smaller by some percent at most.
Source: proved here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final, TypeAlias

from flint import arb

from promptlimits.base.bound import PRECISION_BITS
from promptlimits.base.errors import UserError, require_positive_int
from promptlimits.base.exact import working_precision
from promptlimits.lipschitz.balls.rounding import ball, lower, total
from promptlimits.lipschitz.paper.feedforward import LayerNorms, branch_lipschitz, layer_norms
from promptlimits.lipschitz.paper.head_norms import HeadNorms, head_norms
from promptlimits.lipschitz.paper.invertibility import InputNorm, certify_with, require_norm
from promptlimits.nets.paper.weights import TransformerWeights

_Test: TypeAlias = Callable[[Fraction], bool]
_LEAST_EXPONENT: Final = -64
_MOST_EXPONENT: Final = 4096
_MANTISSA_STEPS: Final = 30
_LARGE: Final = 2**19
"""Layers times heads times d^2 from which a few digits of D* are enough."""

_FINE: Final = Fraction(1, 2**40)
_COARSE: Final = Fraction(1, 2**7)


@dataclass(frozen=True, kw_only=True)
class PromptNormLimit:
    """D*, rounded down."""

    # Proved for every radius up to this, or below this for the spectral norm; 0 if the condition
    # fails at every radius; None if it holds at every radius.
    value: Fraction | None
    norm: str  # what is limited: "token" (each token's length) or "spectral" (||[P, X]||_2)


def prompt_norm_limit(
    weights: TransformerWeights,
    *,
    norm: InputNorm = "token",
    tokens: int | None = None,
    norms: Sequence[LayerNorms] | None = None,
) -> PromptNormLimit:
    """D* by tokens: the largest radius at which X -> Y is proved one-to-one."""
    require_norm(norm, tokens)
    size = weights.dim**2 * sum(len(layer.heads) for layer in weights.layers)
    slack, steps = (_COARSE, 8) if size >= _LARGE else (_FINE, _MANTISSA_STEPS)
    known = [
        replace(layer, heads=_remembering(layer.heads, slack))
        for layer in (layer_norms(weights) if norms is None else norms)
    ]

    def proved(radius: Fraction) -> bool:
        # The first layer's constant at 1 or more leaves no floor: the others need no look.
        for part in (known[:1], known):
            found = certify_with(
                part, masked=weights.masked, radius=radius, norm=norm, tokens=tokens
            )
            if found.floor == 0:
                return False
        return True

    return PromptNormLimit(value=_largest(proved, known, steps), norm="token")


def spectral_prompt_norm_limit(weights: TransformerWeights, *, tokens: int) -> PromptNormLimit:
    """D* by the spectral norm, in closed form, for one layer."""
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
        if not room > 0 or branch_lipschitz(layer.w1, layer.w2) >= 1:
            return PromptNormLimit(value=Fraction(0), norm="spectral")
        if slope == 0:
            return PromptNormLimit(value=None, norm="spectral")
        return PromptNormLimit(value=lower((room / slope).sqrt()), norm="spectral")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Remembering(HeadNorms):
    """Norms of heads whose mixing limits are used again at nearby costs."""

    slack: Fraction  # by which part such a limit may be larger than a new one
    # Costs and their limits.
    proved: list[tuple[tuple[arb, ...], arb]] = field(default_factory=list)

    def mixing(self, costs: Sequence[arb]) -> arb:
        """Upper limit on max over unit u of sum_h c_h |W_h^T u|; see `HeadNorms`."""
        for known, limit in self.proved:
            ratios = [c / k for c, k in zip(costs, known, strict=True)]
            most = max(ratio.upper() for ratio in ratios)
            if most <= min(ratio.lower() for ratio in ratios) * (1 + ball(self.slack)):
                return limit * most
        limit = super().mixing(costs)
        if all(cost > 0 for cost in costs):
            self.proved.append((tuple(costs), limit))
        return limit


def _remembering(heads: HeadNorms, slack: Fraction) -> HeadNorms:
    return _Remembering(**vars(heads), slack=slack)


def _largest(proved: _Test, norms: Sequence[LayerNorms], steps: int) -> Fraction | None:
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
    for _ in range(steps):
        width /= 2
        found = found + width if proved(found + width) else found
    return found


def _power(exponent: int) -> Fraction:
    return Fraction(2) ** exponent
