"""The script that every witness carries: it needs peft and transformers, and nothing of ours."""

from __future__ import annotations

import inspect

from promptlimits.nets.load.spelling import Spelling

_TEMPLATE = '''\
"""Replay a prompt with stock tools: python replay.py --model PATH_OR_HUB_ID

The prompt is a soft prompt or a KV prefix; adapter_config.json says which. Asks every recorded
key of the model behind it, decodes greedily, and compares what comes with the recorded answers,
token by token, end marker included: the value, or another that counts. Of the beginning of a text
exactly the recorded tokens are decoded, and no end marker is asked for. Needs peft, transformers,
safetensors and torch; nothing else. Exit code 0 if every pair that witness.json counts is exact.

One key at a time, as is right: in a left-padded batch PEFT puts the prompt before the padding and
answers are lost. docs/batches.md of promptlimits says how keys of several lengths are batched.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

warnings.simplefilter("ignore")


# {spelling}


folder = Path(__file__).resolve().parent
witness = json.loads((folder / "witness.json").read_text(encoding="utf-8"))

parser = argparse.ArgumentParser(description="Replay a prompt with stock tools.")
parser.add_argument("--model", help="directory or hub id")
arguments = parser.parse_args()
if arguments.model is None:
    # A name without a slash is what promptlimits calls the model: the hub knows another by it.
    if "/" not in witness["model"]["reference"]:
        name = witness["model"]["reference"]
        parser.exit(2, f"say where the model {name} is: --model PATH_OR_HUB_ID\\n")
    arguments.model = witness["model"]["reference"]

# PEFT loads every tensor of the file by its name, also in place of the model's own weights.
with safe_open(folder / "adapter_model.safetensors", framework="pt") as adapter:
    if list(adapter.keys()) != ["prompt_embeddings"]:
        parser.exit(2, f"more than a prompt: the adapter holds {list(adapter.keys())[:4]}\\n")
if len({tuple(pair["key_ids"]) for pair in witness["pairs"]}) < len(witness["pairs"]):
    parser.exit(2, "a pair is listed twice\\n")
beginning = witness.get("beginning", False)
if beginning and len(witness["pairs"]) != 1:
    parser.exit(2, "a list of pairs has no beginning\\n")
print("weights not checked; `promptlimits verify` does", flush=True)

dtype = getattr(torch, witness["model"]["compute_dtype"])
tokenizer = AutoTokenizer.from_pretrained(arguments.model)
base = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=dtype, use_safetensors=True)
base.eval()

# The most likely token each time, up to the model's own end markers: no sampling and no
# penalties that a model may come with.
ends = base.generation_config.eos_token_id
ends = ends if isinstance(ends, list) else [ends]
known = range(base.get_input_embeddings().weight.shape[0])
stops = sorted({end for end in ends if end in known})
stops = stops or [
    end for end in (tokenizer.eos_token_id, tokenizer.sep_token_id) if end in known
][:1]
if not stops:
    parser.exit(2, "the model has no end marker in its vocabulary\\n")
base.generation_config = GenerationConfig(
    do_sample=False,
    num_beams=1,
    # Behind a prompt some families go on wrongly from a cache.
    use_cache=witness["model"].get("decodes_from_cache", True),
    eos_token_id=stops,
    pad_token_id=stops[0],
)
model = PeftModel.from_pretrained(base, folder)
spelling = Spelling(tokenizer)
verified = witness["verification"]
counted = [answer["counted"] for answer in verified["answers"]] if verified else None


def answers(pair):
    """The value and the other answers that count; the beginning of a text is the only one."""
    return [pair] if beginning else [pair, *pair["also"]]


def is_sound(answer, joiner):
    """Whether recorded ids say their text, and end where they should."""
    ids = answer["value_ids"] if beginning else answer["value_ids"][:-1]
    ended = beginning or answer["value_ids"][-1] in stops
    text = joiner + answer["value"]
    says = spelling.behind(ids) == text or list(spelling.ids_behind(text)) == ids
    return ended and says and not set(ids) & set(stops)


longest = max(len(one["value_ids"]) for pair in witness["pairs"] for one in answers(pair))
exact = 0
broken = 0
for index, pair in enumerate(witness["pairs"]):
    ids = pair["key_ids"]
    sound = list(spelling.asked(pair["key"])) == ids
    if witness["keys_as"] == "ids":
        sound = sound or spelling.alone(ids) == pair["key"]
    sound = sound and all(is_sound(answer, pair["joiner"]) for answer in answers(pair))
    key = torch.tensor([ids])
    with torch.inference_mode():
        output = model.generate(
            input_ids=key, attention_mask=torch.ones_like(key), max_new_tokens=longest
        )
    said = output[0, key.shape[1]:].tolist()
    right = sound and said in [answer["value_ids"] for answer in answers(pair)]
    exact += right
    broken += not right and (counted is None or counted[index])
    text = spelling.behind(said[:-1] if said and said[-1] in stops else said)
    print("exact" if right else "WRONG", repr(pair["key"]), "->", repr(text), flush=True)

if beginning:
    print(f"the first {longest} tokens of the text {'exact' if exact else 'not written'}")
else:
    print(f"{exact} of {len(witness['pairs'])} pairs exact")
if broken and verified:
    # A transformers that PEFT does not know yet can lose the prompt without a word.
    here = {"peft": peft.__version__, "transformers": transformers.__version__}
    then = {name: verified["versions"][name] for name in here}
    if here != then:
        print("these are", *(f"{name} {here[name]}" for name in here), end="; ")
        print("it was confirmed with: pip install", *(f"{name}=={then[name]}" for name in then))
raise SystemExit(1 if broken else 0)
'''
REPLAY = _TEMPLATE.replace("# {spelling}\n", inspect.getsource(Spelling))
"""Text of replay.py; it reads everything it needs from witness.json beside it."""
