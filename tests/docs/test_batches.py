"""The page on batches: its code gives what one key at a time gives, and PEFT's batch does not."""

import re

import pytest
import torch
from tests.capacity.witness.witness_cases import KEYS, case_of

from promptlimits.testing.tiny_models import FAMILIES, tiny_causal_lm

MOST_TOKENS = 6
# Families with a layer that reads a window only, in which padding takes places.
WINDOWED = {"gemma3", "gpt_neo"}
# Filler, which the mask hides, and an end marker that no answer holds: any token will do.
PAD = 0


@pytest.fixture(scope="module")
def blocks(repository):
    text = (repository / "docs/batches.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def functions(blocks):
    """What the page defines."""
    namespace = {}
    for number, code in enumerate(blocks[:2]):
        exec(compile(code, f"docs/batches.md, block {number}", "exec"), namespace)
    return namespace


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def saved(family, tmp_path_factory):
    """A tiny model of the family with a witness of each kind."""
    made = {}
    for kind in ("soft", "prefix"):
        folder = tmp_path_factory.mktemp(f"{family}-{kind}")
        scale = 0.05 if family == "gemma3" else 0.3
        case = case_of(tiny_causal_lm(folder / "model", family, init_scale=scale), kind)
        case.save(folder / "witness")
        made[kind] = (case, folder)
    return made


def load(folder):
    from transformers import AutoModelForCausalLM, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=PAD, pad_token_id=PAD, min_new_tokens=MOST_TOKENS
    )
    return model


def load_peft(folder):
    from peft import PeftModel

    return PeftModel.from_pretrained(load(folder), folder / "witness").eval()


def keys_of(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    keys = [tuple(tokenizer(key).input_ids) for key in KEYS]
    assert {len(key) for key in keys} == {1, 2, 3}
    return keys


@torch.inference_mode()
def one_at_a_time(model, keys):
    answers = []
    for key in keys:
        ids = torch.tensor([key])
        row = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=MOST_TOKENS
        )
        answers.append(row[0, len(key) :].tolist())
    return answers


@torch.inference_mode()
def left_padded_by_peft(model, keys):
    longest = max(map(len, keys))
    ids = torch.tensor([[PAD] * (longest - len(key)) + list(key) for key in keys])
    mask = torch.tensor([[0] * (longest - len(key)) + [1] * len(key) for key in keys])
    rows = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=MOST_TOKENS)
    return rows[:, longest:].tolist()


@pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore::FutureWarning:transformers")
def test_a_soft_prompt_behind_its_padding_answers_as_alone(functions, saved):
    case, folder = saved["soft"]
    keys = keys_of(folder)
    alone = one_at_a_time(load_peft(folder), keys)
    padded = functions["decode_padded"](load(folder), case.prompt, keys, most_tokens=MOST_TOKENS)
    assert padded == alone
    lost = left_padded_by_peft(load_peft(folder), keys)
    same = [len(key) for key, a, b in zip(keys, lost, alone, strict=True) if a == b]
    # The longest keys have no padding; of the others most are lost.
    assert same.count(3) == sum(len(key) == 3 for key in keys)
    assert len(same) < len(keys) / 2


@pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore::FutureWarning:transformers")
@pytest.mark.parametrize("kind", ["soft", "prefix"])
def test_keys_of_one_length_together_are_answered_as_alone(functions, saved, kind):
    _, folder = saved[kind]
    keys = keys_of(folder)
    alone = one_at_a_time(load_peft(folder), keys)
    assert functions["decode_by_length"](load_peft(folder), keys, most_tokens=MOST_TOKENS) == alone


@pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore::FutureWarning:transformers")
def test_padding_behind_a_prefix_does_harm_where_a_layer_has_a_window(family, saved):
    _, folder = saved["prefix"]
    keys = keys_of(folder)
    same = left_padded_by_peft(load_peft(folder), keys) == one_at_a_time(load_peft(folder), keys)
    assert same == (family not in WINDOWED)


@pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore::FutureWarning:transformers")
def test_the_page_decodes_a_witness(blocks, saved, monkeypatch):
    case, folder = saved["soft"]
    monkeypatch.chdir(folder)
    namespace = {}
    for number, code in enumerate(blocks):
        exec(compile(code, f"docs/batches.md, block {number}", "exec"), namespace)
    assert len(blocks) == 3
    for answers in (namespace["padded"], namespace["by_length"]):
        for pair, answer in zip(case.pairs, answers, strict=True):
            assert tuple(answer[: len(pair.value_ids)]) == pair.value_ids
