"""What prompts of any length can make of the last m output tokens: Theorem 2c.

**Setting.** A masked transformer of any depth, or one of a single layer, masked or not, with the
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

Beyond one layer without a mask the prompt's tokens see the query, and the theorem does not hold.

**Tightness.** e^(4 ||A|| r^2) is the price of the worst case; sampling errors measured are some
50 times smaller. **Cost.** A search in floats, one evaluation in balls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any

from flint import arb
from pydantic import Field, field_validator

from promptlimits.base.exact import (
    Rule,
    ball,
    grid_up,
    log,
    number_text,
    outward_float,
    working_precision,
)
from promptlimits.bounds.context.layers import (
    LayerConstants,
    Layers,
    amplifications,
    of_floats,
)
from promptlimits.bounds.core import Positive, Size, Theorem, decades

Parts = tuple[Positive, Positive, Positive]


class LastTokensCapacity(Theorem):
    """Theorem 2c, at parameters found by a search in floats.

    Letters: d dim, m tokens of each query and target, r target_radius, delta_i parts.
    """

    kind = "last_tokens_capacity"
    source = "promptlimits: Theorem 2c, in place of meyer2025 Theorem 4.10"
    assumptions = (
        (
            "Each layer has the given limits; the next layer's radius covers what leaves it for "
            "every query and every probability measure on its ball as context."
        ),
        (
            "All tokens of prompts and queries lie in the ball of the first layer, and each query "
            "has as many tokens as its target."
        ),
        "Targets are drawn uniformly by volume from balls of the given radius, one for each token.",
    )
    dim: Size
    layers: Layers
    tokens: Size = 1
    target_radius: Positive = Field(default_factory=lambda given: given["layers"][0].radius)
    eps: Positive
    parts: Parts = Field(default_factory=lambda given: _searched(**given))

    @field_validator("target_radius")
    @classmethod
    def _of_floats(cls, radius: Fraction) -> Fraction:
        return of_floats(radius)

    @field_validator("eps")
    @classmethod
    def _below(cls, eps: Fraction, given: Any) -> Fraction:
        if eps >= given.data.get("target_radius", eps + 1):
            raise Rule("be below the target radius", "take a smaller one")
        return eps

    @field_validator("parts")
    @classmethod
    def _small(cls, parts: tuple[Fraction, ...], given: Any) -> tuple[Fraction, ...]:
        if {"eps", "target_radius"} <= given.data.keys() and sum(parts) >= (
            given.data["target_radius"] - given.data["eps"]
        ):
            raise Rule("leave eps and all of them together below the radius", "take smaller ones")
        return parts

    @cached_property
    def delta(self) -> Fraction:
        """delta."""
        return sum(self.parts, Fraction(0))

    def log_spread(self) -> arb:
        """log S, of what dropping the context can change at most."""
        return _log_spread(self.layers)

    def log_nets(self) -> arb:
        """log of the product of 1 + 2 r_l/eta_l."""
        step = self.parts[1] / len(self.layers)
        nets = (1 + width / step for width in _widths(self.layers))
        return sum((log(net) for net in nets), arb(0))

    def log_slope(self) -> arb:
        """log(r/(eps + delta))."""
        return log(self.target_radius / (self.eps + self.delta))

    def log_threshold(self) -> arb:
        """log K."""
        spread = self.log_spread()
        atoms = (2 * (spread - log(self.parts[0]))).exp() + 1
        classes = (self.tokens * (spread - log(self.parts[2])).exp() + 2).log()
        nats = atoms * self.log_nets() + classes / self.dim
        return nats.log() - log(self.tokens) - self.log_slope().log()

    def value(self) -> dict[str, Any]:
        """log S and log K."""
        return {
            "log_spread": grid_up(self.log_spread),
            "log_threshold": grid_up(self.log_threshold),
        }

    def claim(self, value: dict[str, Any]) -> str:
        """What is proved, in one sentence."""
        depth = len(self.layers)
        which = f"masked transformer of {depth} layers" if depth > 1 else "transformer of one layer"
        limit = decades(value["log_threshold"])
        return (
            f"Theorem 2c: a {which} in dimension {self.dim}: prompts of all lengths together serve "
            f"a share below 1 of the lists of more than K = {limit} targets of {self.tokens} "
            f"tokens in balls of radius {number_text(self.target_radius)}, with error "
            f"{number_text(self.eps)}; under the assumptions that it states"
        )

    def log_share(self, pairs: int) -> float:
        """Upper limit, in nats, on the share of lists of targets that some prompt serves.

        Args:
            pairs: k.

        Returns:
            The limit; above 0 it says nothing.
        """
        size = self.dim * self.tokens
        return outward_float(
            lambda: (self.log_threshold().exp() - pairs) * self.log_slope() * size, up=True
        )


def _widths(layers: Sequence[LayerConstants]) -> list[Fraction]:
    """2 r_l g_l sum_i ||V_i|| (1 + ||A_i|| r_l^2) of each layer, 2 r_l/eta_l delta_2/depth."""
    gains = amplifications(layers)
    return [
        2 * layer.radius * gain * layer.context_lipschitz
        for gain, layer in zip(gains, layers, strict=True)
    ]


def _log_spread(layers: Sequence[LayerConstants]) -> arb:
    terms = (
        log(2 * gain * layer.radius * value_norm) + ball(2 * score_norm * layer.radius**2)
        for gain, layer in zip(amplifications(layers), layers, strict=True)
        for value_norm, score_norm in layer.heads
    )
    return sum((term.exp() for term in terms), arb(0)).log()


def _searched(
    *,
    dim: int,
    layers: Sequence[LayerConstants],
    tokens: int,
    target_radius: Fraction,
    eps: Fraction,
) -> tuple[Fraction, Fraction, Fraction]:
    """The best of a grid over delta and its parts, in floats, rounded to 12 bits."""
    with working_precision(128):
        log_s = float(_log_spread(layers))
        steep = [float(log(len(layers) * width)) for width in _widths(layers)]
    room = target_radius - eps

    def cost(share: float, second: float, third: float) -> float:
        delta = float(room) * share
        first = delta * (1 - second - third)
        nets = sum(_log1p_exp(s - math.log(delta * second)) for s in steep)
        classes = _log1p_exp(math.log(tokens) + log_s - math.log(delta * third)) / dim
        per_pair = -math.log((float(eps) + delta) / float(target_radius))
        log_total = _log1p_exp(2 * (log_s - math.log(first))) + math.log(nets)
        more = math.log(classes)
        return more + _log1p_exp(log_total - more) - math.log(per_pair)

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
