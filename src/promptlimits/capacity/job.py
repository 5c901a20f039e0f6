"""One running bracket command: what its stages share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from promptlimits.base.typing import JsonObject
from promptlimits.capacity.search.attempt import Workplace
from promptlimits.capacity.search.budget import Budget, UsedTime
from promptlimits.capacity.search.prompt_size import PromptSize
from promptlimits.capacity.search.request import Listener, Request, about, command_key
from promptlimits.capacity.search.unprompted import Unprompted
from promptlimits.capacity.store.provenance import provenance, spec_hash
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.beginnings import Beginnings, beginnings
from promptlimits.capacity.task.encoded import EncodedTask
from promptlimits.capacity.train.problem import StepReport
from promptlimits.nets.protocol import EncodedPair, FrozenModel, PromptKind


@dataclass(kw_only=True)
class Job:
    """One running command.

    Attributes:
        model: The frozen model.
        task: The pairs.
        request: What is asked for.
        folder: The output folder.
        store: Its store.
        listener: Who is told how it goes.
        budget: What is left of the command's budget from when this call began.
        work_hash: What names the work, whatever its budget.
        used: Its seconds.
        evaluation_seconds: About what one pass of the list takes; 0 while nobody knows.
        warnings: What a reader must know.
        unprompted: The pairs that need no prompt.
    """

    model: FrozenModel
    task: EncodedTask
    request: Request
    folder: Path
    store: Store
    listener: Listener
    budget: Budget
    work_hash: str
    used: UsedTime
    evaluation_seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    unprompted: Unprompted = field(init=False)

    def __post_init__(self) -> None:
        """Read what the store knows of the model without a prompt."""
        self.unprompted = Unprompted(self.model, self.task, self.store)

    @classmethod
    def of(
        cls,
        model: FrozenModel,
        task: EncodedTask,
        request: Request,
        *,
        folder: Path,
        store: Store,
        listener: Listener,
    ) -> Job:
        """The job of a command, with what its budget has left."""
        work = spec_hash(command_key(model, task, request, budget=False))
        used = UsedTime(store, work)
        return cls(
            model=model,
            task=task,
            request=request,
            folder=folder,
            store=store,
            listener=listener,
            budget=Budget(
                seconds=request.budget_seconds - used.before_seconds,
                # Steps of earlier calls count when their attempts are met again.
                steps=request.budget_steps,
            ),
            work_hash=work,
            used=used,
        )

    @cached_property
    def beginnings(self) -> Beginnings | None:
        """Those of the task's text; None for a list."""
        return beginnings(self.task, self.model.codec)

    def listed(self, order: Sequence[int]) -> Sequence[EncodedPair]:
        """What is to be held, first things first: pairs in this order, or a text's beginnings."""
        return self.beginnings or [self.task.pairs[index] for index in order]

    def workplace(
        self, on_step: Callable[[StepReport], None], kind: PromptKind = PromptKind.SOFT
    ) -> Workplace:
        """Where the command's prompts of a kind are trained."""

        def stepped(report: StepReport) -> None:
            self.used.stepped()
            on_step(report)

        return Workplace(
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

    def once(self, kind: str, key: JsonObject, make: Callable[[], JsonObject]) -> JsonObject:
        """A record of the store, made now if it is not there."""
        full: JsonObject = {**about(self.model, self.task), **key}
        record = self.store.get(kind, full)
        if record is None:
            record = make()
            self.store.put(kind, full, record)
        self.used.commit()
        return record
