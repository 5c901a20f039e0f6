"""Whether a model's weights can be what its configuration describes, before any is read.

Whoever builds a network of 70 billion random numbers to find that none of its weights is there has
no memory left to say so. Built on torch's "meta" device it takes none.
"""

from __future__ import annotations

import os
from typing import Final

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from promptlimits.base.errors import UserError
from promptlimits.nets.load.network import readable

_MEND: Final = "mend that setting, or get the model's own config.json"
_MOST_LAYERS: Final = 10_000
_LEAST_SHARE: Final = 0.5
"""Part of the weights that must be there; which ones, reading them finds out."""
_MOST_TIMES: Final = 8
"""How much more may be: other heads, and the towers of other senses."""


def require_size(config: PretrainedConfig, held: int, *, name: str, dtype: torch.dtype) -> None:
    """Check that a model's files hold about as many numbers as it has weights, and they fit."""
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if isinstance(layers, int) and layers > _MOST_LAYERS:
        raise _wrong_size(name, f"{layers} layers in config.json")
    with (
        readable(name, "have a config.json that describes a network", remedy=_MEND),
        torch.device("meta"),
    ):
        network = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
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
            got=f"{size / 1e9:.0f} GB of weights in {str(dtype).removeprefix('torch.')}",
            remedy="use a smaller model or a narrower --dtype, or a larger machine",
        )


def _wrong_size(name: str, got: str) -> UserError:
    return UserError(
        name,
        "have the weights that its config.json describes",
        got=got,
        remedy="use the config.json that belongs to these weights, or download them again",
    )
