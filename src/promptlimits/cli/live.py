"""Progress on standard error: one live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from promptlimits.capacity.attempt import Attempt
    from promptlimits.tuning.loop import StepReport

FIRST_WORD_SECONDS: Final = 60.0
_PLAIN_LINE_SECONDS: Final = 10.0


class LiveListener:
    """Shows how the work goes; nothing of it goes to standard output.

    Args:
        quiet: Show nothing at all.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not sys.stderr.isatty(),
        )
        self._bar = self._progress.add_task("starting", total=None)
        self._began = self._last_line = time.monotonic()
        self._best: dict[int, int] = {}
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

    def advanced(self, done: int) -> None:
        """So many parts of the stage are done."""
        self._progress.update(self._bar, completed=done)

    def step(self, prompt_tokens: int, report: StepReport) -> None:
        """A training step is done."""
        best = max(self._best.get(prompt_tokens, 0), report.best_exact)
        self._best[prompt_tokens] = best
        text = (
            f"P={prompt_tokens} training for {report.pairs} pairs, step {report.step}, "
            f"loss {report.loss_nats:.3f}, exact"
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
        elif self._progress.disable and now - self._last_line >= _PLAIN_LINE_SECONDS:
            self._say(f"    {text} {report.best_exact} of {report.pairs}")

    def attempted(self, prompt_tokens: int, attempt: Attempt) -> None:
        """An attempt has ended."""
        self._say(
            f"P={prompt_tokens}: {len(attempt.held)} of {attempt.pairs} pairs exact after "
            f"{attempt.steps} steps, {attempt.seconds:.0f} s ({attempt.outcome.value})"
        )

    def found(self, text: str) -> None:
        """Something worth a line of its own."""
        self._say(text)

    def _found_so_far(self) -> str:
        return "; ".join(
            f"{best} pairs exact with {length} prompt token{'s' if length > 1 else ''}"
            for length, best in sorted(self._best.items())
        )

    def _say(self, text: str) -> None:
        self._last_line = time.monotonic()
        self._console.print(text, markup=False)
