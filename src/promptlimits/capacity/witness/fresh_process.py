"""Decoding in a process that has run nothing else, and recording what holds of a witness."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Any, Final, TextIO, TypeAlias

from promptlimits.base.errors import PromptLimitsError, RunFailed, UserError, quoted
from promptlimits.base.files import JsonObject
from promptlimits.capacity.witness.format import write_verification
from promptlimits.capacity.witness.verification import Verification

BATCH_SIZE: Final = 16
_PRECISE: Final = ("float32", "float64")
TIMEOUT_SECONDS: Final = 3600.0
_VERIFY: Final = "promptlimits.capacity.witness.verify"
_LAST_WORDS: Final = 40
"""Lines of standard error that are kept, for what a process said when it died."""

OnProgress: TypeAlias = Callable[[int, int], None]
"""Takes how many pairs are decoded, and of how many."""


def nobody(_done: int, _of: int) -> None:
    """Tell nobody."""


def default_batch_size(compute_dtype: str) -> int:
    """How many keys are decoded together, so that whoever decodes them alone gets the same.

    In 16 bits rounding depends on how many rows a product has, and it turns answers: 1 of 192
    behind random prompts of a tiny Llama in bfloat16, none in float32, where a token that is
    counted leads by far more than rounding. So in 16 bits each key is decoded as `replay.py`
    decodes it, alone.
    """
    return BATCH_SIZE if compute_dtype in _PRECISE else 1


class FreshProcess:
    """A process of ours that has run nothing before; it does not outlive this one.

    Args:
        module: What it runs; it ends its answers in `report_to_parent`.
        arguments: Of its command line.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        # The same modules as here, in the same order, wherever this process found them.
        path = os.pathsep.join(os.fspath(Path(entry).absolute()) for entry in sys.path)
        self._process = subprocess.Popen(
            # -P: a file in the folder the user stands in must not be imported.
            [sys.executable, "-P", "-m", module, *arguments],
            # Held open: a process that waits for a request sees its end when this one dies.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
        )
        self._lines: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
        for name, stream in (("out", self._process.stdout), ("err", self._process.stderr)):
            assert stream is not None
            threading.Thread(target=_read, args=(name, stream, self._lines), daemon=True).start()

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def ask(self, request: JsonObject) -> None:
        """Hand it a request, a line of JSON; whether it heard it, `answer` tells."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def answer(
        self,
        result: str,
        *,
        doing: str,
        late: str,
        kept: str = "",
        timeout_seconds: float = TIMEOUT_SECONDS,
        on_progress: OnProgress = nobody,
    ) -> dict[str, Any]:
        """Its next answer, passing on its progress; raises the error that it met."""
        last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        give_up = time.monotonic() + timeout_seconds
        try:
            ended = 0
            while ended < 2:
                name, line = self._lines.get(timeout=max(0.0, give_up - time.monotonic()))
                if line is None:
                    ended += 1
                elif name == "err":
                    last_words.append(line)
                elif not _passed_on(line, on_progress):
                    found = _reported(line, result)
                    if found is not None:
                        return found
            code = self._process.wait(timeout=max(0.0, give_up - time.monotonic()))
        except (queue.Empty, subprocess.TimeoutExpired):
            raise RunFailed(
                f"{doing} took more than {timeout_seconds:g} seconds", remedy=f"{late}{kept}"
            ) from None
        raise _gave_no_result(code, last_words, doing=doing, kept=kept)

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        # Of a request that it did not hear a part may still be buffered.
        with suppress(OSError), self._process:  # waits, and closes its streams
            pass


class Verifier:
    """Decodes witnesses of one model with stock tools in a fresh process.

    One process, which never saw how the prompts were found, decodes them one after the other and
    loads the model once. It may be started before there is a witness: then it loads and waits.

    Args:
        model_path: Where the model is; None for what each witness names.
        compute_dtype: Name of the dtype to load it with ahead of a request; None for not ahead.
        device: Where to decode.
    """

    def __init__(
        self,
        *,
        model_path: str | None = None,
        compute_dtype: str | None = None,
        device: str = "cpu",
    ) -> None:
        self.model_path, self.device = model_path, device
        self._place: JsonObject = {"model_path": model_path, "device": device}
        self._ahead: list[str] = []
        if compute_dtype is not None:
            self._ahead = [json.dumps({**self._place, "compute_dtype": compute_dtype})]
        self._process: FreshProcess | None = None

    def start(self) -> None:
        """Have the process load, if it is not there yet."""
        if self._process is None or not self._process.lives:
            self.close()
            self._process = FreshProcess(_VERIFY, *self._ahead)

    def verify(
        self,
        directory: Path,
        *,
        any_weights: bool = False,
        batch_size: int | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        on_progress: OnProgress | None = None,
    ) -> Verification:
        """What stock tools confirm of a witness, as it stands on disk now.

        Args:
            directory: The witness folder.
            any_weights: Decode with other weights too.
            batch_size: Keys decoded together; by default `default_batch_size`.
            timeout_seconds: When to give up.
            on_progress: Told, in this thread, how many pairs are decoded, and of how many.

        Returns:
            What was confirmed.

        Raises:
            UserError: The folder is no whole witness, or the model is not its own.
            RunFailed: The process crashed, was killed or took too long.
        """
        self.start()
        assert self._process is not None
        self._process.ask(
            {
                **self._place,
                "directory": os.fspath(Path(directory).absolute()),
                "any_weights": any_weights,
                "batch_size": batch_size,
            }
        )
        try:
            line = self._process.answer(
                "verification",
                doing=f"verifying {directory}",
                kept="; the witness is saved",
                late=f"run `promptlimits verify {quoted(directory)}` on its own",
                timeout_seconds=timeout_seconds,
                on_progress=on_progress or nobody,
            )
        except BaseException:
            self.close()
            raise
        return Verification.from_json({**line["verification"], "model": line["model"]})

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()
            self._process = None


def verify_in_fresh_process(
    directory: Path,
    *,
    model_path: str | None = None,
    any_weights: bool = False,
    batch_size: int | None = None,
    device: str = "cpu",
    timeout_seconds: float = TIMEOUT_SECONDS,
    on_progress: OnProgress | None = None,
) -> Verification:
    """Decode a witness with stock tools in a process that has run nothing else.

    Args:
        directory: The witness folder.
        model_path: Where the model is; by default what the witness names.
        any_weights: Decode with other weights too.
        batch_size: Keys decoded together; by default `default_batch_size`.
        device: Where to decode.
        timeout_seconds: When to give up.
        on_progress: Told, in this thread, how many pairs are decoded, and of how many.

    Returns:
        What was confirmed.

    Raises:
        UserError: The folder is no whole witness, or the model is not its own.
        RunFailed: The process crashed, was killed or took too long.
    """
    with closing(Verifier(model_path=model_path, device=device)) as verifier:
        return verifier.verify(
            directory,
            any_weights=any_weights,
            batch_size=batch_size,
            timeout_seconds=timeout_seconds,
            on_progress=on_progress,
        )


def confirm(
    directory: Path, verifier: Verifier, *, on_progress: OnProgress | None = None
) -> Verification:
    """Verify a witness in a fresh process and record in witness.json what holds.

    Pairs that were not answered exactly stay in the file, marked as not counted: nobody
    claims them.
    """
    verification = verifier.verify(directory, on_progress=on_progress)
    write_verification(directory, verification)
    return verification


def run_fresh(
    module: str,
    arguments: Sequence[str],
    *,
    result: str,
    doing: str,
    late: str,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Run a module of ours that ends in `report_to_parent`, in a process of its own."""
    with closing(FreshProcess(module, *arguments)) as process:
        return process.answer(result, doing=doing, late=late, on_progress=on_progress or nobody)


