"""What no prompt of a real checkpoint can do: its Lipschitz constant, put into Theorem 1.

Two limits on the share of lists of k target vectors that prompts bring within eps, side by side:

1. Theorem 1 (`theory.prompt_capacity`) with the checkpoint's proved constant L (`model_bound`);
2. the counting cap (`theory.vector_counting`) for prompts kept in a number format.

The second looks at no weights. Where log(1 + 2 L rho/delta) exceeds the logarithm of the number
of values that a stored number can take, the first says nothing that the second does not say
better, and the result says so.

Targets are hidden states behind the final norm; radii and eps are in the token norm.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from fractions import Fraction

from promptlimits.base.bound import Certificate, tightest
from promptlimits.base.typing import JsonObject, JsonValue
from promptlimits.lipschitz.checkpoint.model_bound import ModelBound
from promptlimits.theory.prompt_capacity import (
    CapacityThreshold,
    ShareReached,
    capacity_threshold,
    fraction_text,
    share_reached,
)
from promptlimits.theory.prompt_setting import PromptSetting
from promptlimits.theory.vector_counting import (
    CountedShare,
    PromptValues,
    counted_share,
    counting_kappa,
    first_counted_pairs,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelCeiling:
    """Both limits for one checkpoint.

    Attributes:
        model: The constant.
        threshold: From how many pairs on Theorem 1 excludes lists.
        counting_kappa: log Q / (d m_p log(r/eps)): what to set beside kappa*.
        counting_first_pairs: From how many pairs on counting excludes lists.
        reached: Theorem 1's limit on the share, at `pairs` or at its own threshold.
        counted: The counting cap's, likewise.
        winner: "lipschitz" if its kappa is the lower one, and with it the number of pairs from
            which on lists are excluded; else "counting", whose share is the lower one, too.
        certificate: What a checker needs.
    """

    model: ModelBound
    threshold: CapacityThreshold
    counting_kappa: Fraction
    counting_first_pairs: int
    reached: ShareReached
    counted: CountedShare
    winner: str
    certificate: Certificate

    @property
    def lower_share(self) -> str | None:
        """Whose limit on the share is the lower one; None where the numbers of pairs differ.

        It may be the counting cap though the Lipschitz constant excludes lists from fewer pairs
        on: with more pairs counting falls faster, by eps/r and not (eps + delta)/r.
        """
        if self.reached.pairs != self.counted.pairs:
            return None
        best = tightest([self.counted.bound, self.reached.bound])
        return "counting" if best is self.counted.bound else "lipschitz"

    @property
    def vacuous(self) -> bool:
        """Whether the Lipschitz constant adds nothing to counting."""
        return self.winner == "counting"


def model_ceiling(
    model: ModelBound,
    *,
    name: str,
    weights_sha256: str,
    prompts: PromptValues,
    prompt_tokens: int,
    tokens: int,
    radius: Fraction,
    eps: Fraction,
    target_radius: Fraction | None = None,
    pairs: int | None = None,
) -> ModelCeiling:
    """Put a checkpoint's constant into Theorem 1, beside the counting cap."""
    setting = PromptSetting(
        dim=model.facts.dim,
        prompt_tokens=prompt_tokens,
        tokens=tokens,
        lipschitz=model.bound,
        radius=radius if target_radius is None else target_radius,
        eps=eps,
        prompt_radius=radius,
        norm="token",
        least_deviation=model.deviation,
    )
    threshold = capacity_threshold(setting)
    first = first_counted_pairs(setting, prompts)
    kappa = counting_kappa(setting, prompts)
    reached = share_reached(setting, pairs or threshold.first_pairs)
    counted = counted_share(setting, pairs or first, prompts)
    wins = threshold.one_centre or threshold.kappa.upper < kappa
    return ModelCeiling(
        model=model,
        threshold=threshold,
        counting_kappa=kappa,
        counting_first_pairs=first,
        reached=reached,
        counted=counted,
        winner="lipschitz" if wins else "counting",
        certificate=_certificate(model, name, weights_sha256, reached, counted),
    )


def _certificate(
    model: ModelBound, name: str, digest: str, reached: ShareReached, counted: CountedShare
) -> Certificate:
    facts = plain(model.facts)
    # Without Rogers' constant there always is a certificate.
    capacity = None if reached.certificate is None else reached.certificate.to_json()
    inputs: JsonObject = {
        "model": name,
        "weights_sha256": digest,
        "least_deviation": fraction_text(model.deviation),
        "facts": facts,
        "prompt_capacity": capacity,
        "vector_counting": counted.certificate.to_json(),
    }
    return Certificate(kind="model_ceiling", bound=model.bound, inputs=inputs)


def plain(value: object) -> JsonValue:
    """Nested records of norms as JSON; numbers are exact fractions as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, float | Fraction):
        return fraction_text(Fraction(value))
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"{value!r} is no part of a record of norms")
