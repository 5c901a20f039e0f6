"""The script that every witness carries: it needs peft and transformers, and nothing of ours."""

from __future__ import annotations

REPLAY = '''\
"""Replay a prompt with stock tools: python replay.py --model PATH_OR_HUB_ID

The prompt is a soft prompt or a KV prefix; adapter_config.json says which. Poses every recorded
key to the model behind it, decodes greedily, and compares what comes with the recorded answer,
token by token, end marker included. Of the beginning of a text exactly the recorded tokens are
decoded, and no end marker is asked for. Needs peft, transformers, safetensors and torch; nothing
else. Exit code 0 if every pair that witness.json counts is exact.
"""

import argparse
import json
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

warnings.simplefilter("ignore")
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
longest = max(len(pair["value_ids"]) for pair in witness["pairs"])
verified = witness["verification"]
counted = [answer["counted"] for answer in verified["answers"]] if verified else None


def says(ids, value):
    """Whether ids stand for a text: decoded, or as the tokenizer reads it behind a key."""
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False).strip()
    forms = (tokenizer(form, add_special_tokens=False).input_ids for form in (" " + value, value))
    return text == value.strip() or ids in [list(form) for form in forms]


exact = 0
broken = 0
for index, pair in enumerate(witness["pairs"]):
    *value, end = pair["value_ids"]
    ended = end in stops
    if beginning:
        value = pair["value_ids"]
        ended = not set(value) & set(stops)
    ids = pair["key_ids"]
    if witness["posed_as"] == "text":
        # As the stock tokenizer reads the key, less a closing marker if it adds one.
        read = tokenizer(pair["key"]).input_ids
        closing = read[len(ids):]
        ids = read[:len(ids)] if set(closing) <= set(tokenizer.all_special_ids) else read
    key = torch.tensor([ids])
    with torch.inference_mode():
        output = model.generate(
            input_ids=key, attention_mask=torch.ones_like(key), max_new_tokens=longest
        )
    answer = output[0, key.shape[1]:].tolist()
    recorded = ids == pair["key_ids"] and ended and says(value, pair["value"])
    right = recorded and answer == pair["value_ids"]
    exact += right
    broken += not right and (counted is None or counted[index])
    said = answer[:-1] if answer and answer[-1] in stops else answer
    text = tokenizer.decode(said, skip_special_tokens=True).strip()
    print("exact" if right else "WRONG", pair["key"], "->", text, flush=True)

if beginning:
    print(f"the first {longest} tokens of the text {'exact' if exact else 'not written'}")
else:
    print(f"{exact} of {len(witness['pairs'])} pairs exact")
raise SystemExit(1 if broken else 0)
'''
"""Text of replay.py; it reads everything it needs from witness.json beside it."""
