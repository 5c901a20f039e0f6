"""Tiny models and a witness of one, made once for the tests of this folder."""

import functools

import pytest
from tests.capacity.adapter.adapter_cases import adapter_case
from tests.capacity.witness.witness_cases import card_of, case_of

from promptlimits.capacity import floor as floor_module
from promptlimits.capacity.witness.format import write_verification
from promptlimits.capacity.witness.verify import verify_witness
from promptlimits.nets.load.load import load_parts
from promptlimits.nets.routes.causal import HuggingFaceCausalLM
from promptlimits.testing.tiny_models import tiny_causal_lm


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A tiny GPT-2."""
    parts = load_parts(str(tiny_causal_lm(tmp_path_factory.mktemp("model"), "gpt2")))
    return HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)


@pytest.fixture
def in_this_process(monkeypatch):
    """Decode in this process what is decoded in a fresh one, which costs seconds."""

    def confirm(directory, *, model_path, on_progress):
        verification = verify_witness(directory, model_path=model_path)
        write_verification(directory, verification.to_json())
        return verification

    monkeypatch.setattr(floor_module, "confirm", confirm)


@pytest.fixture(scope="session")
def cases(tmp_path_factory):
    """The case of a family and a kind of prompt, made when it is first asked for."""

    @functools.cache
    def make(family, kind="soft"):
        # Gemma scales its tied embeddings up: with larger weights it repeats its last token.
        scale = 0.05 if family == "gemma3" else 0.3
        directory = tmp_path_factory.mktemp("models") / family
        return case_of(tiny_causal_lm(directory, family, init_scale=scale), kind)

    return make


@pytest.fixture(scope="session")
def case(cases):
    """The case of a tiny Llama."""
    return cases("llama")


@pytest.fixture
def witness(case, tmp_path):
    """A witness of it, to be spoiled."""
    return case.save(tmp_path / "witness-3-tokens")


@pytest.fixture(scope="session")
def adapters(tmp_path_factory):
    """The case of an adapter on a tiny model of a family, made when it is first asked for."""

    @functools.cache
    def make(name, family="llama"):
        directory = tmp_path_factory.mktemp("adapters")
        # Gemma scales its tied embeddings up: with larger weights it repeats its last token.
        scale = 0.05 if family == "gemma3" else 0.3
        model = tiny_causal_lm(directory / family, family, init_scale=scale)
        return adapter_case(directory, model, family, name, card_of)

    return make
