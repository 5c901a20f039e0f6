"""One prompt for all the given pairs: trained, saved and confirmed like a floor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from promptlimits._typing import JsonObject
from promptlimits.capacity.attempt import Attempt, Workplace, attempt, race
from promptlimits.capacity.ceiling import sized
from promptlimits.capacity.choice import choose
from promptlimits.capacity.clock import Deadline
from promptlimits.capacity.control import Control, NoControl
from promptlimits.capacity.control_run import control_within
from promptlimits.capacity.floor import Floor, answer_rows, find_floor
from promptlimits.capacity.request import Listener
from promptlimits.capacity.search import SearchResult
from promptlimits.models.protocol import PromptKind
from promptlimits.tasks.encoded import EncodedTask, require_fits
from promptlimits.tuning.config import TrainingConfig
from promptlimits.tuning.outcome import Outcome


def fit_all(
    place: Workplace,
    task: EncodedTask,
    training: TrainingConfig,
    *,
    starts: int,
    deadline: Deadline,
    on_attempt: Callable[[Attempt], None],
) -> tuple[Attempt, ...]:
    """Train a prompt for every pair of a task: from one start, then from others side by side.

    The first start runs alone, because on a CPU a race costs as many times the work.

    Args:
        place: Model, store and provenance.
        task: The pairs.
        training: Settings; its seed is that of the first start.
        starts: How many in all; the first to be solved ends the others.
        deadline: When to stop; the same call goes on where it stopped.
        on_attempt: Called with how each start ended.

    Returns:
        The attempts, the last one solved unless none was.

    Raises:
        UserError: A pair does not fit into the model's context with the prompt.
    """
    require_fits(
        task,
        context_length=place.model.card.context_length,
        prompt_tokens=training.prompt_tokens,
    )
    configs = [replace(training, seed=training.seed + start) for start in range(starts)]
    first = attempt(place, task.pairs, configs[0], warm=None, should_stop=deadline.should_stop)
    on_attempt(first)
    if first.outcome is Outcome.SOLVED or not first.outcome.final or starts == 1:
        return (first,)
    others = race(place, task.pairs, configs[1:], warm=None, should_stop=deadline.should_stop)
    for one in others:
        on_attempt(one)
    return (first, *others)


def control_of_fit(
    place: Workplace,
    task: EncodedTask,
    training: TrainingConfig,
    attempts: tuple[Attempt, ...],
    *,
    deadline: Deadline,
    listener: Listener,
) -> Control | NoControl | None:
    """Run the planted control of a fit that failed: the optimiser's limit, or the model's.

    Args:
        place: Model, store and provenance.
        task: The pairs.
        training: Settings of the first start.
        attempts: What `fit_all` did.
        deadline: For the fit and its control together.
        listener: Who is told how it goes.

    Returns:
        The control, or why there is none; None if every pair was held in training.
    """
    result = SearchResult(
        prompt_tokens=training.prompt_tokens,
        attempts=attempts,
        stopped_because=attempts[-1].outcome.value,
        complete=all(one.outcome.final for one in attempts),
    )
    return control_within(
        deadline,
        replace(place, on_step=lambda _report: None),
        task.pairs,
        training,
        result,
        stage="planted control",
        listener=listener,
    )


def save_fit(
    place: Workplace,
    task: EncodedTask,
    attempts: tuple[Attempt, ...],
    *,
    folder: Path,
    relative_lead: float,
    extra: JsonObject,
    control: Control | NoControl | None = None,
) -> tuple[Floor, JsonObject]:
    """Save the best prompt with the pairs it answers, and have stock tools confirm them.

    Args:
        place: Model and store.
        task: The pairs.
        attempts: What `fit_all` did.
        folder: The output folder.
        relative_lead: Lead by which a token must win.
        extra: Facts for witness.json.
        control: What `control_of_fit` made of it.

    Returns:
        What was confirmed, and the record of it.
    """
    length, kind = attempts[-1].prompt.shape[0], place.kind
    of_kind: JsonObject = {} if kind is PromptKind.SOFT else {"kind": kind.value}
    choice = choose(
        place.model,
        task,
        attempts,
        store=place.store,
        work={
            "fit": task.hash,
            "model": place.model.card.model_hash,
            "prompt_tokens": length,
            **of_kind,
        },
        relative_lead=relative_lead,
        kind=kind,
    )
    floor = find_floor(
        place.model,
        task,
        choice,
        folder=folder,
        name=f"fit-{sized(kind, length)}",
        store=place.store,
        extra=extra,
        kind=kind,
    )
    held, last = floor.held, attempts[-1]
    return floor, {
        "schema": 1,
        "kind": "fit",
        "prompt_kind": kind.value,
        "pairs": len(held),
        "of": len(task.pairs),
        "text_tokens": task.text_tokens,
        "notes": list(task.notes),
        "outcome": last.outcome.value,
        "remedy": last.outcome.remedy,
        "witness": floor.witness if held else None,
        "confirmed_by": "" if floor.verification is None else floor.verification.confirmed_by,
        "answers": answer_rows(floor, range(len(task.pairs)), ()),
        "not_held": [
            task.pairs[index].key for index in range(len(task.pairs)) if index not in set(held)
        ],
        "control": None if control is None else control.to_json(),
        "search": [one.to_json() for one in attempts],
    }
