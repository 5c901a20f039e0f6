"""How long a text one vector holds: exact under greedy decoding, the first token included.

The vector stands first, the beginning-of-text token follows it, and every token of the text is
read. The search is the product's, `search_text`; what is held at the end is decoded by stock
`generate`.

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
from benchmarks.engine_parts.engine_side import EngineSteps
from benchmarks.engine_parts.models import Model, small_model, smollm2
from benchmarks.engine_parts.text_runs import in_a_row, run_text, text_targets

from promptlimits.capacity.search.attempt import Attempt
from promptlimits.capacity.search.search import SearchConfig
from promptlimits.capacity.search.texts import search_text
from promptlimits.capacity.train.config import TEXT_SHARPENING_SHARE, TrainingConfig
from promptlimits.capacity.train.evaluate import evaluate
from promptlimits.nets.protocol import EncodedPair, pack

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

CONFIG: Final = SearchConfig(
    training=TrainingConfig(prompt_tokens=1, first_sharpening_share=TEXT_SHARPENING_SHARE)
)
RANDOM_TOKENS: Final = 64
QUICK_TOKENS: Final = 8


def run(quick: bool, *, minutes: float = 5.0) -> dict[str, object]:
    """Natural text and random tokens; with `quick`, random tokens on the small model.

    Args:
        quick: The small model only.
        minutes: No search begins a step after so much processor time, nor does the protocol.

    Returns:
        The entry `cramming`.
    """
    if quick:
        with small_model() as model:
            ids = _random_tokens(model, QUICK_TOKENS)
            found = [_text(model, "random tokens", ids, minutes)]
            return {"model": model.name, "vectors": 1, "texts": found}
    model = smollm2()
    texts = {
        "natural text": model.engine.codec.encode_key(PROSE),
        "random tokens": _random_tokens(model, RANDOM_TOKENS),
    }
    found = [_text(model, name, ids, minutes) for name, ids in texts.items()]
    return {"model": model.name, "vectors": 1, "texts": found}


def _text(model: Model, name: str, ids: Sequence[int], minutes: float) -> dict[str, object]:
    """Everything about one text."""
    done = run_text(model, ids, CONFIG, search_text, seconds=60 * minutes, on_attempt=_told)
    best = done.result.best
    held = done.confirmed
    return {
        "text": name,
        "tokens_held": held,
        "tokens_in_a_row_teacher_forced": 0 if best is None else len(best.held),
        "steps": done.steps,
        "minutes": done.seconds / 60,
        "bits_held_without_prompt": _bits_without_prompt(model, ids[:held]),
        "attempts": [one.row.to_json() for one in done.result.attempts],
        "protocol": _by_protocol(model, ids[: max(held, QUICK_TOKENS)], done.steps, 60 * minutes),
    }


def _told(one: Attempt) -> None:
    print(
        f"cramming: {len(one.held)} of {one.size} tokens after {one.steps} steps", file=sys.stderr
    )


def _by_protocol(model: Model, ids: Sequence[int], steps: int, seconds: float) -> dict[str, object]:
    """The papers' protocol on a whole text, until every token is right or the limits."""
    deviation = model.stock.get_input_embeddings().weight.std()
    generator = torch.Generator().manual_seed(0)
    vector = (torch.randn(1, model.shape.dim, generator=generator) * deviation).requires_grad_(True)
    optimizer = torch.optim.AdamW([vector], lr=1e-2, betas=(0.9, 0.9), weight_decay=0.01)
    side = EngineSteps(model.engine, [pack(text_targets(model, ids).trained)], [vector.detach()])
    began, done, right, held = time.process_time(), 0, 0.0, 0
    while done < steps and held < len(ids) and time.process_time() - began < seconds:
        scores, vector.grad = side.evaluate(vector.detach())
        optimizer.step()
        won = scores.lead > 0
        done, right = done + 1, max(right, float(won.double().mean()))
        held = max(held, in_a_row(won))
    minutes = (time.process_time() - began) / 60
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


def _random_tokens(model: Model, count: int) -> tuple[int, ...]:
    ordinary = torch.tensor(model.engine.codec.plain_token_ids())
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(ordinary), (count,), generator=generator)
    return tuple(ordinary[drawn].tolist())
