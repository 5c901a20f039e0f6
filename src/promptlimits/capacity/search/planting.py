"""Answers that a known prompt gives: what a planted control is trained for.

The planted prompt is drawn in random directions, at the norm of the prompt that the search
found. Measured on SmolLM2-135M with 32 capitals and one prompt token, the answers behind it were:
26 distinct without a prompt; 18 to 22 behind a row of the vocabulary, 18 or 19 behind a mean of
8 or 64 rows (many of them the model's habits, such as "The"); 22 to 27 behind a random direction
at the norm of a token, 28 to 31 at 10 to 100 times that, where trained prompts lie (75 times),
with 0 to 6 of them also said without a prompt. A trained prompt with noise gives 26 to 32, but
it is one that the optimiser could reach, which is the question. Such answers are no easier than
real ones: of 24 planted ones, 8 were recovered after 30 steps.

A planted prefix is drawn the same way: normal numbers, those of each layer's keys and of its
values with the deviation that random tokens leave in the cache there, scaled to the norm of the
prefix that the search found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.evaluate import evaluate
from promptlimits.capacity.train.objective import lead
from promptlimits.capacity.train.problem import Stopper
from promptlimits.capacity.train.state import from_vocabulary
from promptlimits.nets.protocol import EncodedPair, FrozenModel, Part, PromptKind, pack

CANDIDATES: Final = 3
"""Prompts drawn, of which the one whose answers begin most diversely is planted."""

SAMPLE: Final = 16
"""Keys that each candidate is asked for that choice, for one token each: that is cheap."""

UNFOUND_NORM: Final = 30.0
"""Norm of a planted token over that of a vocabulary row, where the search found no prompt."""

_NORM_ROWS = 256
_LOGIT_BYTES = 256 * 2**20
# Apart from the seeds of starts, which count up from the seed of the command.
_SEED_OF_PLANT = 2**31


@dataclass(frozen=True, kw_only=True)
class Planted:
    """Pairs whose answers a known prompt gives."""

    # The pairs; their answers end where the real ones do, not in an end marker.
    pairs: tuple[EncodedPair, ...]
    token_norm: float  # mean L2 norm of the planted prompt's tokens
    unprompted: int  # how many of them the model also answers without a prompt


def plant(
    model: FrozenModel,
    pairs: Sequence[EncodedPair],
    config: TrainingConfig,
    *,
    size: int,
    token_norm: float | None,
    should_stop: Stopper,
    kind: PromptKind = PromptKind.SOFT,
) -> Planted | None:
    """Draw a few known prompts and take the answers of the one that begins most diversely.

    A pair whose planted answer has a token that wins by less than `relative_lead` is passed
    over for the next key of the list: training would not count it, though a prompt for it is
    known. An end marker among the tokens is a token like any other.
    """
    generator = torch.Generator().manual_seed(_SEED_OF_PLANT + config.seed)
    norm = _norm_unfound(model, kind, generator) if token_norm is None else token_norm
    heads = [pair.key_ids for pair in pairs[: min(size, SAMPLE)]]
    drawn: list[tuple[int, Tensor]] = []
    for _ in range(CANDIDATES):
        prompt = _random_prompt(model, kind, config.prompt_tokens, norm, generator)
        if should_stop() is not None:
            return None
        drawn.append((len(set(_next_tokens(model, prompt, kind, heads)[0])), prompt))
    _, best = max(drawn, key=lambda one: one[0])
    kept: list[EncodedPair] = []
    asked = 0
    while len(kept) < size and asked < len(pairs):
        keys = pairs[asked : asked + size - len(kept)]
        said = _answers(model, best, kind, keys, config, should_stop)
        if said is None:
            return None
        kept += said
        asked += len(keys)
    return Planted(pairs=tuple(kept), token_norm=norm, unprompted=_unprompted(model, kept))


def _norm_of_rows(model: FrozenModel, generator: torch.Generator) -> float:
    """Mean L2 norm of a sample of the vocabulary's rows."""
    plain = torch.tensor(model.codec.plain_token_ids(), dtype=torch.long)
    drawn = plain[torch.randint(len(plain), (_NORM_ROWS,), generator=generator)]
    with torch.no_grad():
        return float(model.embed(drawn.to(model.device)).float().norm(dim=-1).mean())


