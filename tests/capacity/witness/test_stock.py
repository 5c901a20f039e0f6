"""The self-test of the installed PEFT and transformers: it passes, and sees what they lose."""

import re

import peft
import pytest
import torch
import transformers
from packaging.specifiers import SpecifierSet
from tests.capacity.cases import measured
from tests.capacity.witness.witness_cases import greedy as slow_greedy

from promptlimits.base.errors import UserError
from promptlimits.capacity.adapter import decoding as adapter_decoding
from promptlimits.capacity.search.ordering import Order
from promptlimits.capacity.search.request import Request
from promptlimits.capacity.search.search import SearchConfig
from promptlimits.capacity.store.provenance import Installed
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.random_tokens import random_pairs
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.witness import stock
from promptlimits.capacity.witness.stock import KEYS, check_stock_tools, require_stock_tools
from promptlimits.nets.load.network import quiet
from promptlimits.nets.load.stock import greedy, load_stock, small_network
from promptlimits.nets.protocol import PromptKind

KINDS = pytest.mark.parametrize("kind", list(PromptKind))


@pytest.fixture(autouse=True)
def _nothing_is_kept():
    check_stock_tools.cache_clear()
    yield
    check_stock_tools.cache_clear()


@pytest.fixture
def renamed_cache(monkeypatch):
    """As transformers 5.24 does: the cache goes to the model under another name than PEFT knows."""
    prepare = transformers.LlamaForCausalLM.prepare_inputs_for_generation
    forward = transformers.LlamaForCausalLM.forward

    def prepared(self, *args, **named):
        inputs = prepare(self, *args, **named)
        inputs["cache"] = inputs.pop("past_key_values", None)
        return inputs

    def run(self, *args, cache=None, past_key_values=None, **named):
        return forward(self, *args, past_key_values=cache or past_key_values, **named)

    monkeypatch.setattr(transformers.LlamaForCausalLM, "prepare_inputs_for_generation", prepared)
    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", run)


def tools(monkeypatch, *, transformers_version):
    found = {
        "peft": Installed(name="peft", version="0.21.2", allowed=SpecifierSet(">=0.21,<0.22")),
        "transformers": Installed(
            name="transformers",
            version=transformers_version,
            allowed=SpecifierSet(">=5.23,<5.24"),
        ),
    }
    monkeypatch.setattr(stock, "installed", found.__getitem__)


@KINDS
def test_the_installed_tools_decode_as_they_should(kind):
    check = check_stock_tools(kind)
    assert (check.good, check.alike, check.remedy) == (True, len(KEYS), "")
    assert check.text == (
        f"{len(KEYS)} of {len(KEYS)} keys answered alike by peft {peft.__version__} with "
        f"transformers {transformers.__version__}"
    )
    require_stock_tools(PromptKind)


@KINDS
def test_the_prompt_is_what_answers(kind):
    """Without it every key is answered otherwise."""
    with quiet():
        wanted, found = stock._both_ways(kind)
    assert wanted == found
    network = small_network(vocabulary=48, seed=0)
    bare = [greedy(network, key, tokens=stock.TOKENS) for key in KEYS]
    assert not any(with_it == without for with_it, without in zip(wanted, bare, strict=True))
    assert len(set(wanted)) == len(KEYS)
    assert min(len(set(answer)) for answer in wanted) >= 3


@KINDS
def test_the_yardstick_is_the_slow_loop_of_the_tests(kind):
    network = small_network(vocabulary=48, seed=1)
    shape = stock._SHAPE if kind is PromptKind.PREFIX else None
    width = 16 if shape is None else shape.width
    prompt = torch.randn(3, width, generator=torch.Generator().manual_seed(1))
    for key in KEYS:
        expected = slow_greedy(network, prompt, key, shape)
        found = greedy(network, key, tokens=6, prompt=prompt, prefix_shape=shape)
        assert found == expected


@KINDS
def test_a_cache_that_peft_does_not_see_is_seen_here(kind, renamed_cache, monkeypatch):
    tools(monkeypatch, transformers_version="5.24.0")
    check = check_stock_tools(kind)
    assert not check.good
    with pytest.raises(UserError) as refused:
        require_stock_tools([kind])
    said = str(refused.value)
    assert re.match(r"peft and transformers must decode behind a (soft prompt|KV prefix) as ", said)
    assert f"got {check.alike} of {len(KEYS)} keys answered alike by peft 0.21.2" in said
    assert "transformers 5.24.0" in said
    assert "allowed are peft>=0.21,<0.22 and transformers>=5.23,<5.24: " in said
    assert said.endswith("-m pip install 'peft>=0.21,<0.22' 'transformers>=5.23,<5.24'")


def test_versions_that_are_allowed_and_fail_are_not_to_be_installed_again(
    renamed_cache, monkeypatch
):
    tools(monkeypatch, transformers_version="5.23.0")
    remedy = check_stock_tools(PromptKind.SOFT).remedy
    assert remedy.endswith("are allowed, so this is a fault of promptlimits: report it")
    assert "pip" not in remedy


def test_whatever_the_tools_raise_is_a_finding(monkeypatch):
    def raising(*_args, **_named):
        raise TypeError("got an unexpected keyword argument")

    monkeypatch.setattr(peft.PeftModel, "from_pretrained", raising)
    check = check_stock_tools(PromptKind.SOFT)
    assert not check.good
    assert check.text.endswith("(TypeError: got an unexpected keyword argument)")


def test_nothing_is_trained_with_tools_that_confirm_nothing(model, renamed_cache, tmp_path):
    request = Request(
        prompt_tokens=(1,),
        search=SearchConfig(training=TrainingConfig(prompt_tokens=1)),
        order=Order.GIVEN,
    )
    task = random_pairs(model.codec, count=2, seed=0)
    with pytest.raises(UserError, match="peft and"):
        measured(model, task, request, tmp_path)
    with Store.open(tmp_path / "store.sqlite") as store:
        assert store.runs() == []


@pytest.mark.parametrize("kind", ["soft", "prefix"])
def test_an_adapter_is_not_scored_by_tools_that_lose_it(cases, kind, request, tmp_path):
    case = cases("llama", kind)
    directory = case.save(tmp_path / "w")
    loaded = load_stock(str(case.model))
    request.getfixturevalue("renamed_cache")
    with pytest.raises(UserError, match="peft and transformers must decode"):
        adapter_decoding._behind_adapter(loaded, directory, trained_for="tiny")


def test_a_witness_is_not_called_wrong_by_tools_that_are(case, witness, renamed_cache):
    with pytest.raises(UserError, match="peft and transformers must decode"):
        case.verify(witness)
