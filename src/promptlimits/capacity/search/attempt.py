"""Training runs as the store keeps them: found again, resumed, or done now, side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import safetensors.torch
import torch
from torch import Tensor

from promptlimits.base.typing import JsonObject
from promptlimits.capacity.search.budget import StepCount
from promptlimits.capacity.store.records import RunRecord
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.beginnings import Beginnings, trained_for
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.engine import train_many
from promptlimits.capacity.train.evaluate import tokens_in_a_row
from promptlimits.capacity.train.outcome import Outcome
from promptlimits.capacity.train.problem import Fit, Problem, ProblemKey, StepReport, Stopper
from promptlimits.capacity.train.prompts import from_vocabulary, lengthened
from promptlimits.capacity.train.state import TrainingState
from promptlimits.capacity.witness.format import prompt_sha256
from promptlimits.nets.protocol import EncodedPair, FrozenModel, PromptKind, pack

ENGINE = 1
"""Raised when training changes so that an old run would come out differently."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Attempt:
    """How one attempt to hold a number of pairs ended.

    Attributes:
        pairs: Pairs it was trained for; of a text, its tokens.
        outcome: The ending.
        held: Positions, among those pairs, of the ones its best prompt answers exactly; of a
            text, among its tokens, of those that it writes in a row from the first one on.
        prompt: (P, D) that prompt, on the CPU in float32.
        steps: Steps done, over all resumptions.
        seconds: Time those took.
        seed: Seed of its start.
    """

    pairs: int
    outcome: Outcome
    held: tuple[int, ...]
    prompt: Tensor
    steps: int
    seconds: float
    seed: int

    def to_json(self) -> JsonObject:
        """The attempt as the record shows it."""
        return {
            "pairs": self.pairs,
            "held": len(self.held),
            "outcome": self.outcome.value,
            "remedy": self.outcome.remedy,
            "steps": self.steps,
            "seconds": self.seconds,
            "seed": self.seed,
        }


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """What every attempt of a command has in common.

    Attributes:
        model: The frozen model.
        store: Where runs are kept.
        task_hash: Hash of the task that the pairs come from.
        provenance: Versions to record with each run.
        on_step: Shown each step; the pairs' number comes with the report.
        kind: What the prompts are.
        budget_bytes: Memory for one pass; None for half of what is free.
        count: Steps of the command, to which each step of an attempt is added, those that the
            store has already included.
    """

    model: FrozenModel
    store: Store
    task_hash: str
    provenance: JsonObject
    on_step: Callable[[StepReport], None] = lambda _report: None
    kind: PromptKind = PromptKind.SOFT
    budget_bytes: int | None = None
    count: StepCount = field(default_factory=StepCount)


def attempt(
    place: Workplace,
    pairs: Sequence[EncodedPair],
    config: TrainingConfig,
    *,
    warm: Tensor | None,
    should_stop: Stopper,
) -> Attempt:
    """Train a prompt for `pairs`, or take from the store what an earlier command did.

    Args:
        place: Model, store and provenance.
        pairs: The pairs to hold, all of them, or the beginnings of a text.
        config: Settings; with the pairs, the model and the start they define the run.
        warm: (Q, D) a prompt to start from, Q at most the prompt length; None for a fresh
            start from the vocabulary.
        should_stop: Asked before every step.

    Returns:
        How it ended. A run that was cut off goes on when it is asked for again.
    """
    (done,) = race(place, pairs, [config], warm=warm, should_stop=should_stop)
    return done


def race(
    place: Workplace,
    pairs: Sequence[EncodedPair],
    configs: Sequence[TrainingConfig],
    *,
    warm: Tensor | None,
    should_stop: Stopper,
) -> tuple[Attempt, ...]:
    """Train several starts side by side until one of them is solved.

    Each start is a run of its own in the store. One that was overtaken has no ending there,
    so that whoever asks for it alone later finds it where it stopped.
    """
    runs = [
        place.store.start_run(
            _spec(place, pairs, config, warm), seed=config.seed, provenance=place.provenance
        )
        for config in configs
    ]
    place.count.add(sum(run.steps for run in runs))
    if not any(_solved(run) for run in runs):
        open_runs = [
            (run.id, config) for run, config in zip(runs, configs, strict=True) if not run.finished
        ]
        _train(place, open_runs, pairs, warm, should_stop)
        runs = [place.store.run(run.id) for run in runs]
    won = any(_solved(run) for run in runs)
    attempts = (_read(place, run, len(pairs), overtaken=won) for run in runs)
    return tuple(sorted((one for one in attempts if one is not None), key=_decisive))


def _solved(run: RunRecord) -> bool:
    return run.outcome == Outcome.SOLVED.value


def _decisive(attempt: Attempt) -> tuple[int, int]:
    """How much an attempt says of its race: one soon solved most, then one that can go on."""
    if attempt.outcome is Outcome.SOLVED:
        return 2, -attempt.steps
    return (0 if attempt.outcome.final else 1), 0


