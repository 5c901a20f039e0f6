"""What prompts of any length can make of whole output measures: Theorems 2a and 2b.

**Setting.** Theta = B^d(0, r). The mean-field map T of the transformer is L-Lipschitz for W_q on
P(Theta). Queries X^1..X^k have m tokens in Theta. A tuple of targets is accessible if one
prompt, of any length, with tokens in Theta, has W_q(Y^i, T(M([P, X^i]))) <= eps for all i. The
outputs compared are whole: they contain the prompt's own (definition 4.5 of the paper).

**Theorem 2a.** Let F be the family of Lemma C_out with rho = eps + delta, and C_in the number of
Lemma C_in. The share of the tuples in F^k that are accessible is at most C_in e^(-kH). It is
below 1 for k > K = log C_in / H.
*Proof.* If Y is accessible by P and the net's tuple of P is (nu_i), then
W_q(Y^i, T(nu_i)) <= eps + L delta/L for each i. So Y^i lies in a ball of radius eps + delta: at
most |F| e^-H choices for each i, and C_in tuples. []

**Theorem 2b.** Let S be a code of e^H words of that family (kappa = 1), pairwise more than
2 (eps + delta) apart, Q = (L D/(2 delta))^q, D >= max W_q(M(X^i), M(X^j)) (at most 2r), and
M = max(0, m (Q - 1)). The share of S^k that is accessible is at most
e^(-(k-1)H) (1 + (M + 1)(1 + 2Lr/delta)^(dM) e^-H).
*Proof.* Y not constant: some Y^i, Y^j are more than 2 (eps + delta) apart, so
2 delta < W_q(T nu_i, T nu_j) <= L (m/(m_p + m))^(1/q) D, that is m_p < M. For each of at most
M + 1 such lengths the prompts have a net of (1 + 2Lr/delta)^(d m_p) points at largest-token
distance delta/L, which W_q does not exceed; one point serves one word for each i. Constant
tuples are |S| of |S|^k. If M = 0 no other tuple is accessible. []

2b is far stronger where d is moderate: its threshold is hardly above 1, because whole outputs
that all contain the prompt are nearly the same. To keep the last tokens only, see
`last_tokens_capacity`.

**Where we differ from the paper**: see `context_published`. The shares are of a finite family:
no measure on P(Theta) is given. 2a is invariant under (r, eps) -> (c r, c eps).

**Tightness.** The exponent d of log K ~ d log(4L) comes from both lemmas; the constant is not
known to be right. **Cost.** A search in floats of some 10^4 evaluations, then one in balls.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, TypeAlias

from flint import arb

from promptlimits.base.bound import (
    Assumption,
    Certificate,
    Exact,
    LogBound,
    Source,
    log_ball,
    product,
    working_precision,
)
from promptlimits.base.checks import require_positive_int
from promptlimits.base.errors import UserError
from promptlimits.base.typing import JsonObject
from promptlimits.theory.context_published import log_lipschitz
from promptlimits.theory.grid_logs import grid_upper
from promptlimits.theory.prompt_setting import require_exact_positive
from promptlimits.theory.wasserstein import (
    Cover,
    MeasureFamily,
    context_cover,
    measure_family,
    order_of,
    require_measures,
)
from promptlimits.theory.whole_output_search import Case, Choice, best_choice

Theorem: TypeAlias = Literal["2a", "2b"]

SOURCES: Final = {
    name: Source(
        reference="promptlimits",
        statement=f"Theorem {name} (promptlimits.theory.whole_output_capacity)",
        form="corrected",
    )
    for name in ("2a", "2b")
}
ASSUMPTIONS: Final = (
    (
        "The mean-field map of the whole transformer has the given Lipschitz constant for W_q on "
        "the measures on the ball of the given radius."
    ),
    "All tokens of prompts and queries lie in that ball, and all queries have as many tokens.",
    (
        "Targets are drawn uniformly from the family of the theorem, and whole outputs, the "
        "prompt's own included, are compared in W_q."
    ),
)
_CAP: Final = -1000
"""Where e^z is added to 1 a z below this is replaced by it: larger, and still nothing."""


@dataclass(frozen=True, kw_only=True)
class WholeOutputCapacity:
    """The outcome of Theorem 2a or 2b.

    Attributes:
        theorem: "2a" or "2b".
        threshold: Upper limit on K: for k > K the accessible share is below 1.
        choice: The free parameters.
        delta: delta itself.
        family: The targets (Lemma C_out).
        contexts: log C_in for 2a (a limit on its logarithm); None for 2b.
        certificate: What its checker needs.
    """

    theorem: Theorem
    threshold: LogBound
    choice: Choice
    delta: Fraction
    family: MeasureFamily
    contexts: LogBound | None
    certificate: Certificate

    def share_accessible(self, pairs: int) -> LogBound:
        """Upper limit on the share of tuples of `pairs` targets that prompts of any length serve.

        Args:
            pairs: k.

        Returns:
            The limit; above 1 it says nothing.

        Raises:
            UserError: k is no whole number above 0.
        """
        require_positive_int("pairs", pairs)
        with working_precision(4096):
            nats = self.family.log_nats.log.exp()
            if self.contexts is not None:
                log = self.contexts.log.exp() - pairs * nats
            else:
                # K - 1 = log(1 + C' e^-H)/H, so the share is e^(-(k - K) H).
                log = (self.threshold.log.exp() - pairs) * nats
        return LogBound(
            direction="upper",
            log=log,
            quantity=f"share of the tuples of {pairs} targets that some prompt serves",
            source=self.threshold.source,
            assumptions=self.threshold.assumptions,
        )


def whole_output_capacity(
    *,
    dim: int,
    lipschitz: Exact | LogBound,
    radius: Exact,
    eps: Exact,
    order: Exact,
    cover: Cover = "volume",
    largest_list: int | None = None,
    choice: Choice | None = None,
) -> WholeOutputCapacity:
    """Theorem 2a at the best free parameters that a search in floats finds.

    Args:
        dim: d.
        lipschitz: L for W_q, exact or as an upper limit.
        radius: r.
        eps: The error allowed, below r/2.
        order: q.
        cover: How Theta is covered; "rogers" is tighter by up to 2^d and rests on a citation.
        largest_list: Greatest kappa; d/2 if None.
        choice: The free parameters; searched if None.

    Returns:
        The threshold and its certificate.

    Raises:
        UserError: A value is out of range.
    """
    _require(dim, lipschitz, radius, eps, order)
    most = max(1, dim // 2) if largest_list is None else largest_list
    if choice is None:
        choice = _searched(dim, lipschitz, radius, eps, order, cover, most)
    delta = choice.delta * Fraction(radius)
    family = _family(dim, radius, Fraction(eps) + delta, order, choice)
    contexts = context_cover(
        dim=dim,
        radius=radius,
        reach=delta,
        log_lipschitz=lambda: log_lipschitz(lipschitz),
        order=order,
        share=choice.cover_share,
        cover=cover,
    )
    inverse = family.log_nats.power(-1, quantity="1/H")
    threshold = _assumed(
        product(
            (contexts, inverse),
            quantity="pairs beyond which the share is below 1 (K)",
            source=SOURCES["2a"],
            precision_bits=4096,
        ),
    )
    inputs = _inputs("2a", dim, lipschitz, radius, eps, order, choice, family) | {
        "cover": cover,
        "cover_share": str(choice.cover_share),
        "tokens": None,
        "spread": None,
    }
    return WholeOutputCapacity(
        theorem="2a",
        threshold=threshold,
        choice=choice,
        delta=delta,
        family=family,
        contexts=contexts,
        certificate=Certificate(kind="context_capacity", bound=threshold, inputs=inputs),
    )


def short_prompt_capacity(
    *,
    dim: int,
    lipschitz: Exact | LogBound,
    radius: Exact,
    eps: Exact,
    order: Exact,
    tokens: int,
    spread: Exact | None = None,
    choice: Choice | None = None,
) -> WholeOutputCapacity:
    """Theorem 2b: the same objective, exponentially better.

    Args:
        dim: d.
        lipschitz: L for W_q, exact or as an upper limit.
        radius: r.
        eps: The error allowed, below r/2.
        order: q.
        tokens: m, tokens of each query.
        spread: D, upper limit on W_q(M(X^i), M(X^j)); 2r if None.
        choice: The free parameters (kappa = 1); the best of a few if None.

    Returns:
        The threshold and its certificate.

    Raises:
        UserError: A value is out of range.
    """
    _require(dim, lipschitz, radius, eps, order)
    require_positive_int("tokens", tokens)
    wide = 2 * Fraction(radius) if spread is None else Fraction(spread)
    require_exact_positive("spread", wide)

    def at(chosen: Choice) -> tuple[MeasureFamily, arb]:
        found = _family(dim, radius, Fraction(eps) + chosen.delta * radius, order, chosen)
        delta = chosen.delta * Fraction(radius)
        return found, grid_upper(
            lambda: _log_threshold_2b(
                dim, log_lipschitz(lipschitz), radius, delta, order, tokens, wide, found
            )
        )

    if choice is None:
        start = _searched(dim, lipschitz, radius, eps, order, "volume", 1)
        choice = min(_near(start, radius, eps, dim, order), key=lambda c: float(at(c)[1]))
    if choice.list_size != 1:
        raise UserError(
            "list_size", "be 1 for Theorem 2b", got=choice.list_size, remedy="it needs a code"
        )
    family, log = at(choice)
    threshold = _assumed(
        LogBound(
            direction="upper",
            log=log,
            quantity="pairs beyond which the share is below 1 (K)",
            source=SOURCES["2b"],
            factors=(family.log_nats,),
        ),
        f"Each query has {tokens} tokens, and W_{Fraction(order)} between any two of them is at "
        f"most {wide}.",
    )
    inputs = _inputs("2b", dim, lipschitz, radius, eps, order, choice, family) | {
        "cover": None,
        "cover_share": None,
        "tokens": tokens,
        "spread": str(wide),
    }
    return WholeOutputCapacity(
        theorem="2b",
        threshold=threshold,
        choice=choice,
        delta=choice.delta * Fraction(radius),
        family=family,
        contexts=None,
        certificate=Certificate(kind="context_capacity", bound=threshold, inputs=inputs),
    )


def _log_threshold_2b(
    dim: int,
    log_constant: arb,
    radius: Exact,
    delta: Fraction,
    order: Exact,
    tokens: int,
    spread: Fraction,
    family: MeasureFamily,
) -> arb:
    """log K, K = 1 + log(1 + (M + 1)(1 + 2Lr/delta)^(dM) e^-H)/H; log K = 0 if M = 0."""
    longer = (order_of(order) * (log_constant + log_ball(spread / (2 * delta)))).expm1()
    if longer <= 0:  # for sure; where it is open, a length of 0 is counted
        return arb(0)
    longest = tokens * longer
    net = (log_constant + log_ball(2 * Fraction(radius) / delta)).exp().log1p()
    nats = family.log_nats.log.exp()
    excess = longest.log1p() + dim * longest * net - nats
    # log(1 + e^z) = z + log(1 + e^-z) keeps z of any size; far below 0 the cap is an upper limit.
    if excess > 0:
        grown = excess + (-excess.min(arb(-_CAP))).exp().log1p()
    else:
        grown = excess.max(arb(_CAP)).exp().log1p()
    return (grown / nats).log1p()


def _near(start: Choice, radius: Exact, eps: Exact, dim: int, order: Exact) -> list[Choice]:
    """Choices with smaller and larger delta that leave room for two blocks."""
    found = []
    for exponent in range(-8, 9):
        delta = start.delta * Fraction(2) ** exponent
        chosen = Choice(
            delta=delta,
            cover_share=start.cover_share,
            alphabet=start.alphabet,
            theta=start.theta,
            list_size=1,
        )
        try:
            _family(dim, radius, Fraction(eps) + delta * radius, order, chosen)
        except UserError:
            continue
        found.append(chosen)
    return found


def _searched(
    dim: int,
    lipschitz: Exact | LogBound,
    radius: Exact,
    eps: Exact,
    order: Exact,
    cover: Cover,
    largest_list: int,
) -> Choice:
    with working_precision(128):
        logs = [float(log_ball(value)) for value in (radius, eps)]
        constant = float(log_lipschitz(lipschitz))
    return best_choice(
        Case(
            dim=dim,
            order=float(order),
            log_lipschitz=constant,
            log_radius=logs[0],
            log_eps=logs[1],
            rogers=cover == "rogers",
            largest_list=largest_list,
        )
    )


def _family(dim: int, radius: Exact, ball: Fraction, order: Exact, choice: Choice) -> MeasureFamily:
    return measure_family(
        dim=dim,
        radius=radius,
        ball=ball,
        order=order,
        alphabet=choice.alphabet,
        theta=choice.theta,
        list_size=choice.list_size,
    )


def _require(
    dim: int, lipschitz: Exact | LogBound, radius: Exact, eps: Exact, order: Exact
) -> None:
    require_measures(dim, radius, order)
    require_exact_positive("eps", eps)
    if not isinstance(lipschitz, LogBound):
        require_exact_positive("lipschitz", lipschitz)
    elif lipschitz.direction != "upper":
        raise UserError(
            "lipschitz", "be an upper limit", got="a lower one", remedy="give a proved constant"
        )
    if 2 * Fraction(eps) >= radius:
        raise UserError(
            "eps",
            "be below half the radius",
            got=f"{eps} with a radius of {radius}",
            remedy="such an error leaves too few targets that differ",
        )


def _assumed(bound: LogBound, *more: str) -> LogBound:
    return LogBound(
        direction=bound.direction,
        log=bound.log,
        quantity=bound.quantity,
        source=bound.source,
        assumptions=tuple(Assumption(text=text) for text in (*ASSUMPTIONS, *more)),
        factors=bound.factors,
    )


def _inputs(
    theorem: Theorem,
    dim: int,
    lipschitz: Exact | LogBound,
    radius: Exact,
    eps: Exact,
    order: Exact,
    choice: Choice,
    family: MeasureFamily,
) -> JsonObject:
    return {
        "theorem": theorem,
        "dim": dim,
        "lipschitz": (
            lipschitz.to_json()["log"]
            if isinstance(lipschitz, LogBound)
            else str(Fraction(lipschitz))
        ),
        "radius": str(Fraction(radius)),
        "eps": str(Fraction(eps)),
        "order": str(Fraction(order)),
        "delta": str(choice.delta * Fraction(radius)),
        "alphabet": choice.alphabet,
        "theta": str(choice.theta),
        "list_size": choice.list_size,
        "blocks": None if family.blocks is None else str(family.blocks),
    }