def _norm_unfound(model: FrozenModel, kind: PromptKind, generator: torch.Generator) -> float:
    """Norm of a planted row where the search found no prompt to take it from."""
    if kind is PromptKind.SOFT:
        return _norm_of_rows(model, generator) * UNFOUND_NORM
    cached = from_vocabulary(model, count=1, prompt_tokens=4, generator=generator, kind=kind)
    return float(cached[0].norm(dim=1).mean())


def _random_prompt(
    model: FrozenModel,
    kind: PromptKind,
    prompt_tokens: int,
    norm: float,
    generator: torch.Generator,
) -> Tensor:
    """(P, W) rows of one norm, drawn on the CPU so that every device gets the same."""
    drawn = torch.randn(prompt_tokens, model.prompt_width(kind), generator=generator)
    if kind is PromptKind.PREFIX:
        drawn = _as_cached(model, drawn, generator)
    planted: Tensor = norm * drawn / drawn.norm(dim=1, keepdim=True)
    return planted.to(model.device)


def _as_cached(model: FrozenModel, drawn: Tensor, generator: torch.Generator) -> Tensor:
    """Each layer's keys, and its values, with the deviation that random tokens leave there."""
    shape = model.prefix_shape
    cached = from_vocabulary(
        model, count=1, prompt_tokens=4, generator=generator, kind=PromptKind.PREFIX
    )[0].cpu()
    blocks = cached.view(len(cached), 2 * shape.layers, shape.token_dim)
    deviations = blocks.square().mean(dim=(0, 2)).sqrt()
    return drawn * deviations.repeat_interleave(shape.token_dim)


def _unprompted(model: FrozenModel, pairs: Sequence[EncodedPair]) -> int:
    if not pairs:
        return 0
    nothing = torch.zeros(0, model.card.dim, device=model.device)
    return len(evaluate(model, nothing, pairs).held)


def _answers(
    model: FrozenModel,
    prompt: Tensor,
    kind: PromptKind,
    pairs: Sequence[EncodedPair],
    config: TrainingConfig,
    should_stop: Stopper,
) -> list[EncodedPair] | None:
    """Each key with what the model says behind a prompt, near ties left out; None if stopped."""
    said: list[tuple[int, ...]] = [() for _ in pairs]
    sure = [True] * len(pairs)
    for position in range(max(len(pair.value_ids) for pair in pairs)):
        if should_stop() is not None:
            return None
        going = [
            index
            for index, pair in enumerate(pairs)
            if sure[index] and position < len(pair.value_ids)
        ]
        heads = [pairs[index].key_ids + said[index] for index in going]
        tokens, leads = _next_tokens(model, prompt, kind, heads)
        for index, token, ahead in zip(going, tokens, leads, strict=True):
            said[index] += (token,)
            sure[index] = ahead > config.relative_lead
    return [
        EncodedPair(
            key=pair.key, value=model.codec.decode(ids), key_ids=pair.key_ids, value_ids=ids
        )
        for pair, ids, certain in zip(pairs, said, sure, strict=True)
        if certain
    ]


@torch.no_grad()
def _next_tokens(
    model: FrozenModel, prompt: Tensor, kind: PromptKind, heads: Sequence[tuple[int, ...]]
) -> tuple[list[int], list[float]]:
    """The likeliest next token behind each sequence, and the lead by which it wins."""
    tokens: list[int] = []
    leads: list[float] = []
    most = max(1, _LOGIT_BYTES // (4 * model.card.vocabulary))
    for start in range(0, len(heads), most):
        # One position is read; what would stand there is not known yet.
        probes = [
            EncodedPair(key="", value="", key_ids=ids, value_ids=(0,))
            for ids in heads[start : start + most]
        ]
        packed = pack(probes, device=model.device)
        batch = model.prepare([Part(prompt_tokens=prompt.shape[0], pairs=packed)], kind=kind)
        logits = model.head.logits(batch.read_states(prompt.to(model.dtype)))
        top = logits.argmax(dim=-1)
        tokens += top.tolist()
        leads += lead(logits, top).tolist()
    return tokens, leads
