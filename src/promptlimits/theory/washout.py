"""Long bounded prompts wash the query out: Theorem W.

**Statement.** Two queries of m >= 2 tokens end with the same token. All tokens that enter layer
l, behind a prompt of m_p tokens, have norm at most r_l; masked or not, any depth. Then the last
outputs differ by at most E = E_depth, E_0 = 0,
E_l = Lambda_l (E_(l-1) + sum_i ||V_i|| min(2 r_l, (1 + 2 ||A_i|| r_l^2) E_(l-1) + 4 r_l b_i)),
b_i = c_i/(c_i + m_p + 1), c_i = (m - 1) e^(2 ||A_i|| r_l^2): E = O(m/m_p). Hence for answers y, y'
one of the two errors is at least (|y - y'| - E)/2: answers further apart than E + 2 eps cannot be
kept within eps, by any such prompt.
*Proof.* E_l limits the difference of the tokens that both runs share: the prompt's and the last.
The softmax mass of the m - 1 others is at most b_i, as e^(y.Ax) lies between e^(-a r) and
e^(a r), a = ||A_i|| r. Leaving them out changes a head's output by at most 2 r ||V_i|| b_i in
either run. What then attends to shared tokens only, moved by at most E_(l-1), changes by at most
||V_i|| (1 + 2 ||A_i|| r^2) E_(l-1). In any case both outputs lie in the ball ||V_i|| r. []
In a masked transformer prompt tokens see no query, and the same holds.

**Where we differ** from corrected.md: m - 1 tokens differ, not m; the shared last token counts
with the prompt; b_i is the mass itself, not min(1, m e^(2ar)/m_p); no head changes by more than
2 r ||V_i||. The least E over both forms is this one.

**Tightness.** Measured differences fall like 1/m_p as well. **Cost.** Microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from flint import arb

from promptlimits.base.bound import (
    Assumption,
    Certificate,
    Exact,
    LogBound,
    Source,
    working_precision,
)
from promptlimits.base.checks import require_positive_int
from promptlimits.base.errors import UserError
from promptlimits.theory.grid_logs import grid_upper
from promptlimits.theory.last_tokens_capacity import require_layer_sizes
from promptlimits.theory.layer_constants import LayerConstants
from promptlimits.theory.prompt_setting import require_exact_positive

SOURCE: Final = Source(
    reference="promptlimits",
    statement="Theorem W (promptlimits.theory.washout)",
    form="proved here",
)
ASSUMPTIONS: Final = (
    (
        "Every token that enters a layer, of the prompt or of either query, has norm at most the "
        "given radius, and each layer has the given limits."
    ),
    (
        "Both queries have the given number of tokens at most, end with the same token, and "
        "follow the same prompt of the given length."
    ),
)
_BITS: Final = 256
_REFINED_BITS: Final = 50


@dataclass(frozen=True, kw_only=True)
class Washout:
    """The outcome of Theorem W at one prompt length.

    Attributes:
        difference: Upper limit on E, how far the two last outputs can be apart.
        layers: Upper limits on E_1 .. E_depth.
        certificate: What its checker needs.
    """

    difference: LogBound
    layers: tuple[LogBound, ...]
    certificate: Certificate

    def least_error(self, gap: Exact) -> LogBound | None:
        """Lower limit (gap - E)/2 on the larger of the two errors.

        Args:
            gap: |y - y'|, how far the two answers are apart.

        Returns:
            The limit, or None where it is not above 0.
        """
        require_exact_positive("gap", gap)
        with working_precision(_BITS):
            error = (_ball(Fraction(gap)) - self.difference.log.exp()) / 2
            if not error > 0:
                return None
            log = error.log()
        return LogBound(
            direction="lower",
            log=log,
            quantity="the larger of the two errors",
            source=SOURCE,
            assumptions=self.difference.assumptions,
            factors=(self.difference,),
        )


def washout(*, layers: Sequence[LayerConstants], query_tokens: int, prompt_tokens: int) -> Washout:
    """Theorem W: how little the query can matter behind a prompt of so many tokens.

    Args:
        layers: From the first to the last.
        query_tokens: m, 2 or more: a shared last token and others before it.
        prompt_tokens: m_p.

    Returns:
        The limits and their certificate.

    Raises:
        UserError: A value is out of range.
    """
    _require(layers, query_tokens)
    require_positive_int("prompt_tokens", prompt_tokens)
    assumptions = tuple(Assumption(text=text) for text in ASSUMPTIONS)
    bounds = tuple(
        _after(layers[:depth], query_tokens, prompt_tokens, assumptions)
        for depth in range(1, len(layers) + 1)
    )
    return Washout(
        difference=bounds[-1],
        layers=bounds,
        certificate=Certificate(
            kind="washout",
            bound=bounds[-1],
            inputs={
                "layers": [layer.to_json() for layer in layers],
                "query_tokens": query_tokens,
                "prompt_tokens": str(prompt_tokens),
            },
        ),
    )


def _after(
    layers: Sequence[LayerConstants],
    query_tokens: int,
    prompt_tokens: int,
    assumptions: tuple[Assumption, ...],
) -> LogBound:
    return LogBound(
        direction="upper",
        log=grid_upper(lambda: _differences(layers, query_tokens, prompt_tokens).log()),
        quantity=f"difference of the last token's outputs after layer {len(layers)}",
        source=SOURCE,
        assumptions=assumptions,
    )


def washed_out_from(
    *, layers: Sequence[LayerConstants], query_tokens: int, gap: Exact, eps: Exact = 0
) -> int:
    """A prompt length from which on two answers `gap` apart cannot both be kept within eps.

    E falls with m_p. The length is the least one for which E + 2 eps < gap is proved, to its
    leading 50 bits, rounded up.
    """
    _require(layers, query_tokens)
    room = Fraction(require_exact_positive("gap", gap)) - 2 * Fraction(eps)
    if eps < 0 or room <= 0:
        raise UserError(
            "eps", "be at least 0 and below half the gap", got=eps, remedy="take a smaller one"
        )

    def proved(length: int) -> bool:
        with working_precision(_BITS):
            return bool(_differences(layers, query_tokens, length) < _ball(room))

    bits = 1
    while not proved(1 << bits):
        bits *= 2
    low, high = bits // 2, bits
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if proved(1 << middle) else (middle, high)
    step = 1 << max(0, high - _REFINED_BITS)
    below, enough = 0, (1 << high) // step
    while enough - below > 1:
        middle = (below + enough) // 2
        below, enough = (below, middle) if proved(middle * step) else (middle, enough)
    return enough * step


def _differences(layers: Sequence[LayerConstants], query_tokens: int, prompt_tokens: int) -> arb:
    """E at the current precision."""
    error = arb(0)
    for layer in layers:
        radius = _ball(Fraction(layer.radius))
        moved = error
        for value_norm, score_norm in layer.heads:
            steep = 2 * score_norm * Fraction(layer.radius) ** 2
            others = (query_tokens - 1) * _ball(steep).exp()
            mass = 1 / (1 + (prompt_tokens + 1) / others)
            change = _ball(1 + steep) * error + 4 * radius * mass
            moved += _ball(Fraction(value_norm)) * change.min(2 * radius)
        error = _ball(Fraction(layer.mlp_lipschitz)) * moved
    return error


def _ball(value: Fraction) -> arb:
    return arb(value.numerator) / value.denominator


def _require(layers: Sequence[LayerConstants], query_tokens: int) -> None:
    require_layer_sizes(layers)
    if require_positive_int("query_tokens", query_tokens) < 2:
        raise UserError(
            "query_tokens",
            "be 2 or more",
            got=query_tokens,
            remedy="queries of one token that end alike are the same query",
        )
