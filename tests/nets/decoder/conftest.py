"""Tiny stock models in float64."""

from pathlib import Path

import pytest
import torch
from tests.reference.separate_sequences import norm_in_own_dtype

from promptlimits.nets.load.network import read_network
from promptlimits.testing.tiny_models import tiny_causal_lm


@pytest.fixture(scope="session")
def open_model(tmp_path_factory):
    """Stock models of a family, made once for each size."""
    folder = tmp_path_factory.mktemp("decoders")

    def open_one(family, *, layers=3, dtype=torch.float64):
        path = Path(folder) / f"{family}-{layers}"
        if not path.exists():
            tiny_causal_lm(path, family, layers=layers)
        network = read_network(path, name=family, dtype=dtype).eval().requires_grad_(False)
        norm_in_own_dtype(network)
        network.set_attn_implementation("sdpa")
        return network

    return open_one
