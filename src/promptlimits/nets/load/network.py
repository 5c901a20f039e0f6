"""A network from disk: every weight present and finite, and as many as the configuration says.

Whoever builds a network of 70 billion random numbers to find that none of its weights is there has
no memory left to say so. Built on torch's "meta" device it takes none. Around calls into
transformers there is silence: what a user must know is checked here and raised as an error.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from promptlimits.base.errors import PromptLimitsError, UserError
from promptlimits.base.files import UnfitFile


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers and huggingface_hub; restore both afterwards."""
    sink = io.StringIO()
    verbosity = transformers_logging.get_verbosity()
    transformers_bars = transformers_logging.is_progress_bar_enabled()
    hub_bars_off = are_progress_bars_disabled()
    hub_logger = logging.getLogger("huggingface_hub")
    hub_level = hub_logger.level
    transformers_logging.set_verbosity(logging.CRITICAL)
    hub_logger.setLevel(logging.CRITICAL)
    # Turns off the bars of both libraries.
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    try:
        # The GGUF reader's bar obeys no switch: only a redirected stream keeps it quiet.
        with warnings.catch_warnings(), redirect_stdout(sink), redirect_stderr(sink):
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        hub_logger.setLevel(hub_level)
        if transformers_bars:
            transformers_logging.enable_progress_bar()
        if hub_bars_off:
            disable_progress_bars()
        else:
            enable_progress_bars()


LOADING_ERRORS: Final = (
    *(OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError, ImportError),
    *(ArithmeticError, AssertionError, EOFError, struct.error, SafetensorError),
)
"""What transformers raises over files, settings and inputs that it does not take."""
MEND_CONFIG: Final = "mend that setting, or get the model's own config.json"

_MOST_SAID: Final = 240
_MEMORY_WORDS: Final = ("out of memory", "not enough memory", "can't allocate memory")
_MOST_LAYERS: Final = 10_000
_LEAST_SHARE: Final = 0.5
"""Part of the weights that must be there; which ones, reading them finds out."""
_MOST_TIMES: Final = 8
"""How much more may be: other heads, and the towers of other senses."""


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


def alike(found: Tensor, expected: Tensor, *, dtype: torch.dtype) -> bool:
    """Whether two ways to compute logits in `dtype` give the same.

    To half the digits: far above rounding, far below any real difference. Stock attention takes
    its softmax in float32 whatever the dtype.
    """
    eps = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    tolerance = eps**0.5 * float(expected.abs().max())
    return found.shape == expected.shape and bool((found - expected).abs().max() <= tolerance)


def skeleton(config: PretrainedConfig, *, name: str, **options: Any) -> PreTrainedModel:
    """The network that a configuration describes, without numbers."""
    with (
        readable(name, "have a config.json that describes a network", remedy=MEND_CONFIG),
        torch.device("meta"),
    ):
        network: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, trust_remote_code=False, **options
        )
    return network


def require_size(config: PretrainedConfig, held: int, *, name: str, dtype: torch.dtype) -> None:
    """Check that a model's files hold about as many numbers as it has weights, and they fit."""
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if isinstance(layers, int) and layers > _MOST_LAYERS:
        raise _wrong_size(name, f"{layers} layers in config.json")
    network = skeleton(config, name=name, dtype=dtype)
    needed = sum(weight.numel() for weight in network.parameters())
    if needed < 1:
        raise _wrong_size(name, "a network without weights in config.json")
    # Quantised weights are packed: how many there are is not how many numbers are stored.
    packed = getattr(config, "quantization_config", None) is not None
    if not packed and not _LEAST_SHARE * needed <= held <= _MOST_TIMES * needed:
        raise _wrong_size(name, f"{held:,} numbers in its files for {needed:,} weights")
    require_room(needed, name=name, dtype=dtype)


def require_room(numbers: int, *, name: str, dtype: torch.dtype) -> None:
    """Check that the memory of this machine could hold a model, were it empty."""
    size = numbers * dtype.itemsize
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory:
        raise UserError(
            name,
            f"fit into the {memory / 1e9:.0f} GB of memory here",
            got=f"{size / 1e9:.0f} GB of weights in {dtype_name(dtype)}",
            remedy="use a smaller model or a narrower --dtype, or a larger machine",
        )


def dtype_name(dtype: torch.dtype) -> str:
    """As records and options have it: "float32"."""
    return str(dtype).removeprefix("torch.")


def _wrong_size(name: str, got: str) -> UserError:
    return UserError(
        name,
        "have the weights that its config.json describes",
        got=got,
        remedy="use the config.json that belongs to these weights, or download them again",
    )


def read_network(
    directory: Path, *, name: str, dtype: torch.dtype, **options: Any
) -> PreTrainedModel:
    """Read a causal language model from a directory, never from pickle or remote code.

    `options` are transformers' own: another attention than its choice, a GGUF file.
    """
    with readable(name, "be readable by transformers", remedy="download it again"):
        model, info = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            use_safetensors=None if "gguf_file" in options else True,
            **options,
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
    network: PreTrainedModel = model
    for key, weight in network.named_parameters():
        # A sum is one fast pass; only a large finite sum can overflow, so look twice.
        if not torch.isfinite(weight.detach().sum()) and not torch.isfinite(weight).all():
            raise UserError(
                name,
                "have finite weights only",
                got=f"NaN or infinity in {key}",
                remedy="download it again, or load it with a wider dtype",
            )
    return network
