"""Verifying a witness in a process that has run nothing else, and recording what holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from promptlimits.capacity.verification import Verification
from promptlimits.capacity.witness_format import write_verification
from promptlimits.errors import RunFailed, UserError

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
    # -P: a file in the folder the user stands in must not be imported.
    command = [sys.executable, "-P", "-m", "promptlimits.capacity.witness", os.fspath(directory)]
    command += ["--json", "--device", device]
    command += ["--batch-size", str(batch_size)] if batch_size is not None else []
    command += ["--model", model_path] if model_path is not None else []
    command += ["--any-weights"] if any_weights else []
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
            f"verifying {directory} took more than {timeout_seconds:g} seconds",
            remedy=f"run `promptlimits verify {directory}` on its own; the witness is saved",
        ) from None
    return _reported(done, directory)


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


def _reported(done: subprocess.CompletedProcess[str], directory: Path) -> Verification:
    """The verification a fresh process reported, or the error it met."""
    try:
        line = json.loads(done.stdout.splitlines()[-1])
        if "verification" in line:
            return Verification.from_json(line["verification"])
        error = line["error"]
    except (IndexError, ValueError, KeyError, TypeError) as cause:
        words = done.stderr.strip().splitlines()
        code = done.returncode
        ended = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        raise RunFailed(
            f"the process that verified {directory} {ended} and gave no result "
            f"({words[-1] if words else 'it said nothing'})",
            remedy="free some memory and run the same command again; the witness is saved",
        ) from cause
    if "rule" in error:
        raise UserError(error["name"], error["rule"], got=error["got"], remedy=error["remedy"])
    raise RunFailed(error["what"], remedy=error["remedy"])
