"""How long a text one vector holds: exact under greedy decoding, the first token included.

The vector stands first, the beginning-of-text token follows it, and every token of the text is
read. (Read out of position 0, the first token is out of reach: that position is an attention
sink which the vector does not control.) The text grows in steps, each trained from the vector
that held the last one; what is held at the end is decoded by stock `generate`.

Beside it the protocol of the cramming papers, on the length that was held and with as many steps:
a vector drawn from N(0, 1) times the embeddings' deviation, AdamW at 1e-2, betas (0.9, 0.9),
weight decay 0.01, the plain mean loss, no clipping.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
from benchmarks.engine_parts.engine_side import EngineSteps
from benchmarks.engine_parts.models import Model, small_model, smollm2
from torch import Tensor

from promptlimits.models.protocol import EncodedPair, PackedPairs, pack
from promptlimits.tuning.config import TrainingConfig
from promptlimits.tuning.prompts import from_vocabulary

PROSE: Final = (
    "Who that cares much to know the history of man, and how the mysterious mixture behaves under "
    "the varying experiments of Time, has not dwelt, at least briefly, on the life of Saint "
    "Theresa, has not smiled with some gentleness at the thought of the little girl walking forth "
    "one morning hand-in-hand with her still smaller brother, to go and seek martyrdom in the "
    "country of the Moors? Out they toddled from rugged Avila, wide-eyed and helpless-looking as "
    "two fawns, but with human hearts, already beating to a national idea; until domestic reality "
    "met them in the shape of uncles, and turned them back from their great resolve."
)
"""George Eliot, Middlemarch (1871), the first sentences of its prelude."""

NATURAL_LENGTHS: Final = (16, 32, 48, 64, 80, 96, 112)
RANDOM_LENGTHS: Final = (8, 16, 24, 32, 40, 48)
QUICK_LENGTHS: Final = (2, 4, 6, 8)
STEPS_EACH: Final = 400
QUICK_STEPS_EACH: Final = 100
WARM_SHARE: Final = 0.5
"""Of the learning rate, where a vector that holds something goes on."""

Step: TypeAlias = Callable[[], tuple[Tensor, Tensor]]
"""One optimiser step: the vector (1, D) that was scored, and the lead of each token (R,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """Training on the first tokens of a text.

    Attributes:
        tokens: How many.
        steps: Optimiser steps done.
        seconds: What they took.
        held: Most tokens in a row, from the first, that a vector of this stage gave.
        right: Largest share of tokens that one gave after the right ones before.
        prompt: (1, D) the vector that gave `held`.
    """

    tokens: int
    steps: int
    seconds: float
    held: int
    right: float
    prompt: Tensor

    def to_json(self) -> dict[str, object]:
        """All but the vector."""
        return {
            "tokens": self.tokens,
            "tokens_held": self.held,
            "tokens_right": self.right,
            "steps": self.steps,
            "minutes": self.seconds / 60,
        }


def run(quick: bool, *, minutes: float = 10.0) -> dict[str, object]:
    """Natural text and random tokens; with `quick`, random tokens on the small model.

    Args:
        quick: The small model only.
        minutes: No stage of a text begins a step after this time.

    Returns:
        The entry `cramming`.
    """
    if quick:
        with small_model() as model:
            texts = {"random tokens": (_random_tokens(model, max(QUICK_LENGTHS)), QUICK_LENGTHS)}
            return _all(model, texts, QUICK_STEPS_EACH, minutes)
    model = smollm2()
    prose = model.engine.codec.encode_key(PROSE)
    texts = {
        "natural text": (prose, NATURAL_LENGTHS),
        "random tokens": (_random_tokens(model, max(RANDOM_LENGTHS)), RANDOM_LENGTHS),
    }
    return _all(model, texts, STEPS_EACH, minutes)


def _all(
    model: Model, texts: dict[str, tuple[Sequence[int], Sequence[int]]], steps: int, minutes: float
) -> dict[str, object]:
    found = []
    for name, (ids, lengths) in texts.items():
        stages = _grow(model, ids, lengths, steps, 60 * minutes)
        best = max(stages, key=lambda stage: stage.held)
        total = sum(stage.steps for stage in stages)
        protocol = _by_protocol(model, ids[: max(best.held, lengths[0])], total, 60 * minutes)
        found.append(
            {
                "text": name,
                "tokens_held": best.held,
                "decoded_by_generate": _decoded(model, best.prompt, ids[: best.held]),
                "steps": total,
                "minutes": sum(stage.seconds for stage in stages) / 60,
                "stages": [stage.to_json() for stage in stages],
                "protocol": protocol.to_json(),
            }
        )
    return {"model": model.name, "vectors": 1, "texts": found}


def _grow(
    model: Model, ids: Sequence[int], lengths: Sequence[int], steps: int, seconds: float
) -> list[Stage]:
    """Longer and longer beginnings of a text, until one is not held or the time is up."""
    generator = torch.Generator().manual_seed(0)
    prompt = from_vocabulary(model.engine, count=1, prompt_tokens=1, generator=generator)[0]
    deadline = time.perf_counter() + seconds
    # With the default sharpening the first token, without which none counts, was not right after
    # 400 steps on 16 tokens; without sharpening it is among the earliest.
    config = TrainingConfig(prompt_tokens=1, sharpening=1.0)
    stages: list[Stage] = []
    for length in lengths:
        side = EngineSteps(model.engine, [_packed(model, ids[:length])], [prompt], config=config)
        if stages:
            side.slower(WARM_SHARE)
        stages.append(
            _told(_train(_engine_step(side), length, steps, deadline, config.relative_lead))
        )
        prompt = stages[-1].prompt
        if stages[-1].held < length:
            break
    return stages


def _train(step: Step, length: int, steps: int, deadline: float, lead: float) -> Stage:
    """Train until every token is right, the steps are done or the time is up."""
    best, right, done, prompt = -1, 0.0, 0, torch.empty(0)
    began = time.perf_counter()
    # One step at least: there is no vector to speak of before it.
    while not done or (best < length and done < steps and time.perf_counter() < deadline):
        scored, leads = step()
        won = leads > lead
        done, right = done + 1, max(right, float(won.double().mean()))
        held = int(won.long().cumprod(0).sum())
        if held > best:
            best, prompt = held, scored
    return Stage(
        tokens=length,
        steps=done,
        seconds=time.perf_counter() - began,
        held=best,
        right=right,
        prompt=prompt,
    )


def _engine_step(side: EngineSteps) -> Step:
    def step() -> tuple[Tensor, Tensor]:
        scored = side.prompts
        return scored, side.scored_step()[0].lead

    return step


def _by_protocol(model: Model, ids: Sequence[int], steps: int, seconds: float) -> Stage:
    """The papers' protocol on a whole text."""
    deviation = model.stock.get_input_embeddings().weight.std()
    generator = torch.Generator().manual_seed(0)
    vector = (torch.randn(1, model.shape.dim, generator=generator) * deviation).requires_grad_(True)
    optimizer = torch.optim.AdamW([vector], lr=1e-2, betas=(0.9, 0.9), weight_decay=0.01)
    side = EngineSteps(model.engine, [_packed(model, ids)], [vector.detach()])

    def step() -> tuple[Tensor, Tensor]:
        scored = vector.detach().clone()
        scores, vector.grad = side.evaluate(scored)
        optimizer.step()
        return scored, scores.lead

    return _told(_train(step, len(ids), steps, time.perf_counter() + seconds, 0.0))


def _packed(model: Model, ids: Sequence[int]) -> PackedPairs:
    """The text as the value of one pair, whose key is the beginning-of-text token."""
    begin = (model.stock.config.bos_token_id,)
    return pack([EncodedPair(key="", value="", key_ids=begin, value_ids=tuple(ids))])


@torch.no_grad()
def _decoded(model: Model, prompt: Tensor, ids: Sequence[int]) -> bool:
    """Whether stock greedy `generate` gives the text from the vector alone."""
    if not ids:
        return False
    begin = model.engine.embed(torch.tensor([model.stock.config.bos_token_id]))
    inputs = torch.cat([prompt, begin])[None]
    mask = torch.ones(inputs.shape[:2], dtype=torch.long)
    found = model.stock.generate(
        inputs_embeds=inputs, attention_mask=mask, max_new_tokens=len(ids), do_sample=False
    )
    return bool(found[0].tolist() == list(ids))


def _random_tokens(model: Model, count: int) -> tuple[int, ...]:
    ordinary = torch.tensor(model.engine.codec.plain_token_ids())
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(ordinary), (count,), generator=generator)
    return tuple(ordinary[drawn].tolist())


def _told(stage: Stage) -> Stage:
    print(
        f"cramming: {stage.held} of {stage.tokens} tokens in {stage.steps} steps, "
        f"{stage.seconds / 60:.1f} minutes",
        file=sys.stderr,
    )
    return stage
