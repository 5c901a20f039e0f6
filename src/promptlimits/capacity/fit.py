"""One prompt for all the given pairs: trained, saved and confirmed like a floor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from promptlimits.base.typing import JsonObject
from promptlimits.capacity.floor import Floor, answer_rows, find_floor
from promptlimits.capacity.replay_loss import loss_json
from promptlimits.capacity.search.attempt import Attempt, Workplace, attempt, race
from promptlimits.capacity.search.baselines import no_prompt
from promptlimits.capacity.search.budget import Budget, UsedTime
from promptlimits.capacity.search.choice import choose
from promptlimits.capacity.search.control import Control, NoControl, is_complete
from promptlimits.capacity.search.control_run import control_within
from promptlimits.capacity.search.prompt_size import PromptSize
from promptlimits.capacity.search.request import GoOn, Listener
from promptlimits.capacity.search.search import SearchResult, state_of
from promptlimits.capacity.store.provenance import spec_hash
from promptlimits.capacity.task.encoded import EncodedTask, require_fits
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.outcome import Outcome
from promptlimits.capacity.train.problem import StepReport
from promptlimits.capacity.witness.files import require_replaceable
from promptlimits.capacity.witness.stock_check import require_stock_tools


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """What a fit command asks for.

    Attributes:
        training: Settings; the seed is that of the first start.
        starts: How many in all; the first to be solved ends the others.
        budget_seconds: Time for the whole command, over all resumptions, from when the model is
            loaded; infinite for no limit.
        budget_steps: Training steps for the whole command, over all resumptions; infinite for no
            limit.
        control: Whether a planted control is run where the fit failed.
        command: The command line that asks for this, for records.
        go_on: The command line that goes on where the budget ends, from the seconds used over all
            calls.
    """

    training: TrainingConfig
    starts: int
    budget_seconds: float = math.inf
    budget_steps: float = math.inf
    control: bool = True
    command: str = ""
    go_on: GoOn = lambda _used: ""


def fit_all(
    place: Workplace,
    task: EncodedTask,
    request: FitRequest,
    *,
    folder: Path,
    listener: Listener,
) -> JsonObject:
    """Train one prompt for every pair of a task, save the best one, and have it confirmed."""
    require_stock_tools((place.kind,))
    size = PromptSize(place.kind, request.training.prompt_tokens)
    require_fits(task, context_length=place.model.card.context_length, prompt_tokens=size.tokens)
    name = f"fit-{size.file_name}"
    # What would be refused when the prompt is saved is refused before it is trained.
    require_replaceable(folder / name)
    work: JsonObject = {"fit": task.hash, "model": place.model.card.model_hash, **size.key}
    settings: JsonObject = {"training": request.training.to_json(), "starts": request.starts}
    used = UsedTime(place.store, spec_hash({**work, **settings, "control": request.control}))
    budget = Budget(
        seconds=request.budget_seconds - used.before_seconds,
        steps=request.budget_steps,
        count=place.count,
    )

    def stepped(report: StepReport) -> None:
        used.stepped()
        listener.step(size.kind, size.tokens, report)

    listener.ends_at(budget.ends)
    listener.stage(f"training for {len(task.pairs)} pairs")
    result = train_all(replace(place, on_step=stepped), task, request, budget, listener)
    # What the control recovers of planted pairs is not found.
    quiet = replace(place, on_step=used.stepped)
    control = control_of_fit(quiet, task, request, result, budget, listener)
    choice = choose(
        place.model,
        task,
        result.attempts,
        store=place.store,
        work=work,
        relative_lead=request.training.relative_lead,
        kind=place.kind,
    )
    floor = find_floor(
        place.model,
        task,
        choice,
        folder=folder,
        name=name,
        store=place.store,
        extra={"seed": request.training.seed, "command": request.command},
        kind=place.kind,
        listener=listener,
    )
    asked = [task.pairs[index] for index in floor.held]
    known = no_prompt(place.model, asked).exact if asked else ()
    unprompted = [floor.held[position] for position in known]
    used.commit()
    seconds = used.before_seconds + budget.elapsed_seconds
    return _record(
        task, request, size, result, floor, control, unprompted=unprompted, seconds=seconds
    )


def train_all(
    place: Workplace, task: EncodedTask, request: FitRequest, budget: Budget, listener: Listener
) -> SearchResult:
    """Train from one start, then from others side by side.

    On a CPU a race costs as many times the work, so the first start runs alone. Until every start
    has ended there is nothing to control, so training may take all of the budget.
    """
    training = request.training
    configs = [replace(training, seed=training.seed + start) for start in range(request.starts)]
    stop = budget.should_stop
    attempts: tuple[Attempt, ...] = (
        attempt(place, task.pairs, configs[0], warm=None, should_stop=stop),
    )
    _tell(listener, place, attempts)
    if attempts[0].outcome is not Outcome.SOLVED and attempts[0].outcome.final and configs[1:]:
        others = race(place, task.pairs, configs[1:], warm=None, should_stop=stop)
        _tell(listener, place, others)
        attempts += others
    return SearchResult(
        prompt_tokens=training.prompt_tokens,
        attempts=attempts,
        stopped_because=attempts[-1].outcome.value,
        complete=all(one.outcome.final for one in attempts),
    )


def _tell(listener: Listener, place: Workplace, attempts: tuple[Attempt, ...]) -> None:
    for one in attempts:
        listener.attempted(place.kind, one.prompt.shape[0], one)


def control_of_fit(
    place: Workplace,
    task: EncodedTask,
    request: FitRequest,
    result: SearchResult,
    budget: Budget,
    listener: Listener,
) -> Control | NoControl | None:
    """Run the planted control of a fit that failed: the optimiser's limit, or the model's."""
    if not request.control:
        return None
    return control_within(
        budget,
        place,
        task.pairs,
        request.training,
        result,
        stage="planted control",
        listener=listener,
    )


def _record(
    task: EncodedTask,
    request: FitRequest,
    size: PromptSize,
    result: SearchResult,
    floor: Floor,
    control: Control | NoControl | None,
    *,
    unprompted: Sequence[int],
    seconds: float,
) -> JsonObject:
    held, last = floor.held, result.attempts[-1]
    complete = is_complete(result, control)
    return {
        "schema": 1,
        "kind": "fit",
        "prompt_kind": size.kind.value,
        "state": state_of(result, claimed=floor.claimed, credited=held).value,
        "complete": complete,
        "go_on": None if complete else request.go_on(seconds),
        "pairs": len(held),
        "of": len(task.pairs),
        "also_answered_unprompted": len(unprompted),
        "text_tokens": task.text_tokens,
        "notes": list(task.notes),
        "outcome": last.outcome.value,
        "remedy": last.outcome.remedy,
        "witness": floor.witness if held else None,
        "confirmed_by": "" if floor.verification is None else floor.verification.confirmed_by,
        "lost_in_replay": loss_json(floor),
        "answers": answer_rows(floor, range(len(task.pairs)), unprompted),
        "not_held": [
            task.pairs[index].key for index in range(len(task.pairs)) if index not in set(held)
        ],
        "control": None if control is None else control.to_json(),
        "search": [one.to_json() for one in result.attempts],
    }
