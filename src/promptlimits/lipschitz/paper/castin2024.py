"""Castin, Ablin and Peyré 2024: attention in the Frobenius norm, as published.

**Statement** (Propositions 2.11 and 2.15 of [@meyer2025], which quote it). With n tokens in a
ball of radius r, single-head attention with A = W_k^T W_q and value matrix V is Lipschitz in the
Frobenius norm, masked or not, with constant at most

    sqrt(3) ||V|| ( ||A||^2 r^4 (4 n + 1) + n )^(1/2).

*Which ball.* Each token lies in B(0, r) of R^d, so the domain is a product of n balls, and no
limit on the Frobenius norm of the whole matrix. [@meyer2025] writes B^n(0, r) for it.

*It holds so.* It follows from Theorem B of `attention`, with N = n and looser steps:
beta + (n (1 + beta^2))^(1/2) <= beta + n^(1/2) + n^(1/2) beta
<= sqrt(3) (beta^2 + n + n beta^2)^(1/2), beta = ||A|| r^2.

*Tightness.* Growth like n^(1/2) is attained while n <= 1 + exp(2 r^2 gamma); with
its residual and MLP, one layer of random weights stays 25 to 75 times below it in a search.

Deviations from [@meyer2025]: (1) V is W_o W_v, as Definition 2.1 has an output matrix. (2) The
heads' constants are added; the statement is for one head. (3) The paper keeps one radius for
all layers, which is not proved: tokens leave the ball. `compose` has both, labelled.
"""

from __future__ import annotations

from flint import arb

from promptlimits.base.bound import PRECISION_BITS, Exact, LogBound, Source, working_precision
from promptlimits.base.checks import require_positive_int
from promptlimits.lipschitz.balls.rounding import ball, require_radius, total, upper_log_bound
from promptlimits.lipschitz.paper.attention import ASSUMPTIONS
from promptlimits.lipschitz.paper.head_norms import HeadNorms, head_norms
from promptlimits.nets.paper.weights import LayerWeights


def castin2024_limit(norms: HeadNorms, radius: Exact, tokens: int) -> arb:
    """The constant, heads added, as a ball at the current precision."""
    return total(
        arb(3).sqrt()
        * ball(w)
        * ((ball(a) * ball(radius) ** 2) ** 2 * (4 * tokens + 1) + tokens).sqrt()
        for w, a in zip(norms.value_norms, norms.score_norms, strict=True)
    )


def castin2024_bound(
    layer: LayerWeights, radius: Exact, *, tokens: int, masked: bool = False
) -> LogBound:
    """The published Frobenius constant of the attention of one layer."""
    require_radius(radius)
    require_positive_int("tokens", tokens)
    norms = head_norms(layer.heads)
    with working_precision(PRECISION_BITS):
        limit = castin2024_limit(norms, radius, tokens)
    number = "2.15" if masked else "2.11"
    return upper_log_bound(
        limit,
        quantity="Lipschitz constant of attention (Frobenius norm)",
        source=Source(
            reference="castin2024",
            statement=f"Proposition {number} of meyer2025",
            form="as published",
        ),
        assumptions=ASSUMPTIONS,
    )
