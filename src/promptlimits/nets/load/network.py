"""Reading a network from disk, with every weight present and finite."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

from promptlimits.base.errors import PromptLimitsError, UserError
from promptlimits.base.files import UnfitFile

LOADING_ERRORS = (
    *(OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError, ImportError),
    *(ArithmeticError, AssertionError, EOFError, struct.error, SafetensorError),
)
"""What transformers raises over files, settings and inputs that it does not take."""
_MOST_SAID = 240
_MEMORY_WORDS = ("out of memory", "not enough memory", "can't allocate memory")


@contextmanager
def readable(name: str, rule: str, *, remedy: str) -> Iterator[None]:
    """Turn whatever transformers raises inside into one line for people."""
    try:
        yield
    except (PromptLimitsError, MemoryError):
        raise
    except Exception as error:  # of tokenizers there are bare ones
        said = _in_a_line(error)
        if any(words in said.lower() for words in _MEMORY_WORDS):
            raise MemoryError(said) from error
        if "No space left" in said:  # safetensors has no error number to go by
            raise OSError(errno.ENOSPC, "No space left on device") from error
        raise UserError(name, rule, got=said, remedy=remedy) from error


def _in_a_line(error: Exception) -> str:
    """An error's kind and the first line of its message, the next too if that announces it."""
    if isinstance(error, UnfitFile):
        return str(error.strerror)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    said = " ".join(lines[:2] if lines[0].endswith(":") else lines[:1])
    said = f"{type(error).__name__}: {said.rstrip('.')}"
    return said if len(said) <= _MOST_SAID else said[:_MOST_SAID].rsplit(" ", 1)[0] + " …"


def require_device(device: torch.device | str) -> None:
    """Check that numbers can be put on a device and read back."""
    with readable("device", "be usable here", remedy="use cpu"):
        try:
            torch.zeros(1, device=device).item()  # "meta" has no numbers to give back
        except AssertionError as error:  # a build without CUDA asserts
            raise RuntimeError(str(error)) from error


def read_network(
    directory: Path, *, name: str, dtype: torch.dtype, gguf_file: str | None = None
) -> PreTrainedModel:
    """Read a causal language model from a directory, never from pickle or remote code."""
    source = {"gguf_file": gguf_file} if gguf_file else {"use_safetensors": True}
    with readable(name, "be readable by transformers", remedy="download it again"):
        model, info = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=dtype,
            attn_implementation="eager",
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **source,
        )
    # transformers fills what is missing with random numbers and only warns.
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            name,
            "hold every weight of its architecture",
            got=f"{len(missing)} missing ({', '.join(missing[:2])})",
            remedy="download it again, or name the architecture it was saved as in config.json",
        )
    _require_finite(model, name)
    network: PreTrainedModel = model
    return network


def _require_finite(model: PreTrainedModel, name: str) -> None:
    for key, weight in model.named_parameters():
        # A sum is one fast pass; only a large finite sum can overflow, so look twice.
        if not torch.isfinite(weight.detach().sum()) and not torch.isfinite(weight).all():
            raise UserError(
                name,
                "have finite weights only",
                got=f"NaN or infinity in {key}",
                remedy="download it again, or load it with a wider dtype",
            )
