"""A KV prefix is saved, replayed and refused as a soft prompt is."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.capacity.cases import loaded
from tests.capacity.witness.test_witness_forged import sign
from tests.capacity.witness.witness_cases import PROMPT_TOKENS, edit

from promptlimits.base.errors import UserError
from promptlimits.capacity.witness.format import (
    WITNESS_SCHEMA,
    read_prompt,
    read_witness,
    save_witness,
)
from promptlimits.capacity.witness.verify import verify_witness
from promptlimits.nets.prefix_shape import PrefixShape
from promptlimits.nets.protocol import EncodedPair, Part, PromptKind, pack
from promptlimits.testing.tiny_models import tiny_causal_lm

ADAPTER = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def case(cases):
    """The case of a tiny Llama with grouped heads: 2 layers of 2 heads of width 8."""
    return cases("llama", "prefix")


@pytest.fixture
def witness(case, tmp_path):
    return case.save(tmp_path / "witness-prefix-3-tokens")


# --- what it confirms ---------------------------------------------------------------------


def test_a_trained_prefix_holds_in_stock_peft_what_it_was_trained_for(tmp_path):
    """A plain loop of Adam from the keys and values of random tokens, to exactness."""
    directory = tiny_causal_lm(tmp_path / "model", "llama")
    # No prompt makes a random model say the end marker it comes with.
    edit(directory, "generation_config.json", lambda config: config.update(eos_token_id=300))
    model = loaded(directory)
    codec = model.codec
    pairs = [
        EncodedPair(
            key=key,
            value=value,
            key_ids=codec.encode_key(key),
            value_ids=(*codec.encode_value(value), codec.end_id),
        )
        for key, value in (("France", "Paris"), ("Peru", "Lima"), ("one", "two"), ("cat", "dog"))
    ]
    packed = pack(pairs)
    ids = torch.tensor([codec.plain_token_ids()[:2]])
    prefix = model.prefix_from_tokens(ids)[0].requires_grad_()
    batch = model.prepare([Part(prompt_tokens=2, pairs=packed)], kind=PromptKind.PREFIX)
    adam = torch.optim.Adam([prefix], lr=0.3)
    for _ in range(100):
        logits = model.head.logits(batch.read_states(prefix))
        if bool((logits.argmax(-1) == packed.targets).all()):
            break
        adam.zero_grad()
        torch.nn.functional.cross_entropy(logits, packed.targets).backward()
        adam.step()
    save_witness(
        tmp_path / "w",
        prompt=prefix.detach(),
        card=model.card,
        task_name="four",
        task_hash="0" * 64,
        pairs=pairs,
        prefix_shape=model.prefix_shape,
    )
    found = verify_witness(tmp_path / "w", model_path=model.card.path)
    assert found.pairs_exact == found.of == len(pairs)
    assert [answer.decoded for answer in found.answers] == ["Paris", "Lima", "two", "dog"]


# --- what it says -------------------------------------------------------------------------


def test_it_says_what_it_is(case, witness):
    said = json.loads((witness / "witness.json").read_text())
    assert (said["schema"], said["kind"]) == (WITNESS_SCHEMA, "prefix")
    assert said["prefix_shape"] == {"layers": 2, "kv_heads": 2, "head_dim": 8}
    config = json.loads((witness / "adapter_config.json").read_text())
    assert config == {
        "peft_type": "PREFIX_TUNING",
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": PROMPT_TOKENS,
        "num_transformer_submodules": 1,
        "num_layers": 2,
        "num_attention_heads": 2,
        "token_dim": 16,
        "inference_mode": True,
        "base_model_name_or_path": "tiny",
    }
    saved = load_file(witness / ADAPTER)
    assert list(saved) == ["prompt_embeddings"]
    assert torch.equal(saved["prompt_embeddings"], case.prompt)
    read = read_witness(witness)
    assert (read.kind, read.width, read.prefix_shape) == ("prefix", 64, case.prefix_shape)
    assert torch.equal(read_prompt(witness, read), case.prompt)


def test_a_soft_prompt_has_no_layout(cases, tmp_path):
    case = cases("llama")
    directory = case.save(tmp_path / "w")
    read = read_witness(directory)
    assert (read.kind, read.width, read.prefix_shape) == ("soft", 32, None)
    assert case.verify(directory).pairs_exact == len(case.pairs)
    edit(directory, "witness.json", lambda document: document.pop("kind"))
    with pytest.raises(UserError, match="kind: Field required"):
        read_witness(directory)


# --- what it refuses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["transform.0.weight", "prompt_encoder.default.embedding.weight", "embedding.weight"]
)
def test_what_an_encoder_of_prefixes_could_load_is_refused(case, witness, name):
    tensors = load_file(witness / ADAPTER)
    save_file({**tensors, name: torch.zeros(3, 64)}, witness / ADAPTER)
    with pytest.raises(UserError, match="and no other tensor"):
        case.verify(sign(witness))


@pytest.mark.parametrize(
    "change",
    [
        {"prefix_projection": True, "encoder_hidden_size": 4},
        {"prefix_projection": False},
        {"init_weights": "zero"},
        {"modules_to_save": ["norm"]},
        {"peft_type": "CARTRIDGE"},
        {"peft_type": "PROMPT_TUNING"},
        {"num_virtual_tokens": 6},
        {"num_layers": 1},
        {"num_layers": 2.0},
        {"num_attention_heads": 4},
        {"token_dim": 32},
        {"num_transformer_submodules": 2},
        {"inference_mode": False},
        {"auto_mapping": {"base_model_class": "X", "parent_library": "os"}},
    ],
    ids=str,
)
def test_a_configuration_that_says_otherwise_is_refused(witness, change):
    edit(witness, "adapter_config.json", lambda config: config.update(change))
    with pytest.raises(UserError, match=rf"and no more, got .*{next(iter(change))}.* instead"):
        read_prompt(witness, read_witness(witness))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "soft"}, "soft with the layout of another"),
        ({"prefix_shape": None}, "prefix with the layout of another"),
        ({"kind": "soft", "prefix_shape": None}, r"shape \(3, 32\)"),
        ({"kind": "lora"}, "kind: Input should be 'soft' or 'prefix'"),
        ({"prefix_shape": {"layers": 2, "kv_heads": 2}}, r"head_dim: Field required"),
        ({"prefix_shape": {"layers": 2, "kv_heads": 2, "head_dim": 0}}, "greater than 0"),
        ({"prefix_shape": {"layers": 2, "kv_heads": 2, "head_dim": "8"}}, "valid integer"),
        ({"prefix_shape": {"layers": 1, "kv_heads": 2, "head_dim": 8}}, r"shape \(3, 32\)"),
        ({"prefix_shape": {"layers": 2, "kv_heads": 4, "head_dim": 4}}, '"num_attention_heads":2'),
    ],
    ids=str,
)
def test_a_witness_that_says_otherwise_is_refused(witness, change, words):
    edit(witness, "witness.json", lambda document: document.update(change))
    with pytest.raises(UserError, match=words):
        read_prompt(witness, read_witness(witness))


def test_numbers_laid_out_for_other_heads_are_refused(case, tmp_path):
    """PEFT would take them: they are as many."""
    other = dataclasses.replace(case.prefix_shape, kv_heads=4, head_dim=4)
    assert other.width == case.prefix_shape.width
    directory = case.save(tmp_path / "w", prefix_shape=other)
    with pytest.raises(
        UserError,
        match=r"cache 2 layers of 4 heads of width 4, as the prefix does, got 2 layers of 2 heads",
    ):
        case.verify(directory)


@pytest.mark.parametrize(
    "prompt", [torch.zeros(3, 32), torch.zeros(0, 64), torch.full((3, 64), float("nan"))]
)
def test_a_prefix_of_another_form_is_not_saved(case, tmp_path, prompt):
    with pytest.raises(UserError, match=r"prompt must have (shape \(P, 64\)|finite numbers)"):
        case.save(tmp_path / "w", prompt=prompt)


def test_a_prefix_takes_room_in_the_context(case, tmp_path):
    """It is not in the input, but positions go on behind it."""
    model = tiny_causal_lm(tmp_path / "short", "llama", context_length=8)
    prompt = torch.zeros(7, PrefixShape(layers=2, kv_heads=2, head_dim=8).width)
    directory = case.save(tmp_path / "w", prompt=prompt)
    with pytest.raises(UserError, match=r"must read \d+ tokens, as prompt and longest pair need"):
        verify_witness(directory, model_path=str(model), any_weights=True)
