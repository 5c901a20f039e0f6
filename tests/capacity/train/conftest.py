"""A tiny frozen model and pairs for it."""

from pathlib import Path

import pytest
import torch

from promptlimits.nets.load.load import load_parts
from promptlimits.nets.protocol import EncodedPair
from promptlimits.nets.routes.causal import HuggingFaceCausalLM
from promptlimits.testing.tiny_models import tiny_causal_lm


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A random GPT-2 of two layers in float64, which makes equalities sharp."""
    directory = tiny_causal_lm(tmp_path_factory.mktemp("tiny"), "gpt2")
    parts = load_parts(str(Path(directory)), dtype=torch.float64)
    return HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)


@pytest.fixture
def pairs():
    """Three pairs of different lengths; token 0 is the end marker."""
    ids = (((5,), (9, 0)), ((6, 7, 8), (12, 0)), ((11, 3), (4, 13, 0)))
    return [EncodedPair(key="", value="", key_ids=a, value_ids=b) for a, b in ids]
