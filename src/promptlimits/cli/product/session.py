"""What the commands that train share: the model, the pairs, the store, and their settings."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from promptlimits.base.checks import require_positive_int
from promptlimits.base.errors import RunFailed, UserError
from promptlimits.base.shell import command
from promptlimits.capacity.tables.form import AUTO, asking_of
from promptlimits.capacity.tables.reading import Reading, parse_choices
from promptlimits.capacity.task.resolve import Source, encode_source, read_source
from promptlimits.capacity.task.text import TextSpec
from promptlimits.capacity.train.config import TEXT_SHARPENING_SHARE, TrainingConfig, lead_in
from promptlimits.cli.options import named_as_typed
from promptlimits.cli.streams import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from promptlimits.base.typing import JsonObject
    from promptlimits.capacity.task.encoded import EncodedTask
    from promptlimits.cli.live import LiveListener
    from promptlimits.nets.protocol import TextCodec
    from promptlimits.nets.routes.causal import HuggingFaceCausalLM

STORE_FILE = "store.sqlite"
NOT_SEARCHED: Final = 3
"""Exit code: the budget was used up before a prompt was searched for."""


def load_model(
    reference: str,
    *,
    dtype: str,
    device: str,
    threads: int | None,
    offline: bool,
    on_progress: Callable[[str], None],
) -> HuggingFaceCausalLM:
    """Load the frozen model that a command names."""
    import torch

    from promptlimits.nets.load.load import load_parts
    from promptlimits.nets.routes.causal import HuggingFaceCausalLM

    if threads is not None:
        torch.set_num_threads(threads)
    with named_as_typed():
        parts = load_parts(
            reference,
            dtype=getattr(torch, dtype),
            device=device,
            allow_hub=not offline,
            on_progress=on_progress,
        )
    return HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)


def read_pairs(
    reference: str,
    *,
    template: str | None,
    seed: int,
    limit: int | None,
    chat: bool = False,
    joiner: str = AUTO,
    columns: str | None = None,
    answer: str | None = None,
    choices: str | None = None,
) -> Source:
    """Read the pairs that a command names: all that can be done before a model is loaded."""
    with named_as_typed():
        reading = Reading(columns=columns, answer=answer, choices=parse_choices(choices))
        asking = asking_of(template, chat=chat, joiner=joiner, choices=bool(reading.choices))
        return read_source(reference, asking=asking, reading=reading, seed=seed, limit=limit)


def noun_of(source: Source) -> str:
    """What a search over a source counts: tokens of a text, or pairs."""
    return "token" if isinstance(source.pairs, TextSpec) else "pair"


def encode_pairs(source: Source, codec: TextCodec) -> EncodedTask:
    """Encode pairs for a model."""
    with named_as_typed():
        return encode_source(source, codec)


def load_model_and_pairs(
    reference: str,
    source: Source,
    *,
    dtype: str,
    device: str,
    threads: int | None,
    offline: bool,
    listener: LiveListener,
) -> tuple[HuggingFaceCausalLM, EncodedTask]:
    """Load the model of a command and encode its pairs for it, with progress."""
    listener.stage(f"loading {reference}")
    model = load_model(
        reference,
        dtype=dtype,
        device=device,
        threads=threads,
        offline=offline,
        on_progress=listener.found,
    )
    task = encode_pairs(source, model.codec)
    for note in task.notes:
        listener.found(f"note: {note}")
    return model, task


def training_config(
    *,
    prompt_tokens: int,
    learning_rate: float,
    max_steps: int,
    patience: int,
    seed: int,
    dtype: str,
) -> TrainingConfig:
    """Settings of training, checked, with errors that name the option."""
    with named_as_typed():
        return TrainingConfig(
            prompt_tokens=prompt_tokens,
            learning_rate=learning_rate,
            max_steps=max_steps,
            patience=patience,
            seed=seed,
            relative_lead=lead_in(dtype),
        )


def suited_to(source: Source, training: TrainingConfig) -> TrainingConfig:
    """The settings for a source: a text's sharpening begins with a share of itself."""
    if not isinstance(source.pairs, TextSpec):
        return training
    return replace(training, first_sharpening_share=TEXT_SHARPENING_SHARE)


def command_line() -> str:
    """The command line, as a person can paste it."""
    return command(["promptlimits", *sys.argv[1:]])


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """What a command may use over all its resumptions; infinite for no limit.

    Attributes:
        seconds: Time, from when the model is loaded.
        steps: Training steps.
    """

    seconds: float
    steps: float

    def go_on(self, used_seconds: float) -> str:
        """The command line that goes on where this budget ends."""
        words = list(sys.argv[1:])
        if math.isfinite(self.seconds):
            times = max(2, 1 + math.ceil(used_seconds / self.seconds - 0.5))
            words = [*_without(words, "--budget"), "--budget", f"{times * self.seconds:.15g}"]
        if math.isfinite(self.steps):
            words = [*_without(words, "--steps"), "--steps", f"{2 * int(self.steps)}"]
        return command(["promptlimits", *words])


def budgets_of(seconds: float | None, steps: int | None, *, default_seconds: float) -> Budgets:
    """The budget of a command."""
    if seconds is not None and not seconds > 0:
        raise UserError("--budget", "be above 0 seconds", got=seconds, remedy="leave it out")
    if steps is not None:
        require_positive_int("--steps", steps)
    if seconds is None:
        seconds = default_seconds if steps is None else math.inf
    return Budgets(seconds=seconds, steps=math.inf if steps is None else steps)


def _without(words: Sequence[str], option: str) -> list[str]:
    """The words of a command line without an option and its value."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word == option:
            skip = True
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return kept


def require_confirmed(record: JsonObject) -> None:
    """Say what stock tools did not confirm, and fail where that is all that training held."""
    from promptlimits.capacity.floor import losses

    for loss in losses(record, whole=False):
        say(f"warning: {loss}")
    lost = losses(record, whole=True)
    if lost:
        raise RunFailed(
            ", and ".join(lost),
            remedy="a floor of 0 is on record; run `promptlimits doctor`, and if it finds nothing "
            "to mend, report this with the output folder",
        )


def store_path(folder: Path) -> Path:
    """The store of an output folder."""
    return folder / STORE_FILE
