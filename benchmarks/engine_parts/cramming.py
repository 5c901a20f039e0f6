"""How long a text one vector holds: exact under greedy decoding, the first token included.

The vector stands first, the beginning-of-text token follows it, and every token of the text is
read. How the vector is searched is in `cramming_search`; what is held at the end is decoded by
stock `generate`.

Beside it the protocol of the cramming papers, on the length that was held and with as many steps:
a vector drawn from N(0, 1) times the embeddings' deviation, AdamW at 1e-2, betas (0.9, 0.9),
weight decay 0.01, the plain mean loss, no clipping.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import Final

import torch
from benchmarks.engine_parts.cramming_search import Stage, packed, search
from benchmarks.engine_parts.engine_side import EngineSteps
from benchmarks.engine_parts.models import Model, small_model, smollm2
from torch import Tensor

from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.evaluate import evaluate
from promptlimits.nets.protocol import EncodedPair

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

NATURAL_LENGTHS: Final = (32, 48, 64, 80, 96, 112)
RANDOM_LENGTHS: Final = (16, 24, 32, 40, 48)
QUICK_LENGTHS: Final = (2, 4, 6, 8)
MOST_STEPS: Final = 600
QUICK_MOST_STEPS: Final = 100


def run(quick: bool, *, minutes: float = 5.0) -> dict[str, object]:
    """Natural text and random tokens; with `quick`, random tokens on the small model.

    Args:
        quick: The small model only.
        minutes: No stage of a text begins a step after this time, nor does the protocol.

    Returns:
        The entry `cramming`.
    """
    if quick:
        with small_model() as model:
            random = (_random_tokens(model, max(QUICK_LENGTHS)), QUICK_LENGTHS)
            found = [_text(model, "random tokens", *random, QUICK_MOST_STEPS, minutes)]
            return {"model": model.name, "vectors": 1, "texts": found}
    model = smollm2()
    texts = {
        "natural text": (model.engine.codec.encode_key(PROSE), NATURAL_LENGTHS),
        "random tokens": (_random_tokens(model, max(RANDOM_LENGTHS)), RANDOM_LENGTHS),
    }
    found = [_text(model, name, *one, MOST_STEPS, minutes) for name, one in texts.items()]
    return {"model": model.name, "vectors": 1, "texts": found}


def _text(
    model: Model,
    name: str,
    ids: Sequence[int],
    lengths: Sequence[int],
    most_steps: int,
    minutes: float,
) -> dict[str, object]:
    """Everything about one text."""
    stages = search(model, ids, lengths, most_steps=most_steps, seconds=60 * minutes)
    prompt, scored_right = _best(model, ids, stages)
    held = _decoded(model, prompt, ids[:scored_right])
    steps = sum(stage.steps for stage in stages)
    scored = ids[: max(held, lengths[0])]
    enough = (at for at, stage in enumerate(stages, 1) if stage.solved and stage.tokens >= held)
    until = next(enough, len(stages))
    return {
        "text": name,
        "tokens_held": held,
        "tokens_in_a_row_teacher_forced": scored_right,
        "steps_to_held": sum(stage.steps for stage in stages[:until]),
        "minutes_to_held": sum(stage.seconds for stage in stages[:until]) / 60,
        "steps": steps,
        "minutes": sum(stage.seconds for stage in stages) / 60,
        "candidates": max(stage.candidates for stage in stages),
        "bits_held_without_prompt": _bits_without_prompt(model, ids[:held]),
        "stages": [stage.to_json() for stage in stages],
        "protocol": _by_protocol(model, scored, steps, 60 * minutes),
    }


def _best(model: Model, ids: Sequence[int], stages: Sequence[Stage]) -> tuple[Tensor, int]:
    """Of the best vector of each stage, the one that gives most tokens in a row."""
    vectors = [stage.fits[0].prompt for stage in stages]
    lead = TrainingConfig(prompt_tokens=1).relative_lead
    tried = max(stage.tokens for stage in stages)
    sides = [EngineSteps(model.engine, [packed(model, ids[:tried])], [one]) for one in vectors]
    held = [
        _in_a_row(side.evaluate(one)[0].lead > lead)
        for side, one in zip(sides, vectors, strict=True)
    ]
    most = max(range(len(held)), key=held.__getitem__)
    return vectors[most], held[most]


def _in_a_row(won: Tensor) -> int:
    return int(won.long().cumprod(0).sum())


def _by_protocol(model: Model, ids: Sequence[int], steps: int, seconds: float) -> dict[str, object]:
    """The papers' protocol on a whole text, until every token is right or the limits."""
    deviation = model.stock.get_input_embeddings().weight.std()
    generator = torch.Generator().manual_seed(0)
    vector = (torch.randn(1, model.shape.dim, generator=generator) * deviation).requires_grad_(True)
    optimizer = torch.optim.AdamW([vector], lr=1e-2, betas=(0.9, 0.9), weight_decay=0.01)
    side = EngineSteps(model.engine, [packed(model, ids)], [vector.detach()])
    began, done, right, held = time.perf_counter(), 0, 0.0, 0
    while done < steps and held < len(ids) and time.perf_counter() - began < seconds:
        scores, vector.grad = side.evaluate(vector.detach())
        optimizer.step()
        won = scores.lead > 0
        done, right = done + 1, max(right, float(won.double().mean()))
        held = max(held, _in_a_row(won))
    minutes = (time.perf_counter() - began) / 60
    print(f"cramming: protocol {held} of {len(ids)}, {minutes:.1f} minutes", file=sys.stderr)
    return {
        "tokens": len(ids),
        "tokens_held": held,
        "tokens_right": right,
        "steps": done,
        "minutes": minutes,
        "ended_by": "all held" if held == len(ids) else "steps" if done == steps else "time",
    }


def _bits_without_prompt(model: Model, ids: Sequence[int]) -> float:
    """What the text costs under the model behind the beginning-of-text token alone."""
    if not ids:
        return 0.0
    begin = (model.stock.config.bos_token_id,)
    pair = EncodedPair(key="", value="", key_ids=begin, value_ids=tuple(ids))
    nothing = torch.empty(0, model.shape.dim)
    return evaluate(model.engine, nothing, [pair]).loss_nats[0] / math.log(2)


@torch.no_grad()
def _decoded(model: Model, prompt: Tensor, ids: Sequence[int]) -> int:
    """Tokens of the text, from the first on, that stock greedy `generate` gives."""
    if not ids:
        return 0
    begin = model.engine.embed(torch.tensor([model.stock.config.bos_token_id]))
    inputs = torch.cat([prompt, begin])[None]
    mask = torch.ones(inputs.shape[:2], dtype=torch.long)
    found = model.stock.generate(
        inputs_embeds=inputs, attention_mask=mask, max_new_tokens=len(ids), do_sample=False
    )
    same = [one == other for one, other in zip(found[0].tolist(), ids, strict=False)]
    return _in_a_row(torch.tensor(same))


def _random_tokens(model: Model, count: int) -> tuple[int, ...]:
    ordinary = torch.tensor(model.engine.codec.plain_token_ids())
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(ordinary), (count,), generator=generator)
    return tuple(ordinary[drawn].tolist())
