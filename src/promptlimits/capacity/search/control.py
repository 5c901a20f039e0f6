"""The planted control: targets that a known prompt makes, trained for like the real ones.

Where a search fails there are two reasons: no prompt of that size holds the pairs, or the
optimiser does not find one. The control takes the size at which the search failed, the same
keys, and as answers what the model itself says behind a planted prompt. So a prompt that
answers them all is known to exist. If training from a fresh start finds one, the optimiser can
reach such a size; if not, the floor may be the optimiser's limit and not the model's. It is one
measurement of one planted prompt: nothing is proved by it. Where the budget was used up before any
size failed there is no failure to explain, and none is run.

Of a text, the planted answer is as long as the beginning that failed, behind the same key, and is
trained for in one start of the text's own search.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Final, Protocol

from promptlimits.base.files import JsonObject
from promptlimits.capacity.search.attempt import Attempt, RunContext, attempt
from promptlimits.capacity.search.budget import Budget
from promptlimits.capacity.search.planting import Planted, plant
from promptlimits.capacity.search.request import Listener
from promptlimits.capacity.search.search import SearchResult
from promptlimits.capacity.task.targets import Targets
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.problem import Outcome, StepReport, Stopper
from promptlimits.capacity.train.state import TrainingState
from promptlimits.nets.protocol import EncodedPair
from promptlimits.record.parts import Control, NoControl

CONTROL_SHARE: Final = 0.15
"""Share of the budget of a search and its control that the control may take."""


class Train(Protocol):
    """What trains a prompt for all of some targets: `attempt`, or one that is called like it."""

    def __call__(
        self,
        place: RunContext,
        targets: Targets,
        config: TrainingConfig,
        *,
        warm: TrainingState | None,
        should_stop: Stopper,
    ) -> Attempt:
        """Train, or go on where it was cut off."""
        ...


BUDGET_USED_UP: Final = NoControl(
    reason="budget used up",
    conclusion="the budget was used up before any size had failed, so it limits the floor: "
    "nothing shows that the optimiser or the model is at its limit",
)
NOTHING_PLANTED: Final = NoControl(
    reason="nothing planted",
    conclusion="the known prompt answers no key by the lead that training asks for, so nothing "
    "tells whether the floor is the optimiser's limit or the model's",
)


def conclusion_of(outcome: Outcome, *, recovered: int, size: int, steps: int) -> str:
    """What a control allows one to say, and no more."""
    if not outcome.final:
        return (
            f"not finished: {recovered} of {size} after {steps} steps, "
            "so nothing follows from it yet"
        )
    if outcome is Outcome.SOLVED:
        return "the optimiser finds a prompt of this size where one is known to exist"
    return (
        "a prompt that answers them all exists and was not found, so the floor may be the "
        "optimiser's limit, not the model's"
    )


def control_size(result: SearchResult) -> int | None:
    """The size at which a search failed."""
    # A start that can go on may yet be solved, whatever became of the others.
    open_sizes = {one.size for one in result.attempts if not one.outcome.final}
    low = _most_at_once(result)
    failed = {one.size for one in result.attempts if one.size > low and one.decides}
    return min(failed - open_sizes, default=None)


def is_complete(result: SearchResult, control: Control | NoControl | None) -> bool:
    """Whether a larger budget would change nothing: neither search nor control goes on."""
    controlled = not isinstance(control, Control) or control.finished
    return result.complete and controlled


def why_no_size_failed(result: SearchResult, total: int) -> NoControl | None:
    """What to say of a search in which no size failed (`control_size`)."""
    return None if _most_at_once(result) == total else BUDGET_USED_UP


def _most_at_once(result: SearchResult) -> int:
    """The largest size solved, or number of pairs of the list held."""
    return max((_at_once(one) for one in result.attempts), default=0)


def _at_once(one: Attempt) -> int:
    return max(one.size if one.outcome is Outcome.SOLVED else 0, len(one.of_list))


class SearchBudget:
    """The budget of a search: all there is, less the control's share once a control can run.

    A search in which no size failed has nothing to control (`control_size`), so it takes the
    control's share as well. From the moment that one has failed, in so many `starts`, the share is
    kept for the control.
    """

    def __init__(self, budget: Budget, *, control: bool, starts: int) -> None:
        self._until = self._whole = budget
        self._less = budget.part(1 - CONTROL_SHARE) if control else budget
        self._starts = starts
        self._solved = 0
        self._unsolved: Counter[int] = Counter()

    def note(self, ended: Attempt) -> None:
        """Take account of an attempt."""
        self._solved = max(self._solved, _at_once(ended))
        failed = ended.outcome.final and ended.outcome is not Outcome.SOLVED
        if failed and ended.decides:
            self._unsolved[ended.size] += 1
        sizes = [size for size, count in self._unsolved.items() if count >= self._starts]
        controllable = max(sizes, default=0) > self._solved
        self._until = self._less if controllable else self._whole

    def has_room(self, steps: int, seconds: float) -> bool:
        """Whether so many steps are left, of so many seconds each."""
        until = self._until
        return until.left_steps >= steps and until.left_seconds >= steps * seconds

    def should_stop(self) -> Outcome | None:
        """`OUT_OF_BUDGET` once it is used up."""
        return self._until.should_stop()


def control_within(
    budget: Budget,
    place: RunContext,
    targets: Targets,
    config: TrainingConfig,
    result: SearchResult,
    *,
    train: Train = attempt,
    stage: str,
    listener: Listener,
) -> Control | NoControl | None:
    """Run the control of a search in its share of the budget, with progress."""
    size = control_size(result)
    if size is not None:
        listener.stage(stage, size)

    def stepped(report: StepReport) -> None:
        place.on_step(report)
        # Not listener.step: what is recovered here is not found.
        if report.best_exact:
            listener.advanced(report.best_exact)

    control = run_control(
        replace(place, on_step=stepped),
        targets,
        config,
        result,
        train=train,
        should_stop=budget.at_most(CONTROL_SHARE).should_stop,
    )
    if isinstance(control, NoControl):
        listener.found(f"no planted control: {control.conclusion}")
    elif control is not None:
        listener.found(
            f"planted control: {control.recovered} of {control.size} planted "
            f"{targets.planted_units} recovered in {control.steps} steps ({control.outcome})"
        )
    return control


def run_control(
    place: RunContext,
    targets: Targets,
    config: TrainingConfig,
    result: SearchResult,
    *,
    train: Train = attempt,
    should_stop: Stopper,
) -> Control | NoControl | None:
    """Plant answers at the size where a search failed, and train for them from a fresh start.

    They are trained for as the search does: a list in one attempt, a text by `train_text`. The
    planted pairs and the runs are kept in the store, so the same call goes on where it was cut off.
    """
    size = control_size(result)
    if size is None:
        return why_no_size_failed(result, len(targets))
    best = result.best
    norm = None if best is None else float(best.prompt.norm(dim=1).mean())
    keys, wanted = targets.planted_keys(size)
    planted = _planted_once(place, keys, config, size=wanted, token_norm=norm, stop=should_stop)
    if planted is None:
        stopped = should_stop() or Outcome.OUT_OF_BUDGET
        return _control(targets, size, stopped, seed=config.seed)
    if not planted.pairs:
        return NOTHING_PLANTED
    wanted_of_it = targets.planted(planted.pairs, size)
    done = train(place, wanted_of_it, config, warm=None, should_stop=should_stop)
    answers = Counter(wanted_of_it.answers)
    return _control(
        targets,
        len(wanted_of_it),
        done.outcome,
        seed=config.seed,
        recovered=len(done.held),
        steps=done.steps,
        seconds=done.seconds,
        distinct_answers=len(answers),
        list_distinct_answers=len(set(targets.first(len(wanted_of_it)).answers)),
        answer_entropy_bits=entropy_bits(tuple(answers.values())),
        # A planted text is written without a prompt as a whole, or it is not.
        answered_unprompted=planted.unprompted * (len(wanted_of_it) // len(planted.pairs)),
        token_norm=planted.token_norm,
    )


def _control(
    targets: Targets,
    size: int,
    outcome: Outcome,
    *,
    seed: int,
    recovered: int = 0,
    steps: int = 0,
    seconds: float = 0.0,
    **planted: float,
) -> Control:
    """A control as the record shows it, with what follows from it."""
    return Control.of(
        targets.units,
        size,
        recovered=recovered,
        outcome=outcome.value,
        steps=steps,
        seconds=seconds,
        seed=seed,
        **planted,
        finished=outcome.final,
        conclusion=conclusion_of(outcome, recovered=recovered, size=size, steps=steps),
    )


def entropy_bits(counts: Sequence[int]) -> float:
    """Entropy, in bits, of the shares that go with counts of at least one each."""
    total = sum(counts)
    # + 0.0 turns the -0.0 of a single answer into 0.
    return -sum(each / total * math.log2(each / total) for each in counts) + 0.0


def _planted_once(
    place: RunContext,
    pairs: Sequence[EncodedPair],
    config: TrainingConfig,
    *,
    size: int,
    token_norm: float | None,
    stop: Stopper,
) -> Planted | None:
    """The planted pairs of the store, made now if they are not there; None if stopped."""
    key: JsonObject = {
        "model": place.model.card.model_hash,
        "dtype": place.model.card.compute_dtype,
        "keys": [[*pair.key_ids, -len(pair.value_ids)] for pair in pairs],
        "size": size,
        "prompt_tokens": config.prompt_tokens,
        "token_norm": token_norm,
        "relative_lead": config.relative_lead,
        "seed": config.seed,
        "kind": place.kind.value,
    }
    known: Any = place.store.get("plant", key)
    if known is not None:
        pairs = tuple(
            EncodedPair(
                key=one["key"],
                value=one["value"],
                key_ids=(*one["key_ids"],),
                value_ids=(*one["value_ids"],),
            )
            for one in known["pairs"]
        )
        return Planted(**(known | {"pairs": pairs}))
    made = plant(
        place.model,
        pairs,
        config,
        size=size,
        token_norm=token_norm,
        should_stop=stop,
        kind=place.kind,
    )
    if made is not None:
        place.store.put("plant", key, asdict(made))
    return made
