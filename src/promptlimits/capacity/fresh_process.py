"""Decoding in a process that has run nothing else, and recording what holds of a witness."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from promptlimits._typing import JsonObject
from promptlimits.capacity.verification import Verification
from promptlimits.capacity.witness_format import write_verification
from promptlimits.errors import PromptLimitsError, RunFailed, UserError

BATCH_SIZE: Final = 16
_PRECISE: Final = ("float32", "float64")
TIMEOUT_SECONDS: Final = 3600.0


def default_batch_size(compute_dtype: str) -> int:
    """How many keys are decoded together, so that whoever decodes them alone gets the same.

    In 16 bits rounding depends on how many rows a product has, and it turns answers: 1 of 192
    behind random prompts of a tiny Llama in bfloat16, none in float32, where a token that is
    counted leads by far more than rounding. So in 16 bits each key is decoded as `replay.py`
    decodes it, alone.

    Args:
        compute_dtype: What the model computes with.

    Returns:
        Keys decoded together.
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
) -> Verification:
    """Do what `verify_witness` does in a process that has run nothing else.

    Args:
        directory: The witness folder.
        model_path: Where the model is.
        any_weights: Decode with other weights too.
        batch_size: Keys decoded together; by default `default_batch_size`.
        device: Where to decode.
        timeout_seconds: When to give up.

    Returns:
        What was confirmed.

    Raises:
        UserError: As `verify_witness`.
        RunFailed: The process crashed, was killed or took too long.
    """
    arguments = [os.fspath(directory), "--json", "--device", device]
    arguments += ["--batch-size", str(batch_size)] if batch_size is not None else []
    arguments += ["--model", model_path] if model_path is not None else []
    arguments += ["--any-weights"] if any_weights else []
    reported = run_fresh(
        "promptlimits.capacity.witness",
        arguments,
        result="verification",
        doing=f"verifying {directory}",
        kept="; the witness is saved",
        late=f"run `promptlimits verify {directory}` on its own",
        timeout_seconds=timeout_seconds,
    )
    return Verification.from_json(reported)


def confirm(
    directory: Path,
    *,
    model_path: str | None = None,
    batch_size: int | None = None,
    device: str = "cpu",
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Verification:
    """Verify a witness in a fresh process and record in witness.json what holds.

    Pairs that were not answered exactly stay in the file, marked as not counted: nobody
    claims them.

    Args:
        directory: The witness folder.
        model_path: Where the model is.
        batch_size: Keys decoded together; by default `default_batch_size`.
        device: Where to decode.
        timeout_seconds: When to give up.

    Returns:
        What was confirmed, with the weights the witness was found with.

    Raises:
        UserError: As `verify_witness`.
        RunFailed: The process failed, or witness.json could not be written.
    """
    verification = verify_in_fresh_process(
        directory,
        model_path=model_path,
        batch_size=batch_size,
        device=device,
        timeout_seconds=timeout_seconds,
    )
    write_verification(directory, verification.to_json())
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
) -> dict[str, Any]:
    """Run a module of ours that ends in `report_to_parent`, in a process of its own.

    Args:
        module: The module, for `python -m`.
        arguments: Its arguments.
        result: Name of the object that it reports.
        doing: What it does, for messages, such as "verifying DIR".
        kept: What is not lost if it fails, for messages.
        late: What to do where the time is up.
        timeout_seconds: When to give up.

    Returns:
        That object.

    Raises:
        UserError: The one it met.
        RunFailed: As it met it; or the process crashed, was killed or took too long.
    """
    # -P: a file in the folder the user stands in must not be imported.
    command = [sys.executable, "-P", "-m", module, *arguments]
    # The same modules as here, in the same order, wherever this process found them.
    path = os.pathsep.join(os.fspath(Path(entry).absolute()) for entry in sys.path)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_seconds,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
        )
    except subprocess.TimeoutExpired:
        raise RunFailed(
            f"{doing} took more than {timeout_seconds:g} seconds", remedy=f"{late}{kept}"
        ) from None
    return _reported(done, result, doing=doing, kept=kept)


def report_to_parent(work: Callable[[], JsonObject]) -> int:
    """Do the work of a fresh process and write one line of JSON: its result, or its error.

    Args:
        work: What gives the object to report.

    Returns:
        The exit code: 0 if the work was done, otherwise that of the error.
    """
    code = 0
    try:
        line = work()
    except PromptLimitsError as error:
        line = {"error": _error_json(error)}
        code = error.exit_code
    sys.stdout.write(json.dumps(line) + "\n")
    return code


def _reported(
    done: subprocess.CompletedProcess[str], result: str, *, doing: str, kept: str
) -> dict[str, Any]:
    """What a fresh process reported; raises the error it met."""
    try:
        line = json.loads(done.stdout.splitlines()[-1])
        if result in line:
            return dict(line[result])
        error = line["error"]
    except (IndexError, ValueError, KeyError, TypeError) as cause:
        words = done.stderr.strip().splitlines()
        code = done.returncode
        ended = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        raise RunFailed(
            f"the process {doing} {ended} and gave no result "
            f"({words[-1] if words else 'it said nothing'})",
            remedy=f"free some memory and run the same command again{kept}",
        ) from cause
    if "rule" in error:
        raise UserError(error["name"], error["rule"], got=error["got"], remedy=error["remedy"])
    raise RunFailed(error["what"], remedy=error["remedy"])


def _error_json(error: PromptLimitsError) -> JsonObject:
    if isinstance(error, UserError):
        got = error.got if isinstance(error.got, str) else repr(error.got)
        return {"name": error.name, "rule": error.rule, "got": got, "remedy": error.remedy}
    if isinstance(error, RunFailed):
        return {"what": error.what, "remedy": error.remedy}
    return {"what": str(error), "remedy": "see the message"}
