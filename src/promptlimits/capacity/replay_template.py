"""The script that every witness carries: it needs peft and transformers, and nothing of ours."""

from __future__ import annotations

REPLAY = '''\
"""Replay a soft prompt with stock tools: python replay.py --model PATH_OR_HUB_ID

Poses every recorded key to the model behind the prompt, decodes greedily, and compares what
comes with the recorded answer, token by token, end marker included. Needs peft, transformers
and torch; nothing else. Exit code 0 if every pair that witness.json counts is exact.
"""

import argparse
import json
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

warnings.simplefilter("ignore")
folder = Path(__file__).resolve().parent
witness = json.loads((folder / "witness.json").read_text(encoding="utf-8"))

parser = argparse.ArgumentParser(description="Replay a soft prompt with stock tools.")
parser.add_argument("--model", default=witness["model"]["reference"], help="directory or hub id")
arguments = parser.parse_args()

dtype = getattr(torch, witness["model"]["compute_dtype"])
tokenizer = AutoTokenizer.from_pretrained(arguments.model)
base = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=dtype).eval()

# The most likely token each time: no sampling and no penalties that a model may come with.
ends = base.generation_config.eos_token_id
ends = ends if isinstance(ends, list) else [ends]
vocabulary = base.get_input_embeddings().weight.shape[0]
ends = [end for end in ends if end is not None and end < vocabulary]
stops = sorted({pair["value_ids"][-1] for pair in witness["pairs"]} | set(ends))
base.generation_config = GenerationConfig(
    do_sample=False, num_beams=1, eos_token_id=stops, pad_token_id=stops[0]
)
model = PeftModel.from_pretrained(base, folder)
longest = max(len(pair["value_ids"]) for pair in witness["pairs"])
verified = witness["verification"]
counted = [answer["counted"] for answer in verified["answers"]] if verified else None

exact = 0
broken = 0
for index, pair in enumerate(witness["pairs"]):
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
    right = answer == pair["value_ids"]
    exact += right
    broken += not right and (counted is None or counted[index])
    said = answer[:-1] if answer[-1:] == pair["value_ids"][-1:] else answer
    text = tokenizer.decode(said, skip_special_tokens=True).strip()
    print("exact" if right else "WRONG", pair["key"], "->", text, flush=True)

print(f"{exact} of {len(witness['pairs'])} pairs exact")
raise SystemExit(1 if broken else 0)
'''
"""Text of replay.py; it reads everything it needs from witness.json beside it."""
