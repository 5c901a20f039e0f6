"""How many trained numbers memorisation takes: prompts and LoRA, after wang2023.

**Prompts (after its Theorem 3; the proof is given here).** Single layer, h heads, d numbers per
token. For every n <= d - h there are n inputs of two tokens and targets for the last one that no
prompt of fewer than n/h tokens meets exactly. (One head: m_p >= n for n < d.)

*Proof.* Take w with V_1 w, .., V_h w, t_1, .., t_n independent, V_i = W_o^i W_v^i; that is room
for n + h <= d vectors. Let both tokens of every input be multiples of w, so that what a head
adds from the input is a multiple of V_i w, and let the target of input j be MLP(x_j + t_j), with
||W_1|| ||W_2|| < 1, so that the MLP is one to one. Success means that t_j less a combination of
the V_i w lies in the sum of V_i span(P) over the heads, of dimension at most h m_p. These n
vectors are independent, so h m_p >= n. []

**LoRA (its Lemma 5).** With n or more hidden neurons and distinct vectors after attention, a
change of the MLP by (n + 1) d + 2 n numbers memorises n last tokens: one direction and n
thresholds that order the inputs, one scale for each neuron, n columns of W_2.

**What the comparison says.** Both are of order n d: on that data set a prompt needs at least
n d/h numbers, LoRA manages with (n + 1) d + 2 n. The counts alone do not put LoRA ahead, for one
head n d < (n + 1) d + 2 n; what does is that LoRA's always suffice, and a prompt's do not: for
some data no length does (wang2023, Theorem 2).

**Universality (lower bound, proved here).** Let F be the maps [0,1]^(d x m) -> [0,1]^(d x m)
that are L-Lipschitz in an entrywise p-norm. Suppose that for each of them a prompt of a ball of
radius R (dimension d m_p) brings a transformer within eps of it, uniformly, and that the
transformer's output, uniformly in its input, is Lam-Lipschitz in the prompt. For every c > 2
with c eps < 1 and q = ceil(L/(2 c eps)) - 1 >= 1,

    q^(d m) log 2 <= d m_p log(1 + 2 R Lam/((c - 2) eps)).

*Proof.* On a grid of q cells a side put, in one output coordinate, a bump of height
min(1, L/(2 q)) > c eps and slope L in the sup norm (which no p-norm is below) or no bump: the
2^(q^(dm)) sums are in F, since bumps meet at 0, and differ somewhere by more than c eps.
Prompts for two of them differ in output by more than (c - 2) eps, so they are more than
(c - 2) eps/Lam apart, and disjoint balls of half that radius count them. []
c = 3 is the usual choice; the best of several is taken. Where q is L/(2 c eps) itself, one less
is needed for the difference to be strict. Exponential in d m, up to the logarithm.

**Cost.** Microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Final

from promptlimits.base.bound import (
    PRECISION_BITS,
    Exact,
    LogBound,
    Source,
    log_ball,
    require_exact_positive,
    short,
)
from promptlimits.base.errors import UserError, require_positive_int
from promptlimits.base.exact import ball, working_precision

PROMPT_SOURCE: Final = Source(
    reference="wang2023", statement="Theorem 3, any number of heads", form="proved here"
)
LORA_SOURCE: Final = Source(reference="wang2023", statement="Lemma 5", form="proved here")
UNIVERSALITY_SOURCE: Final = Source(
    reference="promptlimits",
    statement="universality lower bound (promptlimits.bounds.prompt_parameters)",
    form="proved here",
)

# c - 2 as powers of two: below 2^-64 the gain in q is over and the logarithm only grows.
_SEPARATIONS: Final = tuple(2 + Fraction(2) ** power for power in range(6, -65, -1))


@dataclass(frozen=True, kw_only=True)
class TrainedNumbers:
    """What memorising n last tokens takes on the data set of the theorem."""

    prompt_tokens: int  # no shorter prompt does
    prompt_numbers: int  # numbers in a prompt of that length; necessary
    lora_numbers: int  # numbers with which a change of the MLP does; sufficient


def trained_numbers(*, pairs: int, dim: int, heads: int = 1) -> TrainedNumbers:
    """Prompts and LoRA on the data set of the theorem."""
    require_positive_int("pairs", pairs)
    require_positive_int("heads", heads)
    if pairs > require_positive_int("dim", dim) - heads:
        raise UserError(
            "pairs",
            f"be at most dim less heads, {dim - heads}",
            got=pairs,
            remedy="the data set of the theorem needs that many independent directions",
        )
    tokens = -(-pairs // heads)
    return TrainedNumbers(
        prompt_tokens=tokens,
        prompt_numbers=tokens * dim,
        lora_numbers=(pairs + 1) * dim + 2 * pairs,
    )


def universality_lower_bound(
    *,
    dim: int,
    tokens: int,
    lipschitz: Exact,
    eps: Exact,
    prompt_radius: Exact,
    prompt_lipschitz: Exact,
) -> LogBound | None:
    """Prompt tokens that any universal transformer of that kind needs at least."""
    numbers = require_positive_int("dim", dim) * require_positive_int("tokens", tokens)
    quantities = {
        "lipschitz": lipschitz,
        "eps": eps,
        "prompt_radius": prompt_radius,
        "prompt_lipschitz": prompt_lipschitz,
    }
    for name, value in quantities.items():
        require_exact_positive(name, value)
    if 2 * eps >= 1:
        raise UserError(
            "eps", "be below 1/2", got=short(eps), remedy="answering 1/2 meets every target"
        )
    reach = 2 * Fraction(prompt_radius) * prompt_lipschitz / eps
    limits = []
    with working_precision(PRECISION_BITS):
        for separation in _SEPARATIONS:
            cells = ceil(Fraction(lipschitz) / (2 * separation * eps)) - 1
            if separation * eps < 1 and cells >= 1:
                balls = ball(reach / (separation - 2)).log1p().log()
                limits.append(numbers * log_ball(cells) + log_ball(2).log() - log_ball(dim) - balls)
    if not limits:
        return None
    return LogBound(
        direction="lower",
        log=max(limits, key=lambda limit: float(limit.mid())),
        quantity="prompt tokens of a universal transformer",
        source=UNIVERSALITY_SOURCE,
    )
