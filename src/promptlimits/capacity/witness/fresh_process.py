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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, TextIO, TypeAlias

from promptlimits.base.errors import PromptLimitsError, RunFailed, UserError, quoted
from promptlimits.base.files import JsonObject
from promptlimits.capacity.witness.format import write_verification
from promptlimits.capacity.witness.verification import Verification

BATCH_SIZE: Final = 16
_PRECISE: Final = ("float32", "float64")
TIMEOUT_SECONDS: Final = 3600.0
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
    asked = {
        "directory": os.fspath(directory),
        "model_path": model_path,
        "any_weights": any_weights,
        "batch_size": batch_size,
        "device": device,
    }
    line = run_fresh(
        "promptlimits.capacity.witness.verify",
        [json.dumps(asked)],
        result="verification",
        doing=f"verifying {directory}",
        kept="; the witness is saved",
        late=f"run `promptlimits verify {quoted(directory)}` on its own",
        timeout_seconds=timeout_seconds,
        on_progress=on_progress,
    )
    return Verification.from_json({**line["verification"], "model": line["model"]})


def confirm(
    directory: Path,
    *,
    model_path: str | None = None,
    device: str = "cpu",
    on_progress: OnProgress | None = None,
) -> Verification:
    """Verify a witness in a fresh process and record in witness.json what holds.

    Pairs that were not answered exactly stay in the file, marked as not counted: nobody
    claims them.
    """
    verification = verify_in_fresh_process(
        directory, model_path=model_path, device=device, on_progress=on_progress
    )
    write_verification(directory, verification)
    return verification


def run_fresh(
    module: str,
    arguments: Sequence[str],
    *,
    result: str,
    doing: str,
    kept: str = "",
    late: str = "ask for less at a time",
    timeout_seconds: float = TIMEOUT_SECONDS,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Run a module of ours that ends in `report_to_parent`, in a process of its own."""
    # -P: a file in the folder the user stands in must not be imported.
    command = [sys.executable, "-P", "-m", module, *arguments]
    # The same modules as here, in the same order, wherever this process found them.
    path = os.pathsep.join(os.fspath(Path(entry).absolute()) for entry in sys.path)
    try:
        done = _run(
            command,
            env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
            timeout_seconds=timeout_seconds,
            on_progress=on_progress or nobody,
        )
    except subprocess.TimeoutExpired:
        raise RunFailed(
            f"{doing} took more than {timeout_seconds:g} seconds", remedy=f"{late}{kept}"
        ) from None
    return _reported(done, result, doing=doing, kept=kept)


def report_to_parent(work: Callable[[], JsonObject]) -> int:
    """Do the work of a fresh process and write one line of JSON: its result, or its error."""
    code = 0
    try:
        line = work()
    except PromptLimitsError as error:
        line = {"error": _error_json(error)}
        code = error.exit_code
    sys.stdout.write(json.dumps(line) + "\n")
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


def _run(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    timeout_seconds: float,
    on_progress: OnProgress,
) -> subprocess.CompletedProcess[str]:
    """Run a process to its end, passing on its progress; it does not outlive this call."""
    said: dict[str, deque[str]] = {"out": deque(maxlen=1), "err": deque(maxlen=_LAST_WORDS)}
    lines: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
    give_up = time.monotonic() + timeout_seconds
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=env,
    ) as process:
        streams = {"out": process.stdout, "err": process.stderr}
        for name, stream in streams.items():
            assert stream is not None
            threading.Thread(target=_read, args=(name, stream, lines), daemon=True).start()
        try:
            ended = 0
            while ended < len(streams):
                name, line = lines.get(timeout=max(0.0, give_up - time.monotonic()))
                if line is None:
                    ended += 1
                elif not _passed_on(line, on_progress):
                    said[name].append(line)
            code = process.wait(timeout=max(0.0, give_up - time.monotonic()))
        except queue.Empty:
            process.kill()
            raise subprocess.TimeoutExpired(command, timeout_seconds) from None
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(
        command, code, "\n".join(said["out"]), "\n".join(said["err"])
    )


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


def _reported(
    done: subprocess.CompletedProcess[str], result: str, *, doing: str, kept: str
) -> dict[str, Any]:
    """The line a fresh process ended with; raises the error it met."""
    try:
        line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        if result in line:
            return line
        error = line["error"]
    except (IndexError, ValueError, KeyError, TypeError) as cause:
        raise _gave_no_result(done, doing=doing, kept=kept) from cause
    if "rule" in error:
        raise UserError(error["name"], error["rule"], got=error["got"], remedy=error["remedy"])
    raise RunFailed(error["what"], remedy=error["remedy"])


def _gave_no_result(done: subprocess.CompletedProcess[str], *, doing: str, kept: str) -> RunFailed:
    """The error for a process that crashed or was killed."""
    words = done.stderr.strip().splitlines()
    said = words[-1] if words else "it said nothing"
    code = done.returncode
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
