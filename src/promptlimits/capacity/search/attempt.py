"""Training runs as the store keeps them: found again, resumed, or done now, side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from promptlimits.base.files import JsonObject, JsonValue
from promptlimits.capacity.search.budget import StepCount
from promptlimits.capacity.search.step_log import StepLog
from promptlimits.capacity.store.records import RunRecord
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.targets import Targets
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.engine import train_many
from promptlimits.capacity.train.problem import (
    Fit,
    Outcome,
    Problem,
    ProblemKey,
    StateNow,
    StepReport,
    Stopper,
    searches,
)
from promptlimits.capacity.train.state import TrainingState, from_vocabulary
from promptlimits.nets.protocol import FrozenModel, ModelCard, PromptKind, pack
from promptlimits.record import parts

ENGINE = 1
"""Raised when training changes so that an old run would come out differently."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Attempt:
    """How one attempt to hold a number of pairs ended."""

    size: int  # pairs, or tokens of a text, that it was trained for
    units: str  # which of the two, in words
    outcome: Outcome  # the ending
    held: tuple[int, ...]  # what of them its best prompt holds, as `Targets` counts it
    state: TrainingState  # where its training ended, with that prompt, on the CPU
    steps: int  # steps done, over all resumptions
    seconds: float  # time those took
    seed: int  # seed of its start
    decides: bool = True  # whether the size failed if it was not solved; else another set followed
    of_list: tuple[int, ...] = ()  # what the prompt holds of the whole list, as far as it was asked

    @property
    def most_held(self) -> int:
        """How much the prompt is known to hold."""
        return max(len(self.held), len(self.of_list))

    @property
    def prompt(self) -> Tensor:
        """(P, W) its best prompt, in float32."""
        return self.state.best_prompt

    @property
    def row(self) -> parts.Attempt:
        """The attempt as the record shows it."""
        remedy = self.outcome.remedy_for(self.units)
        if not self.decides and self.outcome in (Outcome.STALLED, Outcome.OUT_OF_STEPS):
            remedy = "nothing to do: another working set followed"
        return parts.Attempt.of(
            self.units,
            self.size,
            held=len(self.held),
            outcome=self.outcome.value,
            remedy=remedy,
            steps=self.steps,
            seconds=self.seconds,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What every attempt of a command has in common."""

    model: FrozenModel
    store: Store  # where runs are kept
    task_hash: str  # hash of the task that the pairs come from
    provenance: Mapping[str, JsonValue]  # versions to record with each run
    # Shown each step; the pairs' number comes with the report.
    on_step: Callable[[StepReport], None] = lambda _report: None
    kind: PromptKind = PromptKind.SOFT  # what the prompts are
    budget_bytes: int | None = None  # memory for one pass; None for half of what is free
    # Steps of the command, to which each step of an attempt is added, those that the store has
    # already included.
    count: StepCount = field(default_factory=StepCount)

    @property
    def about(self) -> JsonObject:
        """What the store's records of the model and the task are about."""
        return about(self.model.card, self.task_hash)


def about(card: ModelCard, task_hash: str) -> JsonObject:
    """What the store's records of a model and a task are about."""
    return {"model": card.model_hash, "dtype": card.compute_dtype, "task": task_hash}


def attempt(
    place: RunContext,
    targets: Targets,
    config: TrainingConfig,
    *,
    warm: TrainingState | None,
    should_stop: Stopper,
) -> Attempt:
    """Train a prompt for all of `targets`, or take from the store what an earlier command did.

    With the settings, the targets, the model and the state to start from define the run; None for
    a fresh start from the vocabulary. A run that was cut off goes on when it is asked for again.
    """
    (done,) = race(place, targets, [(config, warm)], should_stop=should_stop)
    return done


def race(
    place: RunContext,
    targets: Targets,
    starts: Sequence[tuple[TrainingConfig, TrainingState | None]],
    *,
    enough: int = 1,
    should_stop: Stopper,
) -> tuple[Attempt, ...]:
    """Train several starts side by side until enough of them are solved.

    Each start is a run of its own in the store. One that was overtaken has no ending there,
    so that whoever asks for it alone later finds it where it stopped.
    """
    runs = [
        place.store.start_run(
            _spec(place, targets, config, warm), seed=config.seed, provenance=place.provenance
        )
        for config, warm in starts
    ]
    place.count.add(sum(run.steps for run in runs))
    left = enough - _solved(runs)
    if left > 0:
        open_runs = [
            (run.id, config, warm)
            for run, (config, warm) in zip(runs, starts, strict=True)
            if not run.finished
        ]
        _train(place, open_runs, targets, should_stop, enough=left)
        runs = [place.store.run(run.id) for run in runs]
    won = _solved(runs) >= enough
    attempts = (
        _read(place, run, targets, config, overtaken=won)
        for run, (config, _) in zip(runs, starts, strict=True)
    )
    return tuple(sorted((one for one in attempts if one is not None), key=_decisive))


def _solved(runs: Sequence[RunRecord]) -> int:
    return sum(run.outcome == Outcome.SOLVED.value for run in runs)


def _decisive(attempt: Attempt) -> tuple[int, int]:
    """How much an attempt says of its race: one soon solved most, then one that can go on."""
    if attempt.outcome is Outcome.SOLVED:
        return 2, -attempt.steps
    return (0 if attempt.outcome.final else 1), 0


def _train(
    place: RunContext,
    runs: Sequence[tuple[int, TrainingConfig, TrainingState | None]],
    targets: Targets,
    should_stop: Stopper,
    *,
    enough: int,
) -> None:
    most = 0

    def keep(run_id: ProblemKey, report: StepReport, state: StateNow) -> None:
        nonlocal most
        metrics: JsonObject = {
            "loss_nats": _finite(report.loss_nats),
            "exact": report.exact,
            "best_exact": report.best_exact,
            "tokens_right": report.tokens_right,
            "seconds": report.seconds,
        }
        log.add(int(run_id), step=report.step, metrics=metrics, state=state)
        place.count.add(1)
        # What is shown is the best of the race.
        most = max(most, targets.count_in_training(report.best_exact, report.best_in_a_row))
        place.on_step(_shown(report, len(targets), most))

    trained = targets.trained
    packed = pack(trained, device=place.model.device)
    problems = [
        Problem(
            key=run_id,
            pairs=packed,
            config=config,
            state=_state(place, run_id, config, warm, len(trained)),
            race="starts",
            enough=enough,
            kind=place.kind,
        )
        for run_id, config, warm in runs
    ]
    with StepLog(place.store) as log:
        for fit in train_many(
            place.model,
            problems,
            budget_bytes=place.budget_bytes,
            on_step=keep,
            should_stop=should_stop,
        ):
            if fit.outcome is Outcome.OVERTAKEN:
                continue
            log.write()
            held = targets.held_in_training(fit.held, fit.in_a_row)
            place.store.finish_run(
                int(fit.key),
                outcome=fit.outcome.value,
                result={"held": list(held), "steps": fit.steps, "size": len(targets)},
                artifact=fit.state.to_bytes(),
            )


def _shown(report: StepReport, size: int, most: int) -> StepReport:
    """A step in the unit of the search: one answer that is a beginning stands for its tokens."""
    share = size // report.pairs
    return replace(report, exact=share * report.exact, best_exact=most, pairs=size)


def _state(
    place: RunContext,
    run_id: int,
    config: TrainingConfig,
    warm: TrainingState | None,
    num_pairs: int,
) -> TrainingState:
    """Where a run stands: at its last stored step, or at its start."""
    stored = place.store.checkpoint(run_id)
    if stored is not None:
        return TrainingState.from_bytes(stored, device=place.model.device)
    generator = torch.Generator().manual_seed(config.seed)
    prompt = from_vocabulary(
        place.model,
        count=1,
        prompt_tokens=config.prompt_tokens,
        generator=generator,
        kind=place.kind,
    )[0]
    if warm is None:
        return TrainingState.start(prompt, num_pairs)
    return warm.for_pairs(num_pairs, start=prompt)


def _spec(
    place: RunContext, targets: Targets, config: TrainingConfig, warm: TrainingState | None
) -> JsonObject:
    return {
        **place.about,
        "kind": "fit",
        "engine": ENGINE,
        "size": len(targets),
        "units": targets.units,
        "members": members_sha256(targets),
        "training": config.to_json(),
        "warm": None if warm is None else hashlib.sha256(warm.to_bytes()).hexdigest(),
        "prompt_kind": place.kind.value,
    }


def members_sha256(targets: Targets) -> str:
    """What tells apart the pairs that are trained for, in their order."""
    members = repr([(pair.key_ids, pair.value_ids) for pair in targets.trained])
    return hashlib.sha256(members.encode()).hexdigest()


def _read(
    place: RunContext,
    run: RunRecord,
    targets: Targets,
    config: TrainingConfig,
    *,
    overtaken: bool,
) -> Attempt | None:
    """What the store says of a run; None if it says nothing yet."""
    seconds = sum(float(str(row["seconds"])) for row in place.store.curve(run.id))
    if overtaken and not run.finished:
        stored = place.store.checkpoint(run.id)
        if stored is None:
            return None
        state = TrainingState.from_bytes(stored, device=torch.device("cpu"))
        fit = Fit.of(run.id, Outcome.OVERTAKEN, state)
        outcome = fit.outcome
        # What a search scored in a twin of the model counts for nothing.
        told = ((), 0) if searches(config, state) else (fit.held, fit.in_a_row)
        held = targets.held_in_training(*told)
    else:
        artifact = place.store.artifact(run.id)
        if run.outcome is None or run.result is None or artifact is None:
            return None
        found: Any = run.result
        held = tuple(found["held"])
        outcome = Outcome(run.outcome)
        state = TrainingState.from_bytes(artifact, device=torch.device("cpu"))
    return Attempt(
        size=len(targets),
        units=targets.units,
        outcome=outcome,
        held=held,
        state=state,
        steps=run.steps,
        seconds=seconds,
        seed=run.seed,
    )


def _finite(value: float) -> float | None:
    """JSON has no NaN; a diverged step has no loss."""
    return value if abs(value) < float("inf") else None
