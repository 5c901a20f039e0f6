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
    from promptlimits.models.protocol import PromptKind
    from promptlimits.tuning.loop import StepReport

FIRST_WORD_SECONDS: Final = 60.0
_PLAIN_LINE_SECONDS: Final = 10.0


class LiveListener:
    """Shows how the work goes; nothing of it goes to standard output.

    Args:
        quiet: Show nothing at all.
        noun: What sizes count.
    """

    def __init__(self, *, quiet: bool = False, noun: str = "pair") -> None:
        self._noun = noun
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

    def advanced(self, done: int) -> None:
        """So many parts of the stage are done."""
        self._progress.update(self._bar, completed=done)

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
        elif self._progress.disable and now - self._last_line >= _PLAIN_LINE_SECONDS:
            self._say(f"    {text} {report.best_exact} of {report.pairs}")

    def attempted(self, kind: PromptKind, prompt_tokens: int, attempt: Attempt) -> None:
        """An attempt has ended."""
        self._say(
            f"{_short(kind, prompt_tokens)}: {len(attempt.held)} of {self._sized(attempt.pairs)} "
            f"exact after {attempt.steps} steps, {attempt.seconds:.0f} s ({attempt.outcome.value})"
        )

    def found(self, text: str) -> None:
        """Something worth a line of its own."""
        self._say(text)

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


def _short(kind: PromptKind, prompt_tokens: int) -> str:
    """A kind and length in a few characters: "soft P=2"."""
    return f"{kind.value} P={prompt_tokens}"
