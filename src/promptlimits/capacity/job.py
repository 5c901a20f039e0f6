"""One running command, and what `fit` and `bracket` do alike at one kind and length of prompt."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import torch

from promptlimits.base.files import JsonObject
from promptlimits.capacity.floor import Floor, find_floor
from promptlimits.capacity.search.attempt import Attempt, RunContext, about, attempt
from promptlimits.capacity.search.baselines import Unprompted
from promptlimits.capacity.search.budget import Budget, UsedTime
from promptlimits.capacity.search.choice import Choice, choose
from promptlimits.capacity.search.control import SearchBudget, control_within
from promptlimits.capacity.search.lists import search_list
from promptlimits.capacity.search.ordering import Order
from promptlimits.capacity.search.request import Listener, PromptSize, Request, command_key
from promptlimits.capacity.search.search import SearchConfig, SearchResult, train_all
from promptlimits.capacity.search.texts import search_text, train_text
from promptlimits.capacity.store.provenance import provenance, spec_hash
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.encoded import EncodedTask, require_fits
from promptlimits.capacity.task.targets import Targets, TextTargets
from promptlimits.capacity.train.memory import default_budget
from promptlimits.capacity.train.problem import StepReport, Stopper
from promptlimits.capacity.train.state import TrainingState
from promptlimits.capacity.witness.files import require_replaceable
from promptlimits.capacity.witness.fresh_process import Verifier
from promptlimits.capacity.witness.stock import require_stock_tools
from promptlimits.nets.protocol import FrozenModel, PromptKind
from promptlimits.record.parts import Control, NoControl

VERIFY_START_SECONDS: Final = 12.0
"""So long before training ends the process that verifies is started; it loads meanwhile."""


def require_possible(
    model: FrozenModel, task: EncodedTask, request: Request, witnesses: list[Path]
) -> None:
    """Refuse before a prompt is trained what would be refused when it is saved or decoded."""
    require_stock_tools(request.kinds)
    require_fits(
        task, context_length=model.card.context_length, prompt_tokens=max(request.prompt_tokens)
    )
    for kind in request.kinds:
        model.prompt_width(kind)
    for folder in witnesses:
        require_replaceable(folder)


@dataclass(frozen=True, kw_only=True, eq=False)
class Shorter:
    """What a shorter prompt of the same kind was confirmed to hold."""

    state: TrainingState  # where its training ended
    held: tuple[int, ...]


@dataclass(kw_only=True)
class Job:
    """One running command."""

    model: FrozenModel  # the frozen model
    task: EncodedTask  # the pairs
    targets: Targets  # what is asked of a prompt, in the order of the record
    request: Request  # what is asked for
    folder: Path  # the output folder
    store: Store  # its store
    listener: Listener  # who is told how it goes
    budget: Budget  # what is left of the command's budget from when this call began
    work_hash: str  # what names the work, whatever its budget
    used: UsedTime  # its seconds
    unprompted: Unprompted = field(init=False)  # what needs no prompt
    # What decodes the prompts that were found; who runs the job closes it.
    verifier: Verifier = field(init=False)
    warnings: list[str] = field(default_factory=list)  # what a reader must know
    evaluation_seconds: float = 0.0  # about what one pass of the list takes; 0 while nobody knows

    def __post_init__(self) -> None:
        """Read what the store knows of the model without a prompt."""
        self.unprompted = Unprompted(self.context(), self.task.pairs, self.targets)
        card = self.model.card
        self.verifier = Verifier(model_path=card.path, compute_dtype=card.compute_dtype)

    @classmethod
    def of(
        cls,
        command: str,
        model: FrozenModel,
        task: EncodedTask,
        targets: Targets,
        request: Request,
        *,
        folder: Path,
        store: Store,
        listener: Listener,
    ) -> Self:
        """The job of a command, with what its budget has left."""
        key = command_key(model, task, request, budget=False)
        work = spec_hash({"command": command, **key})
        used = UsedTime(store, work)
        # Steps of earlier calls count when their attempts are met again.
        budget = Budget(
            seconds=request.budget_seconds - used.before_seconds, steps=request.budget_steps
        )
        listener.ends_at(budget.ends)
        return cls(
            model=model,
            task=task,
            targets=targets,
            request=request,
            folder=folder,
            store=store,
            listener=listener,
            budget=budget,
            work_hash=work,
            used=used,
        )

    @property
    def seconds(self) -> float:
        """Time that the command has used, over all its calls."""
        return self.used.before_seconds + self.budget.elapsed_seconds

    def context(
        self,
        kind: PromptKind = PromptKind.SOFT,
        on_step: Callable[[StepReport], None] = lambda _report: None,
    ) -> RunContext:
        """What the runs of the command's prompts of a kind have in common."""

        def stepped(report: StepReport) -> None:
            self.used.stepped()
            on_step(report)

        return RunContext(
            model=self.model,
            store=self.store,
            task_hash=self.task.hash,
            provenance=provenance({"device": str(self.model.device)}),
            on_step=stepped,
            kind=kind,
            budget_bytes=self.request.budget_bytes,
            count=self.budget.count,
        )

    def hash_of(self, size: PromptSize) -> str:
        """What names the work at one kind and length of prompt."""
        return spec_hash({"work": self.work_hash, **size.key})

    def about(self, key: JsonObject) -> JsonObject:
        """The key of a record of the model and the task."""
        return {**about(self.model.card, self.task.hash), **key}

    # --- at one kind and length ------------------------------------------------------------

    def train(
        self,
        size: PromptSize,
        targets: Targets,
        budget: Budget,
        *,
        shorter: Shorter | None = None,
        all_at_once: bool = False,
    ) -> tuple[SearchResult, Control | NoControl | None]:
        """Train prompts, and where they fail, see what the optimiser makes of a planted one."""
        with self.used.stage("training"):
            return self._trained(size, targets, budget, shorter, all_at_once=all_at_once)

    def _trained(
        self,
        size: PromptSize,
        targets: Targets,
        budget: Budget,
        shorter: Shorter | None,
        *,
        all_at_once: bool,
    ) -> tuple[SearchResult, Control | NoControl | None]:
        config, listener = self.request.search, self.listener
        config = replace(config, training=replace(config.training, prompt_tokens=size.tokens))
        first: int | None = None
        found = False

        def due() -> None:
            if found and budget.left_seconds <= VERIFY_START_SECONDS:
                self._load_ahead()

        def stepped(report: StepReport) -> None:
            nonlocal first, found
            first = report.best_exact if first is None else first
            # What earlier calls found was verified by them.
            found = found or report.best_exact > first
            due()
            listener.step(size.kind, size.tokens, report)

        place = self.context(size.kind, stepped)
        trained, starts = attempt, config.starts
        if isinstance(targets, TextTargets) and not all_at_once:
            # Each start has sizes of its own.
            trained, starts = train_text, 1
        searching = SearchBudget(budget, control=self.request.control, starts=starts)

        def ended(one: Attempt) -> None:
            searching.note(one)
            listener.attempted(size.kind, size.tokens, one)

        if all_at_once:
            listener.stage(f"training for {len(targets)} {targets.units}")
            result = train_all(
                place, targets, config, should_stop=searching.should_stop, on_attempt=ended
            )
        else:
            listener.stage(f"searching with {size.in_words}")
            result = self._searched(place, targets, config, shorter, searching, ended)
        control = None
        if self.request.control:
            # What the control recovers of planted pairs is not found.
            planted = self.context(size.kind, lambda _report: due())
            control = control_within(
                budget,
                planted,
                targets,
                config.training,
                result,
                train=trained,
                stage=f"planted control with {size.in_words}",
                listener=listener,
            )
        if found:
            self._load_ahead()
        return result, control

    def _searched(
        self,
        place: RunContext,
        targets: Targets,
        config: SearchConfig,
        shorter: Shorter | None,
        searching: SearchBudget,
        ended: Callable[[Attempt], None],
    ) -> SearchResult:
        """A text is searched in lines of growing beginnings, a list by working sets."""
        warm = None if shorter is None else shorter.state
        if isinstance(targets, TextTargets):
            return search_text(
                place,
                targets,
                config,
                warm=warm,
                should_stop=searching.should_stop,
                on_attempt=ended,
            )
        already = 0 if shorter is None else targets.count(shorter.held)
        return search_list(
            place,
            targets,
            replace(config, first_size=max(config.first_size, already)),
            warm=warm,
            nearest_first=self.request.order is Order.EASIEST,
            should_stop=searching.should_stop,
            has_room=searching.has_room,
            on_attempt=ended,
        )

    @cached_property
    def loads_ahead(self) -> bool:
        """Whether a second copy of the model leaves room to train beside it."""
        model_bytes = self.model.card.parameters * self.model.dtype.itemsize
        return model_bytes <= default_budget(torch.device("cpu"))

    def _load_ahead(self) -> None:
        """Start the process that verifies, if there is room and it is not there yet."""
        if self.loads_ahead:
            self.verifier.start()

    def confirm(
        self,
        size: PromptSize,
        targets: Targets,
        result: SearchResult,
        *,
        folder: Path,
        work: JsonObject,
        uncredited: Callable[[Collection[int]], Collection[int]] = lambda _held: (),
        should_stop: Stopper | None = None,
    ) -> tuple[Floor, Choice | None]:
        """Choose the best prompt of a work, save it, and have what it holds confirmed."""
        request, place = self.request, self.context(size.kind)
        self.listener.stage("choosing the best prompt")
        with self.used.stage("evaluation"):
            choice = choose(
                place,
                targets,
                result.attempts,
                work={**work, **size.key},
                relative_lead=request.search.training.relative_lead,
                uncredited=uncredited,
                should_stop=should_stop,
            )
        with self.used.stage("verification"):
            floor = find_floor(
                place,
                self.task,
                self.targets,
                choice,
                folder=folder,
                extra={"seed": request.seed, "command": request.command},
                listener=self.listener,
                verifier=self.verifier,
            )
        return floor, choice
