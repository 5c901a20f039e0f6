"""What tests of this room share: a listener, stoppers, runs, attempts and verifications."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from promptlimits.capacity.measure import measure
from promptlimits.capacity.search.attempt import Attempt, RunContext
from promptlimits.capacity.search.request import Request
from promptlimits.capacity.search.search import SearchResult
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.encoded import EncodedTask
from promptlimits.capacity.train.problem import Outcome, StepReport
from promptlimits.capacity.witness.verification import Answer, Verification
from promptlimits.nets.load.load import load_parts
from promptlimits.nets.protocol import PromptKind
from promptlimits.nets.routes.causal import HuggingFaceCausalLM


class Notes:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.lines: list[str] = []
        self.steps: list[tuple[int, StepReport]] = []
        self.attempts: list[Attempt] = []

    def stage(self, text: str, total: int | None = None) -> None:
        self.stages.append((text, total))

    def ends_at(self, moment: float) -> None: ...

    def advanced(self, done: int) -> None:
        assert done > 0

    def step(self, _kind: PromptKind, prompt_tokens: int, report: StepReport) -> None:
        self.steps.append((prompt_tokens, report))

    def attempted(self, _kind: PromptKind, _prompt_tokens: int, attempt: Attempt) -> None:
        self.attempts.append(attempt)

    def found(self, text: str) -> None:
        self.lines.append(text)


def never() -> None:
    """A stopper that never stops."""


def after(questions: int) -> Callable[[], Outcome | None]:
    """A stopper that says no until it was asked so many times."""
    left = iter(range(questions))
    return lambda: Outcome.OUT_OF_BUDGET if next(left, None) is None else None


def loaded(directory: Path | str, **options: Any) -> HuggingFaceCausalLM:
    parts = load_parts(str(directory), **options)
    return HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)


def runs(model: HuggingFaceCausalLM, store: Store) -> RunContext:
    return RunContext(model=model, store=store, task_hash="t", provenance={})


def measured(
    model: HuggingFaceCausalLM, task: EncodedTask, request: Request, folder: Path
) -> tuple[Any, Notes]:
    """One bracket command: its record, and what its listener was told."""
    notes = Notes()
    with Store.open(folder / "store.sqlite") as store:
        record = measure(model, task, request, folder=folder, store=store, listener=notes)
    return record.to_json(), notes


def without_times(value: Any) -> Any:
    """A record without what differs from run to run."""
    if isinstance(value, dict):
        left_out = {"seconds", "created", "versions", "out"}
        return {key: without_times(item) for key, item in value.items() if key not in left_out}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def attempt_of(
    size: int, outcome: Outcome, *, held: int = 0, prompt: torch.Tensor | None = None, seed: int = 0
) -> Attempt:
    return Attempt(
        size=size,
        units="pairs",
        outcome=outcome,
        held=tuple(range(held)),
        prompt=torch.ones(2, 4) if prompt is None else prompt,
        steps=1,
        seconds=0.0,
        seed=seed,
    )


def result_of(*attempts: Attempt) -> SearchResult:
    return SearchResult(prompt_tokens=2, attempts=attempts, stopped_because="", complete=True)


def facts(*attempts: Attempt) -> list[tuple[object, ...]]:
    """What two equal runs have in common, to the bit."""
    return [
        (one.size, one.outcome, one.held, one.steps, one.seed, one.prompt.numpy().tobytes())
        for one in attempts
    ]


def verified(exact: Sequence[bool]) -> Verification:
    """What decoding confirmed of so many pairs."""
    answers = [
        Answer(
            key=str(key),
            value="",
            decoded="",
            generated_ids=(),
            exact=one,
            came="" if one else None,
            fault="" if one else "another answer",
            counted=one,
        )
        for key, one in enumerate(exact)
    ]
    return Verification(
        pairs_exact=sum(exact),
        of=len(exact),
        answers=tuple(answers),
        confirmed_by="",
        prompt_sha256="0" * 64,
        model_hash="",
        same_weights=True,
        created="",
        seconds=0.0,
        versions={},
    )