def _train(
    place: Workplace,
    runs: Sequence[tuple[int, TrainingConfig]],
    pairs: Sequence[EncodedPair],
    warm: Tensor | None,
    should_stop: Stopper,
) -> None:
    most = 0

    def keep(run_id: ProblemKey, report: StepReport, state: TrainingState) -> None:
        nonlocal most
        metrics: JsonObject = {
            "loss_nats": _finite(report.loss_nats),
            "exact": report.exact,
            "best_exact": report.best_exact,
            "tokens_right": report.tokens_right,
            "seconds": report.seconds,
        }
        place.store.record_step(
            int(run_id), step=state.step, metrics=metrics, state=state.to_bytes()
        )
        place.count.add(1)
        # What is shown is the best of the race.
        most = max(most, report.best_exact)
        place.on_step(_shown(report, len(pairs), most))

    posed = trained_for(pairs)
    leads = {run_id: config.relative_lead for run_id, config in runs}
    packed = pack(posed, device=place.model.device)
    problems = [
        Problem(
            key=run_id,
            pairs=packed,
            config=config,
            state=_state(place, run_id, config, warm, len(posed)),
            race="starts",
            kind=place.kind,
        )
        for run_id, config in runs
    ]
    for fit in train_many(
        place.model,
        problems,
        budget_bytes=place.budget_bytes,
        on_step=keep,
        should_stop=should_stop,
    ):
        if fit.outcome is Outcome.OVERTAKEN:
            continue
        held = _held(place, pairs, fit, relative_lead=leads[int(fit.key)])
        place.store.finish_run(
            int(fit.key),
            outcome=fit.outcome.value,
            result={"held": list(held), "steps": fit.steps, "pairs": len(pairs)},
            artifact=_to_bytes(fit),
        )


def _shown(report: StepReport, size: int, most: int) -> StepReport:
    """A step in the unit of the search: one answer that is a beginning stands for its tokens."""
    share = size // report.pairs
    return replace(report, exact=share * report.exact, best_exact=share * most, pairs=size)


def _held(
    place: Workplace, pairs: Sequence[EncodedPair], fit: Fit, *, relative_lead: float
) -> tuple[int, ...]:
    """Positions of what the best prompt holds; of a text that costs one more pass of it."""
    if not isinstance(pairs, Beginnings):
        return fit.held
    if fit.outcome is Outcome.SOLVED:
        return tuple(range(len(pairs)))
    return pairs.held_by(
        tokens_in_a_row(
            place.model, fit.prompt, pairs.longest, relative_lead=relative_lead, kind=place.kind
        )
    )


def _state(
    place: Workplace, run_id: int, config: TrainingConfig, warm: Tensor | None, num_pairs: int
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
    if warm is not None:
        prompt = lengthened(warm, start=prompt)
    return TrainingState.start(prompt, num_pairs)


def _spec(
    place: Workplace, pairs: Sequence[EncodedPair], config: TrainingConfig, warm: Tensor | None
) -> JsonObject:
    posed = trained_for(pairs)
    members = repr([(pair.key_ids, pair.value_ids) for pair in posed]).encode()
    return {
        "kind": "fit",
        "engine": ENGINE,
        "model": place.model.card.model_hash,
        "dtype": place.model.card.compute_dtype,
        "task": place.task_hash,
        "pairs": len(posed),
        "members": hashlib.sha256(members).hexdigest(),
        "training": config.to_json(),
        "warm": None if warm is None else prompt_sha256(warm),
        "prompt_kind": place.kind.value,
        "tokens": len(pairs) if isinstance(pairs, Beginnings) else None,
    }


def _to_bytes(fit: Fit) -> bytes:
    prompt = fit.prompt.detach().to("cpu", torch.float32).contiguous()
    return safetensors.torch.save({"prompt": prompt})


def _read(place: Workplace, run: RunRecord, num_pairs: int, *, overtaken: bool) -> Attempt | None:
    """What the store says of a run; None if it says nothing yet."""
    seconds = sum(float(str(row["seconds"])) for row in place.store.curve(run.id))
    if overtaken and not run.finished:
        stored = place.store.checkpoint(run.id)
        if stored is None:
            return None
        state = TrainingState.from_bytes(stored, device=torch.device("cpu"))
        fit = Fit.of(run.id, Outcome.OVERTAKEN, state)
        outcome, held, prompt = fit.outcome, fit.held, fit.prompt
    else:
        artifact = place.store.artifact(run.id)
        if run.outcome is None or run.result is None or artifact is None:
            return None
        found = run.result["held"]
        held = tuple(int(str(index)) for index in found) if isinstance(found, list) else ()
        outcome, prompt = Outcome(run.outcome), safetensors.torch.load(artifact)["prompt"]
    return Attempt(
        pairs=num_pairs,
        outcome=outcome,
        held=held,
        prompt=prompt,
        steps=run.steps,
        seconds=seconds,
        seed=run.seed,
    )


def _finite(value: float) -> float | None:
    """JSON has no NaN; a diverged step has no loss."""
    return value if abs(value) < float("inf") else None
