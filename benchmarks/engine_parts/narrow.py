"""Searches in bfloat16 against float32, SmolLM2-135M: the rate of a step, and what a prompt holds.

Both sides have the same pairs and starts and are measured in processor time of one run. A search in
bfloat16 ends in float32 steps or, when its time is up, in one float32 pass over its best prompt;
both are paid for. What is held is what float32 says.
"""

from __future__ import annotations

import random
import sys
import time
from dataclasses import dataclass
from typing import Final

import torch
from benchmarks.engine_parts.cases import Case, random_packed
from benchmarks.engine_parts.engine_side import EngineSteps
from benchmarks.engine_parts.models import smollm2

from promptlimits.capacity.task.encoded import encode
from promptlimits.capacity.task.resolve import capitals
from promptlimits.capacity.train.config import SEARCH_DTYPE, TrainingConfig
from promptlimits.capacity.train.engine import train_many
from promptlimits.capacity.train.problem import Outcome, Problem
from promptlimits.capacity.train.state import TrainingState, from_vocabulary
from promptlimits.nets.decoder.rate import product_rates
from promptlimits.nets.protocol import EncodedPair, FrozenModel, pack

STEP_CASES: Final = (Case.halves(64, 4, 8), Case.halves(64, 4, 4))
SEEDS: Final = 3
ROUNDS: Final = 4


@dataclass(frozen=True, kw_only=True)
class Search:
    """Capitals to hold, and the processor time that each side has for them."""

    pairs: int
    prompt_tokens: int
    seconds: float


SEARCHES: Final = (
    Search(pairs=64, prompt_tokens=4, seconds=45.0),
    Search(pairs=32, prompt_tokens=1, seconds=60.0),
)


def run(quick: bool) -> dict[str, object]:
    """Every case and search; nothing with `quick`, for the small model gains nothing here."""
    if quick:
        return {}
    model = smollm2().engine
    if model.narrow is None:
        raise AssertionError("SmolLM2 runs through own code in float32")
    rates = product_rates(model.card.dim, model.device)
    return {
        "product_ratio": rates.ratio,
        "pays": rates.pays,
        "steps": [_steps(model, case, seed) for case in STEP_CASES for seed in range(SEEDS)],
        "searches": [_search(model, one, seed) for one in SEARCHES for seed in range(SEEDS)],
    }


def _steps(model: FrozenModel, case: Case, seed: int) -> dict[str, object]:
    """Processor seconds of a step of each side, in turn, the fastest of each."""
    pairs = random_packed(case, vocabulary=model.card.vocabulary, seed=seed)
    prompt = _start(model, case.prompt_tokens, seed)
    taken: dict[str, list[float]] = {}
    sides = {"float32": model, "bfloat16": model.narrow or model}
    steps = {name: EngineSteps(side, [pairs], [prompt]) for name, side in sides.items()}
    for _ in range(ROUNDS):
        for name, side in steps.items():
            began = time.process_time()
            side.step()
            taken.setdefault(name, []).append(time.process_time() - began)
    seconds = {name: min(each) for name, each in taken.items()}
    found: dict[str, object] = {
        "pairs": case.pairs,
        "prompt_tokens": case.prompt_tokens,
        "tokens": case.tokens,
        "seed": seed,
        "seconds": seconds,
        "ratio": seconds["float32"] / seconds["bfloat16"],
    }
    print(f"narrow: {found}", file=sys.stderr)
    return found


def _search(model: FrozenModel, search: Search, seed: int) -> dict[str, object]:
    """What each side holds when its processor time is up, of capitals that a seed draws."""
    listed = encode(capitals(), model.codec).pairs
    drawn = random.Random(seed).sample(range(len(listed)), search.pairs)
    pairs = [listed[place] for place in drawn]
    found: dict[str, object] = {
        "pairs": search.pairs,
        "prompt_tokens": search.prompt_tokens,
        "seconds": search.seconds,
        "seed": seed,
        "float32": _held(model, pairs, search, seed, None),
        "bfloat16": _held(model, pairs, search, seed, SEARCH_DTYPE),
    }
    print(f"narrow: {found}", file=sys.stderr)
    return found


def _held(
    model: FrozenModel, pairs: list[EncodedPair], search: Search, seed: int, dtype: str | None
) -> dict[str, object]:
    config = TrainingConfig(
        prompt_tokens=search.prompt_tokens, max_steps=2000, patience=2000, search_dtype=dtype
    )
    state = TrainingState.start(_start(model, search.prompt_tokens, seed), len(pairs))
    began = time.process_time()

    def should_stop() -> Outcome | None:
        used_up = time.process_time() - began >= search.seconds
        return Outcome.OUT_OF_BUDGET if used_up else None

    problem = Problem(key=0, pairs=pack(pairs), config=config, state=state)
    (fit,) = train_many(model, [problem], should_stop=should_stop)
    return {
        "held": len(fit.held),
        "outcome": fit.outcome.value,
        "steps": fit.steps,
        "seconds": time.process_time() - began,
    }


def _start(model: FrozenModel, tokens: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return from_vocabulary(model, count=1, prompt_tokens=tokens, generator=generator)[0]
