"""What is counted of an adapter is what stock tools answer behind it, token for token."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.capacity.adapter.adapter_cases import MODULES, PROMPTS, save_adapter

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.capacity.adapter import score as adapter_score
from promptlimits.capacity.adapter.decoding import Request, decode_with_and_without
from promptlimits.capacity.adapter.folder import read_foreign_adapter
from promptlimits.capacity.adapter.score import save_scored_witness, score_adapter
from promptlimits.capacity.witness.format import read_witness, write_verification
from promptlimits.capacity.witness.verify import verify_witness
from promptlimits.nets.prefix_shape import PrefixShape
from promptlimits.testing.tiny_models import tiny_causal_lm


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch):
    """Decode in this process what is decoded in a fresh one, which costs seconds."""

    def decoded(module, arguments, **_):
        asked = Request.model_validate_json(Path(arguments[0]).read_text())
        return json.loads(json.dumps({"decoded": decode_with_and_without(asked).to_json()}))

    def confirm(directory, verifier, **_):
        found = verify_witness(directory, model_path=verifier.model_path, device=verifier.device)
        write_verification(directory, found)
        return found

    monkeypatch.setattr(adapter_score, "run_fresh", decoded)
    monkeypatch.setattr(adapter_score, "confirm", confirm)


def score_of(case, **changes):
    return score_adapter(case.adapter, dataclasses.replace(case.task, **changes), case.card)


@pytest.mark.parametrize("name", [*PROMPTS, *MODULES])
def test_the_answers_are_those_of_a_slow_loop_over_stock_peft(adapters, name):
    case = adapters(name)
    found = score_of(case)
    assert found.exact == len(case.task.pairs) >= 3
    assert [a.generated_ids for a in found.answers] == [p.value_ids for p in case.task.pairs]
    assert found.tools.startswith("stock PEFT ")


@pytest.mark.parametrize("family", ["gpt2", "gemma3", "qwen2"])
@pytest.mark.parametrize("name", ["p-tuning", "CARTRIDGE", "LoRA"])
def test_so_they_are_in_other_families(adapters, name, family):
    case = adapters(name, family)
    assert score_of(case).exact == len(case.task.pairs) >= 3


@pytest.mark.parametrize(
    ("name", "family"),
    [
        *((name, "llama") for name in PROMPTS),
        *(("CARTRIDGE", family) for family in ("gpt2", "gemma3", "qwen2")),
        ("projected prefix", "gpt2"),
    ],
)
def test_the_witness_answers_token_for_token_as_the_adapter(adapters, name, family, tmp_path):
    """Llama's and Qwen2's heads are grouped; Gemma 3 slides its window."""
    case = adapters(name, family)
    # One pair that the adapter does not answer stays in the witness, not counted.
    first, *rest = case.task.pairs
    wrong = dataclasses.replace(first, value_ids=(first.value_ids[0] ^ 1, *first.value_ids[1:]))
    task = dataclasses.replace(case.task, pairs=(wrong, *rest))
    found = score_adapter(case.adapter, task, case.card)
    verified = save_scored_witness(
        tmp_path / "w", case.adapter, found, task, case.card, extra={"seed": 0}
    )
    assert found.exact == verified.pairs_exact == len(rest)
    assert [a.generated_ids for a in verified.answers] == [a.generated_ids for a in found.answers]
    witness = read_witness(tmp_path / "w")
    assert witness.counted == (False, *[True] * len(rest))
    assert witness.kind == ("prefix" if case.adapter.kind.is_prefix else "soft")


def test_a_lora_has_no_kind_of_witness(adapters, tmp_path):
    case = adapters("LoRA")
    with pytest.raises(UserError, match="a witness must be of a soft prompt or a prefix, got LORA"):
        save_scored_witness(
            tmp_path / "w", case.adapter, score_of(case), case.task, case.card, extra={}
        )
    assert not (tmp_path / "w").exists()


def test_what_is_answered_without_the_adapter_gets_no_credit(adapters):
    case = adapters("LoRA")
    none = torch.zeros(())
    idle = dataclasses.replace(
        case.adapter,
        tensors={name: none.expand_as(t) for name, t in case.adapter.tensors.items()},
    )
    found = score_adapter(idle, case.task, case.card)
    assert [a.exact for a in found.answers] == [a.unprompted for a in found.answers]
    assert [a.decoded for a in found.answers] == [a.decoded_unprompted for a in found.answers]
    assert found.credited == 0
    assert score_of(case).credited > 0


def test_any_accepted_answer_counts_and_its_witness_says_which_came(adapters, tmp_path):
    from transformers import AutoTokenizer

    case = adapters("CARTRIDGE")
    first, *rest = case.task.pairs
    other = (first.value_ids[0] ^ 1, *first.value_ids[1:])
    text = AutoTokenizer.from_pretrained(case.model).decode(other[:-1])
    either = dataclasses.replace(
        first, value=text, value_ids=other, also=((first.value, first.value_ids),)
    )
    task = dataclasses.replace(case.task, pairs=(either, *rest))
    found = score_adapter(case.adapter, task, case.card)
    assert found.exact == len(task.pairs)
    verified = save_scored_witness(tmp_path / "w", case.adapter, found, task, case.card, extra={})
    assert verified.pairs_exact == len(task.pairs)
    assert verified.answers[0].came == first.value
    assert [a.came for a in verified.answers[1:]] == [pair.value for pair in rest]


def test_an_answer_that_goes_on_is_not_exact_and_a_note_says_so(adapters):
    case = adapters("prompt tuning")
    long = max(case.task.pairs, key=lambda pair: len(pair.value_ids))
    cut = dataclasses.replace(long, value_ids=(*long.value_ids[:-2], long.value_ids[-1]))
    found = score_of(case, pairs=(cut,), places=("pair 0",))
    assert (found.exact, found.answers[0].fault) == (0, "the answer goes on where it should end")
    assert found.notes == ("answers that begin as they should, but go on where they end: 1",)


def test_another_joiner_is_not_other_tokens_of_the_same_text(adapters):
    case = adapters("prompt tuning")
    pair = case.task.pairs[0]
    ids = (pair.value_ids[0] ^ 1, *pair.value_ids[1:])
    for joiner, fault, note in (
        (pair.joiner, "the same text in other tokens", "read as they should"),
        ("\n", "the value behind another joiner", "--joiner"),
    ):
        other = dataclasses.replace(pair, value_ids=ids, joiner=joiner)
        found = score_of(case, pairs=(other,), places=("pair 0",))
        assert (found.exact, found.answers[0].fault) == (0, fault)
        assert note in found.notes[0]


def test_what_does_not_fit_into_the_context_is_refused_by_its_place(adapters):
    case = adapters("prompt tuning")
    with pytest.raises(UserError, match=r"^pair \d+ must fit into the model's context of 9 tokens"):
        score_adapter(case.adapter, case.task, dataclasses.replace(case.card, context_length=9))


def test_a_model_that_changed_in_between_is_noticed(adapters):
    case = adapters("LoRA")
    with pytest.raises(RunFailed, match="was changed while this ran"):
        score_adapter(case.adapter, case.task, dataclasses.replace(case.card, model_hash="0" * 64))


ELSEWHERE = [
    ("LoRA", {"layers": 3}, r"numbers for model\.layers\.2\.self_attn\.q_proj and 1 more"),
    ("LoRA", {"dim": 64}, r"lora_A\.weight of shape .*, where PEFT has of \(4, 32\)"),
    ("LoRA", {"family": "gpt2"}, r"numbers for transformer\.h\.0\.attn\.c_attn and 1 more"),
    ("prompt tuning", {"dim": 64}, "vectors of 64 numbers; those of the model have 32"),
    ("CARTRIDGE", {"layers": 3}, "3 layers of 2 heads, 16 numbers together; the model caches 2"),
    ("prefix tuning", {"kv_heads": 4}, "2 layers of 4 heads, 32 numbers together"),
    ("LoRA and a head", {"words": ("one",)}, r"lm_head\.weight of shape"),
]


@pytest.mark.parametrize(("name", "size", "words"), ELSEWHERE)
def test_an_adapter_of_another_model_is_refused(adapters, tmp_path, name, size, words):
    case = adapters("LoRA")
    size = dict(size)
    family = size.pop("family", "llama")
    options = {"vocab": size.pop("words")} if "words" in size else {}
    other = tiny_causal_lm(tmp_path / "other", family, **size, **options)
    foreign = read_foreign_adapter(save_adapter(tmp_path / "adapter", other, family, name))
    with pytest.raises(UserError, match=f"^the adapter must fit the model, got .*{words}") as told:
        score_adapter(foreign, case.task, case.card)
    assert "give the model that it was trained for (its settings name" in str(told.value)


def rewritten(adapter, directory, settings, tensors):
    """The adapter with other settings, and with more tensors or (as None) fewer."""
    directory.mkdir()
    config = json.loads((adapter / "adapter_config.json").read_text()) | settings
    (directory / "adapter_config.json").write_text(json.dumps(config))
    held = load_file(adapter / "adapter_model.safetensors") | tensors
    kept = {name: tensor for name, tensor in held.items() if tensor is not None}
    save_file(kept, directory / "adapter_model.safetensors")
    return directory


ATTENTION = "base_model.model.model.layers.0.self_attn"
MLP = "base_model.model.model.layers.0.mlp.up_proj"
SPOILED = [
    # Declared in the settings, but nothing that PEFT would save in this model.
    ({"bias": "lora_only"}, {f"{MLP}.bias": torch.ones(64)}, "bias of shape (64,), where PEFT has"),
    ({"bias": "all"}, {f"{MLP}.bias": torch.ones(64)}, "where PEFT has no such tensor"),
    (
        {"modules_to_save": ["up"]},
        {"base_model.model.up.weight": torch.ones(2)},
        "where PEFT has no such tensor",
    ),
    ({}, {f"{ATTENTION}.q_proj.lora_B.weight": None}, "no base_model.model.model.layers.0"),
    ({}, {f"{ATTENTION}.q_proj.lora_magnitude_vector": torch.ones(32)}, "no such tensor"),
    (
        {"target_modules": "a pattern"},
        {
            f"{ATTENTION}.lora_A.weight": torch.ones(4, 32),
            f"{ATTENTION}.lora_B.weight": torch.ones(32, 4),
        },
        "one that PEFT cannot put into it",
    ),
]


@pytest.mark.parametrize(("settings", "tensors", "words"), SPOILED)
def test_nothing_is_loaded_that_peft_would_not_save(adapters, tmp_path, settings, tensors, words):
    case = adapters("LoRA")
    foreign = read_foreign_adapter(rewritten(case.folder, tmp_path / "spoiled", settings, tensors))
    with pytest.raises(UserError, match=f"^the adapter must fit the model, .*{re.escape(words)}"):
        score_adapter(foreign, case.task, case.card)


def test_a_prefix_for_a_model_whose_cache_takes_none_is_refused(adapters, monkeypatch):
    case = adapters("CARTRIDGE")

    def none(network):
        raise UserError("prompts", "be asked of another", got="such a family", remedy="choose soft")

    monkeypatch.setattr(PrefixShape, "of", none)
    with pytest.raises(UserError, match="got a prefix, which PEFT cannot put into such a family"):
        score_of(case)


@pytest.mark.slow  # two processes that import torch, transformers and peft
def test_a_fresh_process_answers_as_the_slow_loop(adapters, tmp_path):
    case = adapters("CARTRIDGE")
    found = score_adapter(case.adapter, case.task, case.card)
    assert [a.generated_ids for a in found.answers] == [p.value_ids for p in case.task.pairs]
    verified = save_scored_witness(
        tmp_path / "w", case.adapter, found, case.task, case.card, extra={}
    )
    assert verified.pairs_exact == len(case.task.pairs)
