"""Progress on standard error: one live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

if TYPE_CHECKING:
    from promptlimits.capacity.search.attempt import Attempt
    from promptlimits.capacity.train.problem import StepReport
    from promptlimits.nets.protocol import PromptKind

FIRST_WORD_SECONDS: Final = 60.0
_PLAIN_LINE_SECONDS: Final = 10.0
_WIDE: Final = 80
"""Columns of a terminal from which on there is room for a bar."""


class LiveListener:
    """Shows how the work goes; nothing of it goes to standard output.

    Args:
        quiet: Show nothing at all.
        noun: What sizes count.
    """

    def __init__(self, *, quiet: bool = False, noun: str = "pair") -> None:
        self._noun = noun
        self._console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._ends: float | None = None
        self._progress = Progress(
            *_columns(self._console.width, self._time_left),
            console=self._console,
            expand=True,
            transient=True,
            disable=quiet or not sys.stderr.isatty(),
        )
        self._bar = self._progress.add_task("starting", total=None)
        self._began = self._last_line = time.monotonic()
        self._best: dict[tuple[PromptKind, int], int] = {}
        self._said_first_word = False

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def stage(self, text: str, total: int | None = None) -> None:
        """A new stage has begun, of `total` parts if that is known."""
        self._progress.reset(self._bar, description=text, total=total)
        if self._progress.disable:
            self._say(f"... {text}")

    def ends_at(self, moment: float) -> None:
        """The work must end at a moment of the monotonic clock; infinite for no end."""
        self._ends = moment if math.isfinite(moment) else None

    def advanced(self, done: int) -> None:
        """So many parts of the stage are done."""
        self._progress.update(self._bar, completed=done)
        total = self._task.total
        if self._progress.disable and total is not None and self._line_is_due():
            self._say(f"    {self._task.description}: {done} of {total:g}{self._ends_in()}")

    def step(self, kind: PromptKind, prompt_tokens: int, report: StepReport) -> None:
        """A training step is done for a prompt of a kind and length."""
        best = max(self._best.get((kind, prompt_tokens), 0), report.best_exact)
        self._best[kind, prompt_tokens] = best
        # Rounded down: all tokens right are all pairs exact.
        text = (
            f"{_short(kind, prompt_tokens)} training for {self._sized(report.pairs)}, step "
            f"{report.step}, loss {report.loss_nats:.3f}, {int(100 * report.tokens_right)}% of "
            "tokens right, exact"
        )
        self._progress.update(
            self._bar, description=text, total=report.pairs, completed=report.best_exact
        )
        now = time.monotonic()
        if not self._said_first_word and now - self._began >= FIRST_WORD_SECONDS:
            self._said_first_word = True
            self._say(
                f"after the first minute: {self._found_so_far()} in training, to be confirmed"
            )
        elif self._progress.disable and self._line_is_due():
            self._say(f"    {text} {report.best_exact} of {report.pairs}{self._ends_in()}")

    def attempted(self, kind: PromptKind, prompt_tokens: int, attempt: Attempt) -> None:
        """An attempt has ended."""
        self._say(
            f"{_short(kind, prompt_tokens)}: {len(attempt.held)} of {self._sized(attempt.size)} "
            f"exact after {attempt.steps} steps, {attempt.seconds:.0f} s ({attempt.outcome.value})"
        )

    def found(self, text: str) -> None:
        """Something worth a line of its own."""
        self._say(text)

    @property
    def _task(self) -> Task:
        return self._progress.tasks[self._bar]

    def _time_left(self) -> float | None:
        """Seconds to the deadline, if there is one."""
        return None if self._ends is None else max(0.0, self._ends - time.monotonic())

    def _ends_in(self) -> str:
        left = self._time_left()
        return "" if left is None else f", {_clock(left)} left"

    def _line_is_due(self) -> bool:
        return time.monotonic() - self._last_line >= _PLAIN_LINE_SECONDS

    def _found_so_far(self) -> str:
        return "; ".join(
            f"{self._sized(best)} exact with {_short(kind, length)}"
            for (kind, length), best in self._best.items()
        )

    def _sized(self, number: int) -> str:
        return f"{number} {self._noun}{'' if number == 1 else 's'}"

    def _say(self, text: str) -> None:
        self._last_line = time.monotonic()
        self._console.print(text, markup=False)


class _Counts(ProgressColumn):
    """Parts done of all parts; nothing where their number is not known."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text("")
        return Text(f"{task.completed:g}/{task.total:g}", style="progress.download")


class _Clock(ProgressColumn):
    """Time left to the deadline, or else time spent on the stage."""

    def __init__(self, time_left: Callable[[], float | None]) -> None:
        self._time_left = time_left
        super().__init__(table_column=Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        left = self._time_left()
        if left is None:
            return Text(_clock(task.elapsed or 0.0), style="progress.elapsed")
        return Text(f"{_clock(left)} left", style="progress.remaining")


def _columns(width: int, time_left: Callable[[], float | None]) -> list[ProgressColumn]:
    """What the live line shows: counts and time in full, and of the text what there is room for."""
    text = TextColumn(
        "{task.description}",
        markup=False,
        table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
    )
    bar = [BarColumn(bar_width=16)] if width >= _WIDE else []
    return [text, *bar, _Counts(table_column=Column(no_wrap=True)), _Clock(time_left)]


def _clock(seconds: float) -> str:
    """Minutes and seconds: "3:05"; hours before them where there are any."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _short(kind: PromptKind, prompt_tokens: int) -> str:
    """A kind and length in a few characters: "soft P=2"."""
    return f"{kind.value} P={prompt_tokens}"
