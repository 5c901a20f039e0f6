"""What a training run is told, as one frozen value that hashes and goes to JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

from promptlimits.base.errors import UserError, require_positive, require_positive_int
from promptlimits.base.files import JsonObject

MAX_SEED: Final = 2**62
"""Later starts count up from the seed; the store and torch take whole numbers of 64 bits."""


SHARPENED_DEVIATION: Final = 6.0
"""Deviation of the sharpened logits by default: of those that `benchmarks/optimisers.py` tries, the
best factors gave 4.5 to 9 on a small random model (logits of deviation 1.1) and 5.8 on
SmolLM2-135M (2.9)."""


TEXT_SHARPENING_SHARE: Final = 0.5
"""Share of the sharpening that training for one long text begins with. Under all of it a model that
is sure of other tokens hardly moves, and without the first token right none after it counts."""

_LEAST_LEAD: Final = 1e-3
_ROUNDINGS_IN_A_LEAD: Final = 2
_ROUNDING: Final = {"bfloat16": 2**-7, "float16": 2**-10}
"""Distance from 1 to the next number of the format."""


def lead_in(compute_dtype: str) -> float:
    """The lead that a token must win by, above what its own logit is rounded by.

    In single precision 1e-3 is far above everything that another implementation does otherwise.
    In 16 bits no lead is that large that training still reaches it: the roundings of all layers
    add up, the more of them behind a large prompt. There it is two roundings of one logit, and
    what turns all the same is not counted, for stock tools decode every pair of a floor.
    """
    return max(_LEAST_LEAD, _ROUNDINGS_IN_A_LEAD * _ROUNDING.get(compute_dtype, 0.0))


SEARCH_DTYPE: Final = "bfloat16"
"""What the products of a faster search compute with."""


class Objective(StrEnum):
    """What is minimised at each read position; see `promptlimits.capacity.train.objective`."""

    CROSS_ENTROPY = "cross_entropy"
    MARGIN = "margin"


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of one training run.

    Attributes:
        prompt_tokens: P, tokens of the prompt.
        objective: What is minimised.
        learning_rate: Adam's step for a soft prompt. Large: a prompt vector must grow to many
            times the norm of a token before it controls what later layers see. For a prefix it is
            multiplied as `Problem.learning_rate_at` says.
        final_learning_rate_share: Share of the learning rate left after `decay_steps`.
        decay_steps: Steps over which the learning rate falls linearly.
        sharpening: Factor on the logits inside the loss; None for the one that gives them a
            deviation of `SHARPENED_DEVIATION` over the vocabulary, whatever the model's own is.
        first_sharpening_share: Share of the sharpening that training begins with; it grows in a
            line with the largest share of right tokens so far. For short pairs all of it from the
            first step does best; for texts see `TEXT_SHARPENING_SHARE`.
        relative_lead: Lead by which a token must win, as a share of the row's largest logit;
            far above rounding, so that another implementation decodes the same tokens. For 16
            bits see `lead_in`.
        clip_norm: Largest gradient norm of one prompt.
        max_steps: Steps after which a run ends unsolved.
        patience: Steps without more exact pairs or right tokens than ever before, after which a
            run counts as stalled.
        seed: Seed of the starts.
        search_dtype: "bfloat16" for steps in the model's faster twin (`FrozenModel.narrow`) until
            the search is over; what counts as exact is the model's own all the same. None for
            steps of the model itself.
    """

    prompt_tokens: int
    objective: Objective = Objective.CROSS_ENTROPY
    learning_rate: float = 1.0
    final_learning_rate_share: float = 0.1
    decay_steps: int = 200
    sharpening: float | None = None
    first_sharpening_share: float = 1.0
    relative_lead: float = _LEAST_LEAD
    clip_norm: float = 1.0
    max_steps: int = 400
    patience: int = 120
    seed: int = 0
    search_dtype: str | None = None

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            UserError: One breaks its rule.
        """
        for name in ("prompt_tokens", "decay_steps", "max_steps", "patience"):
            require_positive_int(name, getattr(self, name))
        for name in ("learning_rate", "final_learning_rate_share", "clip_norm"):
            require_positive(name, getattr(self, name))
        if self.sharpening is not None:
            require_positive("sharpening", self.sharpening)
        if not 0 < self.first_sharpening_share <= 1:
            raise UserError(
                "first_sharpening_share",
                "be above 0 and at most 1",
                got=self.first_sharpening_share,
                remedy="give 1 for a sharpening that never changes",
            )
        require_positive("relative_lead", self.relative_lead)
        if self.search_dtype not in (None, SEARCH_DTYPE):
            raise UserError(
                "search_dtype",
                f"be {SEARCH_DTYPE}",
                got=self.search_dtype,
                remedy="leave it out for what the model computes with",
            )
        whole = isinstance(self.seed, int) and not isinstance(self.seed, bool)
        if not whole or not 0 <= self.seed <= MAX_SEED:
            raise UserError(
                "seed",
                f"be a whole number from 0 to {MAX_SEED}",
                got=self.seed,
                remedy="give 0, 1, 2, ...",
            )

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of step number `step`, counted from 0."""
        done = min(1.0, step / self.decay_steps)
        return self.learning_rate * (1 - done * (1 - self.final_learning_rate_share))

    def sharpening_for(self, logit_deviation: float) -> float:
        """The factor on the logits of a model whose logits have that deviation."""
        if self.sharpening is not None:
            return self.sharpening
        return SHARPENED_DEVIATION / logit_deviation

    def to_json(self) -> JsonObject:
        """The settings as a JSON object."""
        return {**asdict(self), "objective": self.objective.value}
