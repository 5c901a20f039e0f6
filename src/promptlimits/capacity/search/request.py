"""What a bracket command asks for, and who is told how the work goes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final, NamedTuple, Protocol

from promptlimits.base.files import JsonObject, JsonValue
from promptlimits.capacity.search.attempt import ENGINE, Attempt, about
from promptlimits.capacity.search.ordering import Order
from promptlimits.capacity.search.search import SearchConfig
from promptlimits.capacity.task.encoded import EncodedTask
from promptlimits.capacity.train.problem import StepReport
from promptlimits.nets.protocol import FrozenModel, PromptKind

RECORD = 1
"""Raised when the same runs make another record: a corrected ceiling, another way to count."""

GoOn = Callable[[float], str]
"""The command line that goes on where a budget ended, from the seconds that were used."""

IN_CONTEXT_TOKENS = 2048
"""Most tokens of the in-context baseline unless asked for more: its cost is quadratic."""


class PromptSize(NamedTuple):
    """A kind of prompt and a number of tokens."""

    kind: PromptKind  # what the prompts are
    tokens: int  # P

    @property
    def in_words(self) -> str:
        """Such as "2 prompt tokens", "a prefix of 1 token"."""
        plural = "s" if self.tokens > 1 else ""
        if self.kind is PromptKind.SOFT:
            return f"{self.tokens} prompt token{plural}"
        return f"a prefix of {self.tokens} token{plural}"

    @property
    def file_name(self) -> str:
        """What files about such prompts have in their names."""
        of_kind = "" if self.kind is PromptKind.SOFT else f"{self.kind.value}-"
        return f"{of_kind}{self.tokens}-tokens"

    @property
    def key(self) -> JsonObject:
        """What names it in the store."""
        return {"prompt_tokens": self.tokens, "kind": self.kind.value}


class Listener(Protocol):
    """Who is told how the work goes. The default of every command is a live display."""

    def stage(self, text: str, total: int | None = None) -> None:
        """A new stage has begun, of `total` parts if that is known."""
        ...

    def ends_at(self, moment: float) -> None:
        """The work must end at a moment of the monotonic clock; infinite for no end."""
        ...

    def advanced(self, done: int) -> None:
        """So many parts of the stage are done."""
        ...

    def step(self, kind: PromptKind, prompt_tokens: int, report: StepReport) -> None:
        """A training step is done for a prompt of a kind and length."""
        ...

    def attempted(self, kind: PromptKind, prompt_tokens: int, attempt: Attempt) -> None:
        """An attempt has ended."""
        ...

    def found(self, text: str) -> None:
        """Something worth a line of its own."""
        ...


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a bracket command asks for.

    Attributes:
        prompt_tokens: Prompt lengths, each at least 1, ascending.
        search: Settings of the search; the prompt length is set for each.
        order: In which order the pairs are to be held.
        budget_seconds: Time for the whole command, over all resumptions, from when the model is
            loaded; infinite for no limit.
        budget_steps: Training steps for the whole command, over all resumptions; infinite for no
            limit.
        in_context_tokens: Limit on the in-context baseline's tokens; 0 leaves it out.
        control: Whether a planted control is run where a search failed.
        kinds: Kinds of prompts, each at every length.
        budget_bytes: Memory for one pass of the model; None for half of what is free.
        command: The command line that asks for this, for records.
        go_on: The command line that goes on where the budget ends, from the seconds used over all
            calls.
    """

    prompt_tokens: tuple[int, ...]
    search: SearchConfig
    order: Order
    budget_seconds: float = math.inf
    budget_steps: float = math.inf
    in_context_tokens: int = IN_CONTEXT_TOKENS
    control: bool = True
    kinds: tuple[PromptKind, ...] = (PromptKind.SOFT,)
    budget_bytes: int | None = None
    command: str = ""
    go_on: GoOn = lambda _used: ""

    @property
    def seed(self) -> int:
        """Seed of everything."""
        return self.search.training.seed

    def search_dtype(self, model: FrozenModel) -> str:
        """What the products of its searches compute with."""
        return self.search.training.search_dtype or model.card.compute_dtype


_NO_PART_OF_THE_WORK: Final = ("command", "go_on", "budget_bytes", "budget_seconds", "budget_steps")


def command_key(
    model: FrozenModel, task: EncodedTask, request: Request, *, budget: bool = True
) -> JsonObject:
    """What makes two commands the same; without the budget, what makes their work the same."""
    settings = {
        name: value for name, value in asdict(request).items() if name not in _NO_PART_OF_THE_WORK
    }
    if budget:
        settings["budget"] = [finite(request.budget_seconds), finite(request.budget_steps)]
    lengths: list[JsonValue] = list(request.prompt_tokens)
    kinds: list[JsonValue] = [kind.value for kind in request.kinds]
    return {
        **settings,
        "prompt_tokens": lengths,
        "kinds": kinds,
        "engine": ENGINE,
        "record": RECORD,
        **about(model.card, task.hash),
        "task_name": task.name,
        # The ceiling depends on these, not on the ids alone.
        "answers": [task.answer_set_text, hex(task.answer_set_size), task.answers_random],
    }


def finite(amount: float) -> float | None:
    """A budget for JSON, which has no infinity."""
    return amount if math.isfinite(amount) else None
