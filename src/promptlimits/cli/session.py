"""What the commands that train share: the model, the pairs, the store, and their settings."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from promptlimits._checks import require_positive_int
from promptlimits.cli.options import require_dtype
from promptlimits.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptlimits.models.huggingface.causal import HuggingFaceCausalLM
    from promptlimits.tasks.encoded import EncodedTask

STORE_FILE = "store.sqlite"


def load_model(
    reference: str,
    *,
    dtype: str,
    device: str,
    threads: int | None,
    offline: bool,
    on_progress: Callable[[str], None],
) -> HuggingFaceCausalLM:
    """Load the frozen model that a command names.

    Args:
        reference: Catalog name, directory, GGUF file or hub id.
        dtype: Name of the dtype it computes with.
        device: Where it runs.
        threads: CPU threads, or None.
        offline: Whether the hub is left alone.
        on_progress: Told of downloads and conversions.

    Returns:
        The model.

    Raises:
        UserError: There is no such model, device or dtype.
    """
    require_dtype(dtype)
    if threads is not None:
        require_positive_int("--threads", threads)
    import torch

    from promptlimits.models.huggingface.causal import HuggingFaceCausalLM
    from promptlimits.models.huggingface.load import load_parts

    if threads is not None:
        torch.set_num_threads(threads)
    parts = load_parts(
        reference,
        dtype=getattr(torch, dtype),
        device=device,
        allow_hub=not offline,
        on_progress=on_progress,
    )
    return HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)


def load_pairs(
    reference: str, model: HuggingFaceCausalLM, *, template: str, seed: int, limit: int | None
) -> EncodedTask:
    """Load the pairs that a command names, encoded for a model.

    Args:
        reference: Built-in name, random spec or file.
        model: The model.
        template: How a key is put.
        seed: Seed of random pairs and of a limited draw.
        limit: Pairs to keep, or None.

    Returns:
        The task.

    Raises:
        UserError: There is no such list, or it is faulty.
    """
    from promptlimits.tasks.resolve import load_task

    return load_task(reference, model.codec, template=template, seed=seed, limit=limit)


def command_line() -> str:
    """The command line, as a person can paste it."""
    return shlex.join(["promptlimits", *sys.argv[1:]])


def require_budget(seconds: float) -> float:
    """Return a budget of seconds above 0; infinity stands for no limit.

    Args:
        seconds: What the user typed.

    Returns:
        The budget.

    Raises:
        UserError: It is not above 0.
    """
    if not seconds > 0:
        raise UserError("--budget", "be above 0 seconds", got=seconds, remedy="leave it out")
    return seconds


def store_path(folder: Path) -> Path:
    """The store of an output folder."""
    return folder / STORE_FILE
