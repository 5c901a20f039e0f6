"""Tiny models and a witness of one, made once for the tests of this folder."""

import functools

import pytest
from tests.capacity.adapter.adapter_cases import adapter_case
from tests.capacity.cases import loaded, runs
from tests.capacity.witness.witness_cases import card_of, case_of

from promptlimits.capacity import floor as floor_module
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.witness.format import write_verification
from promptlimits.capacity.witness.fresh_process import Verifier
from promptlimits.capacity.witness.verify import verify_witness
from promptlimits.testing.tiny_models import tiny_causal_lm


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory):
    """The folder of a tiny GPT-2."""
    return tiny_causal_lm(tmp_path_factory.mktemp("model"), "gpt2")


@pytest.fixture(scope="session")
def model(tiny_gpt2):
    """That model, frozen."""
    return loaded(tiny_gpt2)


@pytest.fixture
def open_place(model, tmp_path):
    """Opens the one store of the test, again and again, as separate commands would."""
    opened = []

    def open_it():
        while opened:
            opened.pop().close()
        opened.append(Store.open(tmp_path / "store.sqlite"))
        return runs(model, opened[0])

    yield open_it
    while opened:
        opened.pop().close()


@pytest.fixture
def place(open_place):
    """What the runs of a test have in common."""
    return open_place()


@pytest.fixture
def in_this_process(monkeypatch):
    """Decode in this process what is decoded in a fresh one, which costs seconds."""

    def confirm(directory, verifier, *, on_progress):
        verification = verify_witness(directory, model_path=verifier.model_path)
        write_verification(directory, verification)
        return verification

    monkeypatch.setattr(floor_module, "confirm", confirm)
    monkeypatch.setattr(Verifier, "start", lambda _verifier: None)


def _family(root, family):
    # Gemma scales its tied embeddings up: with larger weights it repeats its last token.
    scale = 0.05 if family == "gemma3" else 0.3
    return tiny_causal_lm(root / family, family, init_scale=scale)


@pytest.fixture(scope="session")
def cases(tmp_path_factory):
    """The case of a family and a kind of prompt, made when it is first asked for."""

    @functools.cache
    def make(family, kind="soft"):
        return case_of(_family(tmp_path_factory.mktemp("models"), family), kind)

    return make


@pytest.fixture(scope="session")
def case(cases):
    """The case of a tiny Llama."""
    return cases("llama")


@pytest.fixture(params=["soft", "prefix"])
def each_kind(request, cases):
    """The case of a tiny Llama for each kind of prompt."""
    return cases("llama", request.param)


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
        return adapter_case(directory, _family(directory, family), family, name, card_of)

    return make
