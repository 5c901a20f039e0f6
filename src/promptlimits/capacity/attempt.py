"""One training run as the store keeps it: found again, resumed, or done now."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import safetensors.torch
import torch
from torch import Tensor

from promptlimits._typing import JsonObject
from promptlimits.capacity.witness_format import prompt_sha256
from promptlimits.models.protocol import EncodedPair, FrozenModel, pack
from promptlimits.store.sqlite import Store
from promptlimits.tuning.config import TrainingConfig
from promptlimits.tuning.loop import Fit, StepReport, Stopper, train
from promptlimits.tuning.outcome import Outcome
from promptlimits.tuning.prompts import from_vocabulary, lengthened
from promptlimits.tuning.state import TrainingState

ENGINE = 1
"""Raised when training changes so that an old run would come out differently."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Attempt:
    """How one attempt to hold a number of pairs ended.

    Attributes:
        pairs: Pairs it was trained for.
        outcome: The ending.
        held: Positions, among those pairs, of the ones its best prompt answers exactly.
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
    """

    model: FrozenModel
    store: Store
    task_hash: str
    provenance: JsonObject
    on_step: Callable[[StepReport], None] = lambda _report: None


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
        pairs: The pairs to hold, all of them.
        config: Settings; with the pairs, the model and the start they define the run.
        warm: (Q, D) a prompt to start from, Q at most the prompt length; None for a fresh
            start from the vocabulary.
        should_stop: Asked before every step.

    Returns:
        How it ended. A run that was out of time goes on when it is asked for again.
    """
    spec = _spec(place, pairs, config, warm)
    run = place.store.start_run(spec, seed=config.seed, provenance=place.provenance)
    if not run.finished:
        _train(place, run.id, pairs, config, warm, should_stop)
        run = place.store.run(run.id)
    return _read(place.store, run.id)


def _train(
    place: Workplace,
    run_id: int,
    pairs: Sequence[EncodedPair],
    config: TrainingConfig,
    warm: Tensor | None,
    should_stop: Stopper,
) -> None:
    def keep(report: StepReport, state: TrainingState) -> None:
        metrics: JsonObject = {
            "loss_nats": _finite(report.loss_nats),
            "exact": report.exact,
            "best_exact": report.best_exact,
            "tokens_right": report.tokens_right,
            "seconds": report.seconds,
        }
        place.store.record_step(run_id, step=state.step, metrics=metrics, state=state.to_bytes())
        place.on_step(report)

    stored = place.store.checkpoint(run_id)
    state = (
        _start(place.model, config, warm, len(pairs))
        if stored is None
        else TrainingState.from_bytes(stored, device=place.model.device)
    )
    packed = pack(pairs, device=place.model.device)
    fit = train(place.model, packed, config, state=state, on_step=keep, should_stop=should_stop)
    place.store.finish_run(
        run_id,
        outcome=fit.outcome.value,
        result={"held": list(fit.held), "steps": fit.steps, "pairs": len(pairs)},
        artifact=_to_bytes(fit),
    )


def _start(
    model: FrozenModel, config: TrainingConfig, warm: Tensor | None, num_pairs: int
) -> TrainingState:
    generator = torch.Generator().manual_seed(config.seed)
    prompts = from_vocabulary(
        model, count=config.restarts, prompt_tokens=config.prompt_tokens, generator=generator
    )
    if warm is not None:
        prompts = lengthened(warm, start=prompts)
    return TrainingState.start(prompts, num_pairs)


def _spec(
    place: Workplace, pairs: Sequence[EncodedPair], config: TrainingConfig, warm: Tensor | None
) -> JsonObject:
    members = repr([(pair.key_ids, pair.value_ids) for pair in pairs]).encode()
    return {
        "kind": "fit",
        "engine": ENGINE,
        "model": place.model.card.model_hash,
        "dtype": place.model.card.compute_dtype,
        "task": place.task_hash,
        "pairs": len(pairs),
        "members": hashlib.sha256(members).hexdigest(),
        "training": config.to_json(),
        "warm": None if warm is None else prompt_sha256(warm),
    }


def _to_bytes(fit: Fit) -> bytes:
    prompt = fit.prompt.detach().to("cpu", torch.float32).contiguous()
    return safetensors.torch.save({"prompt": prompt})


def _read(store: Store, run_id: int) -> Attempt:
    run, artifact = store.run(run_id), store.artifact(run_id)
    if run.outcome is None or run.result is None or artifact is None:
        raise AssertionError(f"run {run_id} was just finished and has no ending")
    held = run.result["held"]
    curve = store.curve(run_id)
    return Attempt(
        pairs=int(str(run.result["pairs"])),
        outcome=Outcome(run.outcome),
        held=tuple(int(str(index)) for index in held) if isinstance(held, list) else (),
        prompt=safetensors.torch.load(artifact)["prompt"],
        steps=run.steps,
        seconds=sum(float(str(row["seconds"])) for row in curve),
        seed=run.seed,
    )


def _finite(value: float) -> float | None:
    """JSON has no NaN; a diverged step has no loss."""
    return value if abs(value) < float("inf") else None
