"""The counting cap for vector targets: what stored or hard prompts can reach, for any model.

**Statement.** Prompts take at most R values: N^(d m_p) if each number is kept in a format of N
values, V^(m_p) if each token is one of a vocabulary of V. Fix the model, k inputs and H
environments (hardware, kernels, batches, library versions); no Lipschitz constant, no continuity
and no exact arithmetic is needed. The share of the volume of the lists of k targets (products of
balls of radius r, in the norm errors are measured in) that some prompt brings within eps in some
environment is at most

    Q (eps/r)^(d m k),    Q = H R.

*Proof.* One prompt in one environment gives one list of outputs; what is within eps of it is a
product of k balls of radius eps. Add up over R prompts and H environments. []

So lists are excluded from k > log Q / (d m log(r/eps)) on: kappa = log Q/(d m_p log(r/eps)) in
the units of Theorem 1 (kappa m_p/m pairs), which helps only where its kappa* is below that.
The form "min of the net and 2^b per number" with targets 3 eps apart would give
log N/log(r/(3 eps)), which is weaker: no delta is lost here, as no net is needed.

**Tightness.** Attained while Q disjoint balls of radius eps fit.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from flint import arb
from pydantic import Field, field_validator

from promptlimits.base.exact import (
    Powers,
    exceeds_one,
    grid_up,
    largest,
    log,
    log_product,
    number_text,
    shown,
)
from promptlimits.bounds.core import Natural, Positive, Size, Theorem, decades
from promptlimits.bounds.counting import Values, environments_text, format_name
from promptlimits.bounds.prompt_capacity import FIXED, VOLUME, below_radius


class VectorCounting(Theorem):
    """Letters: d dim, m_p prompt_tokens, m tokens, k pairs, r radius."""

    kind = "vector_counting"
    source = "promptlimits: counting cap for vector targets (proved here)"
    assumptions = (
        FIXED,
        (
            "Each prompt is one of the counted values, and the outputs are a function of it and of "
            "one of at most {environments} (hardware, kernels, batches, library versions) fixed "
            "beforehand."
        ),
        "Nothing else about the targets reaches the model.",
        VOLUME,
    )
    dim: Size
    prompt_tokens: Size
    tokens: Size = 1
    pairs: Size = 1
    radius: Positive
    eps: Positive
    values: Values
    per_token: bool = Field(default=False, strict=True)
    environments_log2: Natural = 64
    _below = field_validator("eps")(below_radius)

    def rests_on(self) -> tuple[str, ...]:
        """The assumptions, with the number of environments."""
        environments = environments_text(self.environments_log2)
        return tuple(text.format(environments=environments) for text in self.assumptions)

    @property
    def prompts(self) -> str:
        """What a prompt is made of."""
        if self.per_token:
            return f"vocabulary of {number_text(self.values)} tokens"
        return format_name(self.values)

    @property
    def lists(self) -> Powers:
        """Q."""
        power = self.prompt_tokens * (1 if self.per_token else self.dim)
        return (self.values, power), (2, self.environments_log2)

    def log_share(self) -> arb:
        """log of Q (eps/r)^(d m k)."""
        numbers = self.dim * self.tokens * self.pairs
        return log_product(self.lists) + numbers * log(self.eps / self.radius)

    def kappa(self) -> arb:
        """log Q/(d m_p log(r/eps)), to set beside kappa* of Theorem 1."""
        log_prompts = log_product(self.lists) / (self.dim * self.prompt_tokens)
        return log_prompts / log(self.radius / self.eps)

    def excluded(self, pairs: int, share: Fraction = Fraction(1)) -> bool:
        """Whether Q (eps/r)^(d m k) < share, exactly."""
        ratio, numbers = self.radius / self.eps, self.dim * self.tokens * pairs
        volume = [(ratio.numerator, numbers), (ratio.denominator, -numbers)]
        asked = [(share.numerator, 1), (share.denominator, -1)]
        return exceeds_one([*volume, *asked, *((n, -power) for n, power in self.lists)])

    def most_pairs(self) -> int:
        """The most pairs that are not excluded."""
        return largest(lambda k: not self.excluded(k))

    def value(self) -> dict[str, Any]:
        """The share, and the most pairs of which all lists may be reached."""
        return {"log_share": grid_up(self.log_share), "most_pairs": self.most_pairs()}

    def claim(self, value: dict[str, Any]) -> str:
        """The share in decades."""
        return (
            f"of all lists of {self.pairs:,} targets of {self.tokens:,} tokens of {self.dim:,} "
            f"numbers, at most a share of {decades(value['log_share'])} is reached within eps/r = "
            f"{shown(self.eps / self.radius)} by prompts of {self.prompt_tokens:,} tokens "
            f"({self.prompts}) in any of {environments_text(self.environments_log2)}, whatever the "
            f"model; of more than {value['most_pairs']:,} targets, some lists are not; under the "
            "assumptions that it states"
        )