def report_to_parent(work: Callable[[], JsonObject]) -> int:
    """Do the work of a fresh process and write one line of JSON: its result, or its error."""
    code = 0
    try:
        line = work()
    except PromptLimitsError as error:
        line = {"error": _error_json(error)}
        code = error.exit_code
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    return code


def tell_progress(stream: TextIO) -> OnProgress:
    """What the fresh process tells its progress with."""

    def tell(done: int, of: int) -> None:
        stream.write(json.dumps({"progress": [done, of]}) + "\n")
        stream.flush()

    return tell


def reported(verification: Verification) -> JsonObject:
    """The line with which the fresh process ends."""
    model = None if verification.model is None else verification.model.to_json()
    return {"verification": verification.to_json(), "model": model}


def _read(name: str, stream: IO[str], lines: queue.SimpleQueue[tuple[str, str | None]]) -> None:
    """Hand on the lines of a stream as they come, and None at its end."""
    try:
        for line in stream:
            lines.put((name, line.rstrip("\n")))
    finally:
        lines.put((name, None))


def _passed_on(line: str, on_progress: OnProgress) -> bool:
    """Whether a line told of progress; if so, it is passed on."""
    if not line.startswith('{"progress": '):
        return False
    done, of = json.loads(line)["progress"]
    on_progress(done, of)
    return True


def _reported(line: str, result: str) -> dict[str, Any] | None:
    """The answer that a line is, if it is one; raises the error it tells of."""
    try:
        found: dict[str, Any] = json.loads(line)
        if result in found:
            return found
        error = found["error"]
        what = error["rule"] if "rule" in error else error["what"]
    except (ValueError, KeyError, TypeError):
        return None
    if "rule" in error:
        raise UserError(error["name"], what, got=error["got"], remedy=error["remedy"])
    raise RunFailed(what, remedy=error["remedy"])


def _gave_no_result(code: int, last_words: Sequence[str], *, doing: str, kept: str) -> RunFailed:
    """The error for a process that crashed or was killed."""
    words = [line for line in last_words if line.strip()]
    said = words[-1].strip() if words else "it said nothing"
    ended = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    killed = code < 0 or code > 128 or "memory" in said.lower()
    what_for = "free some memory and run" if killed else "run"
    return RunFailed(
        f"the process {doing} {ended} and gave no result ({said})",
        remedy=f"{what_for} the same command again{kept}",
    )


def _error_json(error: PromptLimitsError) -> JsonObject:
    if isinstance(error, UserError):
        got = error.got if isinstance(error.got, str) else repr(error.got)
        return {"name": error.name, "rule": error.rule, "got": got, "remedy": error.remedy}
    if isinstance(error, RunFailed):
        return {"what": error.what, "remedy": error.remedy}
    return {"what": str(error), "remedy": "see the message"}
