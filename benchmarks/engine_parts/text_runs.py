"""A search for a text outside the command: a store of its own, and a limit in processor time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import torch
from benchmarks.engine_parts.models import Model
from torch import Tensor

from promptlimits.capacity.search.attempt import Attempt, RunContext
from promptlimits.capacity.search.search import SearchConfig, SearchResult
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.targets import Targets, TextTargets
from promptlimits.capacity.train.problem import Outcome, Stopper
from promptlimits.capacity.train.state import TrainingState
from promptlimits.nets.protocol import EncodedPair, PromptKind


class Search(Protocol):
    """A search, such as `search_text`."""

    def __call__(
        self,
        place: RunContext,
        targets: Targets,
        config: SearchConfig,
        *,
        warm: TrainingState | None,
        should_stop: Stopper,
        on_attempt: Callable[[Attempt], None] | None,
    ) -> SearchResult:
        """Search for the longest beginning, as `search_text` does."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class TextRun:
    """What a search made of a text."""

    result: SearchResult
    seconds: float  # processor time
    prompt: Tensor | None  # (P, W) the prompt that holds most; None if none holds any
    confirmed: int  # tokens of the text, from the first on, that stock greedy `generate` gives

    @property
    def steps(self) -> int:
        """Steps of all attempts: two side by side are two."""
        return self.result.steps


def run_text(
    model: Model,
    ids: Sequence[int],
    config: SearchConfig,
    look: Search,
    *,
    seconds: float,
    kind: PromptKind = PromptKind.SOFT,
    on_attempt: Callable[[Attempt], None] | None = None,
) -> TextRun:
    """Search for a text until so much processor time is used, one step at least."""
    targets = text_targets(model, ids)
    began = time.process_time()
    stepped = False

    def note(_report: object) -> None:
        nonlocal stepped
        stepped = True

    def stop() -> Outcome | None:
        late = time.process_time() - began > seconds
        return Outcome.OUT_OF_BUDGET if stepped and late else None

    with TemporaryDirectory() as folder, Store.open(Path(folder) / "store.sqlite") as store:
        place = RunContext(
            model=model.engine,
            store=store,
            task_hash="text",
            provenance={},
            on_step=note,
            kind=kind,
        )
        result = look(place, targets, config, warm=None, should_stop=stop, on_attempt=on_attempt)
    used = time.process_time() - began
    best = result.best
    prompt = None if best is None else best.prompt
    held = 0 if best is None else len(best.held)
    confirmed = 0 if prompt is None else decoded(model, prompt, ids[:held])
    return TextRun(result=result, seconds=used, prompt=prompt, confirmed=confirmed)


def text_targets(model: Model, ids: Sequence[int]) -> TextTargets:
    """A text as the value of one pair, whose key is the beginning-of-text token."""
    begin = (model.stock.config.bos_token_id,)
    pair = EncodedPair(key="", value="", key_ids=begin, value_ids=tuple(ids))
    return TextTargets(every=(pair,), size=len(ids), decode=model.engine.codec.decode)


@torch.no_grad()
def decoded(model: Model, prompt: Tensor, ids: Sequence[int]) -> int:
    """Tokens of the text, from the first on, that stock greedy `generate` gives."""
    if not ids:
        return 0
    begin = model.engine.embed(torch.tensor([model.stock.config.bos_token_id]))
    inputs = torch.cat([prompt, begin])[None]
    mask = torch.ones(inputs.shape[:2], dtype=torch.long)
    found = model.stock.generate(
        inputs_embeds=inputs, attention_mask=mask, max_new_tokens=len(ids), do_sample=False
    )
    same = [one == other for one, other in zip(found[0].tolist(), ids, strict=False)]
    return in_a_row(torch.tensor(same))


def in_a_row(won: Tensor) -> int:
    """How many are right before the first that is wrong."""
    return int(won.long().cumprod(0).sum())
