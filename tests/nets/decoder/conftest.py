"""Tiny stock models in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from promptlimits.nets.load.network import read_network
from promptlimits.testing.tiny_models import tiny_causal_lm

OpenModel = Callable[..., PreTrainedModel]


def _norm_in_own_dtype(network: nn.Module) -> None:
    """Stock RMSNorm rounds to float32 even in float64, which would hide a real difference."""

    def rms_norm(x: Tensor, *, gain: Tensor, eps: float) -> Tensor:
        return gain * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)

    for module in network.modules():
        if type(module).__name__ in ("LlamaRMSNorm", "Qwen2RMSNorm"):
            module.forward = partial(rms_norm, gain=module.weight, eps=module.variance_epsilon)
        elif type(module).__name__ == "Gemma3RMSNorm":
            module.forward = partial(rms_norm, gain=1 + module.weight, eps=module.eps)


@pytest.fixture(scope="session")
def open_model(tmp_path_factory: pytest.TempPathFactory) -> OpenModel:
    """Stock models of a family, made once for each size."""
    folder = tmp_path_factory.mktemp("decoders")

    def open_one(family: str, *, layers: int = 3, dtype: torch.dtype = torch.float64):
        path = Path(folder) / f"{family}-{layers}"
        if not path.exists():
            tiny_causal_lm(path, family, layers=layers)
        network = read_network(path, name=family, dtype=dtype).eval().requires_grad_(False)
        _norm_in_own_dtype(network)
        network.set_attn_implementation("sdpa")
        return network

    return open_one
