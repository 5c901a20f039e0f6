"""What prompts of any length can make of the last m output tokens: Theorem 2c.

**Setting.** A masked transformer of any depth, or an unmasked one of a single layer, with the
limits of `LayerConstants`; letters as there, B and g_l as in `amplifications`. *The radii cover
every context*: MLP_l(x + Gamma_mu(x)) has norm at most r_(l+1) for each x and each probability
measure mu on the r_l-ball, as `LayerConstants.next_radius` gives. Prompts, of any length, and
queries (m tokens each) lie in the r_1-ball. Targets are m tokens in balls of radius r, errors the
largest distance of a token. S = sum_l g_l sum_i 2 r_l ||V_i|| e^(2 ||A_i|| r_l^2).

**Theorem 2c.** Let delta_1 + delta_2 + delta_3 = delta < r - eps, n = (S/delta_1)^2 + 1, eta_l
with
sum_l g_l eta_l sum_i ||V_i|| (1 + ||A_i|| r_l^2) = delta_2. The share of all k targets (by volume)
that are accessible is at most
(m S/delta_3 + 2) prod_l (1 + 2 r_l/eta_l)^(d n) ((eps + delta)/r)^(d m k).
So it is below 1 for k > K, K polynomial in 1/delta and hardly dependent on d.

*Proof.* (1) Sampling: for mu on the r-ball there are n points of its support whose uniform
measure mu^ has |Gamma_mu(x) - Gamma_mu^(x)| <= 2 r ||V|| e^(2 ||A|| r^2)/sqrt(n) for all
|x| <= r at once. With w = A x, a = ||A|| r: e^(w.y) = <F(w/c), F(c y)> in Fock space,
c^2 = a/r, both norms at
most e^(ar/2). The mean of n draws of F(c y) (x) (1, y/r) has variance at most 2 e^(ar)/n, so some
draw is within sqrt(2) e^(ar/2)/sqrt(n). N/Z - N^/Z^ = ((N - N^) - (Z - Z^) N^/Z^)/Z with
Z >= e^(-ar), |N^/Z^| <= r gives 2 r e^(2ar)/sqrt(n). The same for alpha mu + (1 - alpha) xi and
alpha mu^ + (1 - alpha) xi. All heads and layers at once, for one draw of prompt positions, with
weights, by Cauchy-Schwarz: sum of g_l times the errors <= S/sqrt(n).
(2) Masked: the trajectories of prompt tokens do not depend on the query. Put n sampled ones, of
the same total weight, for all of them: query tokens move by E_l <= Lambda_l ((1 + B_l) E_(l-1) +
s_l), in all at most delta_1. (3) Move the n atoms of each layer to a net at eta_l: delta_2. The
atoms need not be trajectories any more. (4) Keep lengths m_p < m/beta as they are,
beta = delta_3/S; for
longer ones drop the query from the context: its softmax mass is at most
(1 - alpha) e^(2ar) <= beta e^(2ar) and outputs of heads differ by at most 2 r ||V||:
S beta = delta_3.
That makes ceil(m/beta) + 1 <= m S/delta_3 + 2 classes. (5) Each class has one output within delta
for each query: targets lie in balls of radius eps + delta. []

**Where we differ** from corrected.md: beta is twice as large (step 4 uses the softmax mass, not
total variation), radii are required for every context (step 3 leaves true trajectories).

**Tightness.** e^(4 ||A|| r^2) is the price of the worst case; sampling errors measured are some
50 times smaller. **Cost.** A search in floats, one evaluation in balls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
    log_ball,
    working_precision,
)
from promptlimits.base.checks import require_positive_int
from promptlimits.base.errors import UserError
from promptlimits.theory.grid_logs import grid_upper
from promptlimits.theory.layer_constants import LayerConstants, amplifications
from promptlimits.theory.prompt_setting import require_exact_positive, short

SOURCE: Final = Source(
    reference="promptlimits",
    statement="Theorem 2c (promptlimits.theory.last_tokens_capacity)",
    form="corrected",
)
ASSUMPTIONS: Final = (
    (
        "Each layer has the given limits; the next layer's radius covers what leaves it for every "
        "query and every probability measure on its ball as context."
    ),
    (
        "All tokens of prompts and queries lie in the ball of the first layer, and each query has "
        "as many tokens as its target."
    ),
    "Targets are drawn uniformly by volume from balls of the given radius, one for each token.",
)
_LARGEST_LOG: Final = 10**5
_LARGEST_RADIUS: Final = 10**100
"""Radii are searched in floats: this far from 1 these are safe."""


@dataclass(frozen=True, kw_only=True)
class LastTokensCapacity:
    """The outcome of Theorem 2c.

    Attributes:
        threshold: Upper limit on K: for k > K the accessible share is below 1.
        delta: delta.
        parts: delta_1, delta_2, delta_3.
        eta: The net's radius in each layer.
        amplification: Upper limit on S, as a quantity.
        certificate: What its checker needs.
    """

    threshold: LogBound
    delta: Fraction
    parts: tuple[Fraction, Fraction, Fraction]
    eta: tuple[Fraction, ...]
    amplification: LogBound
    certificate: Certificate

    _slope: LogBound

    def share_accessible(self, pairs: int) -> LogBound:
        """Upper limit on the share of lists of `pairs` targets that prompts of any length serve.

        Args:
            pairs: k.

        Returns:
            The limit ((eps + delta)/r)^(d m (k - K)); above 1 it says nothing.

        Raises:
            UserError: k is no whole number above 0.
        """
        require_positive_int("pairs", pairs)
        with working_precision(1024):
            log = (self.threshold.log.exp() - pairs) * self._slope.log
        return LogBound(
            direction="upper",
            log=log,
            quantity=f"share of the lists of {pairs} targets that some prompt serves",
            source=SOURCE,
            assumptions=self.threshold.assumptions,
        )


def last_tokens_capacity(
    *,
    dim: int,
    layers: Sequence[LayerConstants],
    eps: Exact,
    tokens: int = 1,
    target_radius: Exact | None = None,
    masked: bool = True,
    parts: tuple[Fraction, Fraction, Fraction] | None = None,
) -> LastTokensCapacity:
    """Theorem 2c at parameters found by a search in floats.

    Args:
        dim: d.
        layers: From the first to the last.
        eps: The error allowed, below the target radius.
        tokens: m, tokens of each query and of each target.
        target_radius: r; the first layer's radius if None.
        masked: Whether attention is causal; if not, one layer only.
        parts: delta_1, delta_2, delta_3; searched if None.

    Returns:
        The threshold and its certificate.

    Raises:
        UserError: A value is out of range, or there are several layers without a mask.
    """
    require_positive_int("dim", dim)
    require_positive_int("tokens", tokens)
    _require_layers(layers, masked=masked)
    radius = Fraction(layers[0].radius if target_radius is None else target_radius)
    require_exact_positive("target radius", radius)
    _require_size("the target radius", radius)
    if require_exact_positive("eps", eps) >= radius:
        raise UserError("eps", "be below the target radius", got=eps, remedy="take a smaller one")
    gains = amplifications(layers)
    spread = _log_spread(layers, gains)
    steepness = [g * layer.context_lipschitz for g, layer in zip(gains, layers, strict=True)]
    if parts is None:
        parts = _search(dim, layers, steepness, spread, tokens, radius, Fraction(eps))
    delta = parts[0] + parts[1] + parts[2]
    if min(parts) <= 0 or delta + eps >= radius:
        raise UserError(
            "delta", "leave eps + delta below the radius", got=delta, remedy="take smaller parts"
        )
    eta = tuple(parts[1] / (len(layers) * steep) for steep in steepness)
    nets = [1 + 2 * Fraction(layer.radius) / e for layer, e in zip(layers, eta, strict=True)]

    def log() -> arb:
        atoms = (2 * (spread() - log_ball(parts[0]))).exp() + 1
        classes = ((spread() - log_ball(parts[2])).exp() * tokens + 2).log()
        total = atoms * sum((log_ball(net) for net in nets), arb(0)) + classes / dim
        return total.log() - log_ball(tokens) - log_ball(radius / (eps + delta)).log()

    amplification = LogBound(
        direction="upper",
        log=grid_upper(spread),
        quantity="what dropping the context can change, at most (S)",
        source=SOURCE,
    )
    threshold = LogBound(
        direction="upper",
        log=grid_upper(log),
        quantity="pairs beyond which the share is below 1 (K)",
        source=SOURCE,
        assumptions=tuple(Assumption(text=text) for text in ASSUMPTIONS),
        factors=(amplification,),
    )
    return LastTokensCapacity(
        threshold=threshold,
        delta=delta,
        parts=parts,
        eta=eta,
        amplification=amplification,
        certificate=Certificate(
            kind="context_capacity",
            bound=threshold,
            inputs={
                "theorem": "2c",
                "dim": dim,
                "layers": [layer.to_json() for layer in layers],
                "masked": masked,
                "eps": str(Fraction(eps)),
                "tokens": tokens,
                "target_radius": str(radius),
                "parts": [str(part) for part in parts],
            },
        ),
        _slope=LogBound(
            direction="lower",
            log=arb(dim * tokens) * _log_lower(radius / (eps + delta)),
            quantity="nats of each pair",
            source=SOURCE,
        ),
    )


def require_layer_sizes(layers: Sequence[LayerConstants]) -> None:
    """Refuse no layers, and layers whose exponentials are beyond any use."""
    if not layers:
        raise UserError("layers", "be one or more", got=0, remedy="give the limits of each layer")
    for layer in layers:
        _require_size("the radius of a layer", layer.radius)
        for _, score_norm in layer.heads:
            if 2 * score_norm * Fraction(layer.radius) ** 2 > _LARGEST_LOG:
                raise UserError(
                    "||A|| r^2",
                    f"be at most {_LARGEST_LOG // 2:,}",
                    got=short(score_norm * Fraction(layer.radius) ** 2),
                    remedy="a factor of e to that power says nothing",
                )


def _require_size(name: str, radius: Exact) -> None:
    if not Fraction(1, _LARGEST_RADIUS) <= radius <= _LARGEST_RADIUS:
        raise UserError(
            name,
            "be between 1e-100 and 1e100",
            got=_size(Fraction(radius)),
            remedy="take another unit",
        )


def _size(value: Fraction) -> str:
    bits = value.numerator.bit_length() - value.denominator.bit_length()
    return f"some 10^{round(bits * math.log10(2)):,}"


def _require_layers(layers: Sequence[LayerConstants], *, masked: bool) -> None:
    require_layer_sizes(layers)
    if not masked and len(layers) > 1:
        raise UserError(
            "layers",
            "be one without a mask",
            got=len(layers),
            remedy="beyond it the prompt's tokens see the query, and Theorem 2c does not hold",
        )


def _log_spread(layers: Sequence[LayerConstants], gains: Sequence[Fraction]) -> Callable[[], arb]:
    """log S at the current precision."""

    def log() -> arb:
        terms = []
        for gain, layer in zip(gains, layers, strict=True):
            square = Fraction(layer.radius) ** 2
            for value_norm, score_norm in layer.heads:
                power = 2 * score_norm * square
                exponent = arb(power.numerator) / power.denominator
                terms.append((log_ball(2 * gain * layer.radius * value_norm) + exponent).exp())
        return sum(terms, arb(0)).log()

    return log


def _log_lower(value: Fraction) -> arb:
    with working_precision(256):
        return log_ball(value).lower()


def _search(
    dim: int,
    layers: Sequence[LayerConstants],
    steepness: Sequence[Fraction],
    spread: Callable[[], arb],
    tokens: int,
    radius: Fraction,
    eps: Fraction,
) -> tuple[Fraction, Fraction, Fraction]:
    """The best of a grid over delta and its parts, in floats, rounded to 12 bits."""
    with working_precision(128):
        log_s = float(spread())
        steep = [
            float(log_ball(2 * len(layers) * s * layer.radius))
            for s, layer in zip(steepness, layers, strict=True)
        ]
    room = radius - eps

    def cost(share: float, second: float, third: float) -> float:
        delta = float(room) * share
        first = delta * (1 - second - third)
        nets = sum(_log1p_exp(s - math.log(delta * second)) for s in steep)
        classes = _log1p_exp(math.log(tokens) + log_s - math.log(delta * third)) / dim
        per_pair = -math.log((float(eps) + delta) / float(radius))
        log_n = 2 * (log_s - math.log(first))
        log_total = _log_add(log_n, 0.0) + math.log(nets)
        return _log_add(log_total, math.log(classes)) - math.log(per_pair)

    best = min(
        (
            (share / 64, 2.0 ** (-second / 2), 2.0**-third)
            for share in range(8, 63)
            for second in range(3, 24)
            for third in range(3, 40, 3)
        ),
        key=lambda at: cost(*at),
    )
    share, second, third = (Fraction(round(x * 2**40), 2**40) for x in best)
    short = [room * share * part for part in (1 - second - third, second, third)]
    one, two, three = (_short(value) for value in short)
    return one, two, three


def _short(value: Fraction) -> Fraction:
    """At most the value, to 12 bits."""
    mantissa, exponent = math.frexp(float(value))
    return Fraction(math.floor(mantissa * 2**12), 2**12) * Fraction(2) ** exponent


def _log1p_exp(value: float) -> float:
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))


def _log_add(first: float, second: float) -> float:
    return second + _log1p_exp(first - second)
