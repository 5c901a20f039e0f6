"""The code that the page offers, run as a reader would run it."""

import json
import subprocess
import sys

import pytest
import torch
from tests.report.views import parsed

from promptlimits.capacity.witness.format import save_witness, write_verification
from promptlimits.capacity.witness.verify import verify_witness
from promptlimits.nets.protocol import EncodedPair, ModelCard
from promptlimits.report import sections
from promptlimits.testing.tiny_models import tiny_causal_lm

KEYS = ("France", "Italy", "Peru", "Cuba", "red", "blue", "one", "two", "dog", "moon", "sun")
WITNESS = "witness-3-tokens"
MOST_TOKENS = 6

# One process runs every script: importing torch, transformers and peft takes ten seconds.
RUN_EACH = """
import json, sys
for script in json.load(sys.stdin):
    exec(compile(script, "emitted", "exec"), {"__name__": "__main__"})
    assert not any(name.startswith("promptlimits") for name in sys.modules), "not stock"
"""


@torch.no_grad()
def greedy(network, prompt, key_ids):
    """The most likely tokens one after the other, by a loop of our own."""
    ids = list(key_ids)
    for _ in range(MOST_TOKENS):
        tokens = network.get_input_embeddings()(torch.tensor([ids]))
        inputs = torch.cat([prompt.unsqueeze(0), tokens], dim=1)
        ids.append(int(network(inputs_embeds=inputs, use_cache=False).logits[0, -1].argmax()))
    return ids[len(key_ids) :]


def repeating_pairs(model):
    """A random prompt and answers that repeat a token, which a penalty would forbid.

    A random model hardly ever says its own end marker, so a token that ends several of the
    answers takes its place; the model's settings must name it.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    for seed in range(40):
        prompt = torch.randn(3, 32, generator=torch.Generator().manual_seed(seed))
        said = {key: greedy(network, prompt, tokenizer(key).input_ids) for key in KEYS}
        for end in sorted({token for ids in said.values() for token in ids} - {0}):
            cut = {key: ids[: ids.index(end) + 1] for key, ids in said.items() if end in ids}
            held = {key: ids for key, ids in cut.items() if len(set(ids)) < len(ids)}
            if len(held) >= 2:
                return prompt, tuple(
                    EncodedPair(
                        key=key,
                        value=tokenizer.decode(ids[:-1]),
                        key_ids=tuple(tokenizer(key).input_ids),
                        value_ids=tuple(ids),
                    )
                    for key, ids in held.items()
                )
    raise AssertionError("no seed gives two answers that repeat a token")


def card_of(model):
    return ModelCard(
        name="tiny",
        reference=str(model),
        path=str(model),
        model_hash="0" * 64,
        parameters=1,
        dim=32,
        layers=2,
        vocabulary=1,
        context_length=128,
        compute_dtype="float32",
    )


def record_of(make_record, model, pairs):
    record = make_record(held={3: len(pairs)}, number=len(pairs))
    record["model"]["path"] = str(model)
    for answer, pair in zip(record["brackets"][0]["floor"]["answers"], pairs, strict=True):
        answer.update(key=pair.key, value=pair.value, decoded=pair.value)
    return record


@pytest.mark.slow  # a process that imports torch, transformers and peft
def test_it_reproduces_the_floor_on_a_model_that_comes_with_a_penalty(make_record, tmp_path):
    model = tiny_causal_lm(tmp_path / "model", "llama", init_scale=0.3)
    prompt, pairs = repeating_pairs(model)
    settings = model / "generation_config.json"
    end = pairs[0].value_ids[-1]
    given = {"repetition_penalty": 5.0, "eos_token_id": end}
    settings.write_text(json.dumps({**json.loads(settings.read_text()), **given}))
    card = card_of(model)
    folder = tmp_path / WITNESS
    save_witness(
        folder, prompt=prompt, card=card, pairs=pairs, task_name="capitals", task_hash="0" * 64
    )
    found = verify_witness(folder, model_path=str(model), any_weights=True)
    assert found.pairs_exact == len(pairs)
    write_verification(folder, found)

    record = record_of(make_record, model, pairs)
    facts = sections.load_code(parsed(record))
    record["task"]["answers_random"] = True
    drawn = sections.load_code(parsed(record))
    # Without the explicit settings the model's own ones bend the answer.
    bent = facts.replace("model.generation_config = ", "unused = ")
    assert len({facts, drawn, bent}) == 3
    done = subprocess.run(
        [sys.executable, "-I", "-c", RUN_EACH],
        input=json.dumps([facts, drawn, bent]),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, two, three = done.stdout.splitlines()
    assert one.endswith(" True")
    assert two.endswith(" True")
    assert three.endswith(" False")
