"""A bracket record made by rule: every number in it is synthetic, none was measured."""

import math
from collections.abc import Callable

import pytest

from promptlimits.base.files import JsonObject

MakeRecord = Callable[..., JsonObject]
DIM, DISTINCT = 576, 243
_FACTS = (
    ("France", "Paris"),
    ("Timor Leste", "Dili"),
    ("Saint Vincent and the Grenadines", "Kingstown"),
    ("Chad", "N'Djamena"),
    ("Brazil", "Bras\u00edlia"),
    ("Tonga", "Nuku\u2019alofa"),
    ("British Indian Ocean Territory", "Diego Garcia"),
    ("Japan", "Tokyo"),
)


def pairs(number):
    """A few real names for looks, then made-up ones."""
    invented = [(f"Country {i}", f"Capital {i}") for i in range(len(_FACTS), number)]
    return [*_FACTS, *invented][:number]


def answers(number, *, held, uncounted=3, wrong="Wrong City"):
    """Answers of which `held` count and `uncounted` more are exact without a prompt too."""
    listed = []
    for i, (key, value) in enumerate(pairs(number)):
        exact = i < held + uncounted
        listed.append(
            {
                "key": key,
                "value": value,
                "decoded": value if exact else wrong,
                "exact": exact,
                "unprompted": held <= i < held + uncounted,
                "counted": not held <= i < held + uncounted,
                "fault": "",
            }
        )
    return listed


def bracket(prompt_tokens, *, held, number):
    """One prompt length with a counting ceiling of its own."""
    bits = math.log2(DISTINCT)
    ceiling = math.ceil((32 * DIM * prompt_tokens + 20) / bits)
    return {
        "state": "found" if held else "none_found",
        "kind": "soft",
        "stored_bits": 32 * DIM * prompt_tokens,
        "complete": True,
        "prompt_tokens": prompt_tokens,
        "floor": {
            "status": "found",
            "pairs": held,
            "tokens": None,
            "bits": held * bits,
            "bits_per_prompt_token": held * bits / prompt_tokens,
            "bits_per_stored_bit": held * bits / (32 * DIM * prompt_tokens),
            "witness": f"witness-{prompt_tokens}-tokens" if held else None,
            "prompt_sha256": "ab" * 32 if held else None,
            "confirmed_by": "stock PEFT 0.21.2 + transformers 5.23.0, greedy generate, float32",
            "also_answered_unprompted": 3 if held else 0,
            "lost_in_replay": None,
            "answers": answers(number, held=held) if held else [],
        },
        "ceiling": {
            "status": "proved",
            "pairs": ceiling,
            "every_list_pairs": ceiling,
            "bits": ceiling * bits,
            "prompt_bits": 32.0 * DIM * prompt_tokens,
            "source": "counting theorem: distinct prompts against distinct lists",
            "statement": (
                f"A prompt of {prompt_tokens} vectors of {DIM} float32 numbers takes at most "
                f"2^{32 * DIM * prompt_tokens} values, so it answers at most that many lists."
            ),
            "assumptions": [
                "Each coordinate of the prompt is one of the 2^32 float32 values.",
                "Decoding is deterministic: the same prompt gives the same answers.",
                "Answers are drawn independently and uniformly from the answer set.",
            ],
            "pool": number,
            "certificate": f"ceiling-{prompt_tokens}-tokens.json",
            "certificate_sha256": "cd" * 32,
            "share_log2": -20,
        },
        "control": None,
        "search": _search(held, number),
        "stopped_because": "the time given was used up",
        "seconds": 100.25 * prompt_tokens,
    }


def baseline(name, exact, number, **changes):
    """A baseline that was measured; the first pairs came out exact."""
    return {
        "name": name,
        "of": number,
        "asked": number,
        "exact": list(range(exact)),
        "shots": 0,
        "context_tokens": 0,
        "note": "",
        "tokens": None,
        "status": "measured",
        "pairs": exact,
        **changes,
    }


def _search(held, number):
    tried = [size for size in (8, 16, 32, 64, 128) if size <= number]
    return [
        {
            "pairs": size,
            "held": min(size, held),
            "outcome": "solved" if size <= held else "out_of_steps",
            "remedy": "nothing to do: every answer is exact"
            if size <= held
            else "raise --max-steps, or use fewer pairs or more prompt tokens",
            "steps": 5 * size,
            "seconds": 1.5 * size,
            "seed": seed,
        }
        for seed, size in enumerate(tried)
    ]


def sample_record(*, held=None, number=246, warnings=()):
    """A whole record: held pairs by prompt length, out of a list of `number`."""
    by_length = {1: 40, 2: 71} if held is None else held
    return {
        "schema": 1,
        "kind": "bracket",
        "command": "promptlimits bracket --model smollm2 --task capitals "
        "--prompt-tokens 1,2 --budget 10m --out runs/capitals",
        "out": "runs/capitals",
        "created": "2001-02-03T04:05:06+00:00",
        "seconds": 300.75,
        "seconds_by_stage": {
            "training": 234.5,
            "baselines": 20.0,
            "ordering": 4.25,
            "verification": 30.0,
            "evaluation": 12.0,
            "rest": 0.0,
        },
        "budget_seconds": 600.0,
        "budget_steps": None,
        "complete": True,
        "go_on": None,
        "model": {
            "name": "SyntheticLM-135M",
            "reference": "synthetic",
            "path": "models/synthetic",
            "model_hash": "0123456789abcdef" * 4,
            "parameters": 134_515_008,
            "dim": DIM,
            "layers": 30,
            "vocabulary": 49_152,
            "context_length": 8192,
            "compute_dtype": "float32",
            "decodes_from_cache": True,
            "notes": ["4-bit weights dequantised to float32"],
        },
        "task": {
            "name": "capitals",
            "pairs": number,
            "text_tokens": None,
            "hash": "fedcba9876543210" * 4,
            "answer_set_size": str(DISTINCT),
            "answer_set": f"the {DISTINCT} distinct values of the list",
            "answers_random": False,
            "order": "shuffled with seed 0",
            "source": "synthetic test data",
            "notes": [],
        },
        "baselines": [
            baseline("no prompt", 3, number),
            baseline(
                "in context",
                min(200, number),
                number,
                shots=number,
                context_tokens=1900,
                note="the whole list written in front of each question",
            ),
        ],
        "brackets": [
            bracket(tokens, held=count, number=number) for tokens, count in by_length.items()
        ],
        "versions": {
            "promptlimits": "0.1.0",
            "python": "3.11.9",
            "torch": "2.13.0",
            "cpu_count": 2,
        },
        "seed": 0,
        "warnings": list(warnings),
    }


def put(record, changes):
    """Set fields by their paths, such as "brackets.0.ceiling.pairs"; "*" is every one of a list."""
    for path, value in changes.items():
        *steps, last = path.split(".")
        places = [record]
        for step in steps:
            places = [
                inner
                for place in places
                for inner in (place if step == "*" else [place[_key(step)]])
            ]
        for place in places:
            place[_key(last)] = value
    return record


def _key(step):
    return int(step) if step.lstrip("-").isdigit() else step


@pytest.fixture
def make_record():
    """The builder of synthetic records; every call makes a fresh one."""
    return sample_record


@pytest.fixture
def record():
    """Two prompt lengths over 246 pairs."""
    return sample_record()
