"""Geshkovski et al. 2023: attention on probability measures of a ball, as published.

**Statement** (Propositions 2.12 and 2.16 of [@meyer2025], which quote it). On measures on
B(0, r), mean-field single-head attention with A = W_k^T W_q and value matrix V is Lipschitz with
constant at most

    ||V|| (1 + 3 ||A|| r^2) exp(2 ||A|| r^2)

for W_2 (2.12), and, masked, for the position-aware distance d^m (2.16). Remark 2.13: for n
tokens in the ball the Frobenius constant of unmasked attention is at most the W_2 constant, as
W_2 of two uniform measures of n atoms is at most the Frobenius distance over n^(1/2), and equal
to it for near ones.

*2.12 holds*, for W_q with any q >= 1 and, for the map x -> x + Att(x) with a residual, with 1
more: see `attention.meanfield_bound`, which is never larger.

*2.16 does not hold* if d^m is the q-th mean over positions of W_q between the tokens of a
position, q = 2, which for n tokens in uniform positions is the Frobenius distance over n^(1/2):
A = 0 and V = I make attention the running mean, whose norm for n = 2 is 1.144, and tends to 2
(Hardy) as n grows, while the formula gives 1. For q = 1 it is unbounded. It is printed here as
published, its assumption marked as false, and never composed into a bound.

*Tightness.* Exponential in ||A|| r^2 where the token norm needs no more than a linear term.

Deviations from [@meyer2025]: (1) V is W_o W_v. (2) The heads' constants are added.
"""

from __future__ import annotations

from typing import Final

from flint import arb

from promptlimits.base.bound import (
    PRECISION_BITS,
    Assumption,
    Exact,
    LogBound,
    Source,
    working_precision,
)
from promptlimits.lipschitz.balls.rounding import ball, require_radius, total, upper_log_bound
from promptlimits.lipschitz.paper.attention import ASSUMPTIONS
from promptlimits.lipschitz.paper.head_norms import HeadNorms, head_norms
from promptlimits.nets.paper.weights import LayerWeights

MASKED_AS_CONTRACTION: Final = Assumption(
    text="Running means over positions do not expand the position-aware distance d^m (they do: "
    "A = 0, V = I, two tokens).",
    holds=False,
)


def geshkovski2023_limit(norms: HeadNorms, radius: Exact) -> arb:
    """The constant, heads added, as a ball at the current precision."""

    def one_head(value_norm: arb, beta: arb) -> arb:
        return value_norm * (1 + 3 * beta) * (2 * beta).exp()

    return total(
        one_head(ball(w), ball(a) * ball(radius) ** 2)
        for w, a in zip(norms.value_norms, norms.score_norms, strict=True)
    )


def geshkovski2023_bound(layer: LayerWeights, radius: Exact, *, masked: bool = False) -> LogBound:
    """The published constant of mean-field attention of one layer, for W_2."""
    require_radius(radius)
    norms = head_norms(layer.heads)
    with working_precision(PRECISION_BITS):
        limit = geshkovski2023_limit(norms, radius)
    return upper_log_bound(
        limit,
        quantity=f"Lipschitz constant of mean-field attention ({'d^m' if masked else 'W_2'})",
        source=Source(
            reference="geshkovski2023",
            statement=f"Proposition {'2.16' if masked else '2.12'} of meyer2025",
            form="as published",
        ),
        assumptions=(*ASSUMPTIONS, MASKED_AS_CONTRACTION) if masked else ASSUMPTIONS,
    )
