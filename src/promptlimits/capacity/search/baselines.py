"""What the frozen model answers without a trained prompt, asked in the same format."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Self

import torch
from torch import Tensor

from promptlimits.base.errors import UserError
from promptlimits.base.files import JsonObject
from promptlimits.capacity.search.attempt import RunContext
from promptlimits.capacity.task.targets import Targets
from promptlimits.capacity.train.evaluate import Evaluation, evaluate
from promptlimits.capacity.train.problem import Stopper
from promptlimits.nets.protocol import EncodedPair, FrozenModel, Part, PromptKind, pack
from promptlimits.record.parts import Baseline

OnChunk = Callable[[int], None]

NO_PROMPT: Final = "no prompt"
IN_CONTEXT: Final = "in context"


class Unprompted:
    """What of a task the model answers without a prompt: no prompt gets credit for it.

    A pair is asked when somebody needs to know, and then remembered: the whole list for the
    baseline, or, where there is no time for that, just the pairs that a prompt was found to hold.
    """

    def __init__(self, place: RunContext, pairs: Sequence[EncodedPair], targets: Targets) -> None:
        self._place, self._pairs, self._targets = place, pairs, targets
        self._key: JsonObject = {**place.about, "units": targets.units}
        known: Any = place.store.get("unprompted", self._key)
        known = known or {"asked": [], "exact": [], "tokens": None}
        self._asked, self._exact = set(known["asked"]), set(known["exact"])
        self._tokens: int | None = known["tokens"]

    def among(self, held: Collection[int]) -> frozenset[int]:
        """Those of what is held that need no prompt."""
        self._ask(self._targets.to_ask(held))
        return frozenset(held) & self._targets.unprompted(self._exact, self._tokens)

    def baseline(
        self, *, on_chunk: OnChunk | None = None, should_stop: Stopper | None = None
    ) -> Baseline:
        """What the model answers of the whole task."""
        self._ask(range(len(self._pairs)), on_chunk, should_stop)
        return Baseline.made(
            NO_PROMPT,
            of=len(self._pairs),
            asked=len(self._asked),
            exact=tuple(sorted(self._exact)),
            tokens=self._tokens,
        )

    def _ask(
        self,
        indices: Collection[int],
        on_chunk: OnChunk | None = None,
        should_stop: Stopper | None = None,
    ) -> None:
        """Ask those of the pairs that were not asked yet, and remember what came."""
        new = [index for index in indices if index not in self._asked]
        if not new:
            return
        pairs = [self._pairs[index] for index in new]
        found = answered(self._place.model, (), pairs, on_chunk=on_chunk, should_stop=should_stop)
        self._asked.update(new[: found.asked])
        self._exact.update(new[position] for position in found.exact)
        self._tokens = self._targets.tokens_right(found.right)
        self._place.store.put(
            "unprompted",
            self._key,
            {
                "asked": [*sorted(self._asked)],
                "exact": [*sorted(self._exact)],
                "tokens": self._tokens,
            },
        )


def in_context(
    model: FrozenModel,
    pairs: Sequence[EncodedPair],
    targets: Targets,
    *,
    most_tokens: int | None = None,
    on_chunk: OnChunk | None = None,
    should_stop: Stopper | None = None,
) -> Baseline:
    """Write pairs out in front of each key, as many as fit, then ask every pair."""
    room = model.card.context_length - max(pair.longest for pair in pairs)
    limit = room if most_tokens is None else min(room, most_tokens)
    context, shots = written_out_within(pairs, limit)
    found = answered(model, context, pairs, on_chunk=on_chunk, should_stop=should_stop)
    note = ""
    if shots < len(pairs):
        bound = "the context window" if limit == room else "the time given to this baseline"
        note = f"{len(pairs) - shots} pairs did not fit into {bound} and were asked all the same"
    return Baseline.made(
        IN_CONTEXT,
        of=len(pairs),
        asked=found.asked,
        exact=found.exact,
        shots=shots,
        context_tokens=len(context),
        note=note,
        tokens=targets.tokens_right(found.right),
    )


class Answered(NamedTuple):
    """What came behind a context."""

    exact: tuple[int, ...]  # places of the pairs to which an answer that counts comes
    asked: int  # how many pairs were asked, the first ones
    # For each of them, how many tokens of its own value come, from the first one on.
    right: tuple[int, ...]


def answered(
    model: FrozenModel,
    context: Sequence[int],
    pairs: Sequence[EncodedPair],
    *,
    on_chunk: OnChunk | None = None,
    should_stop: Stopper | None = None,
) -> Answered:
    """Ask pairs behind a context for every answer that counts.

    Any end marker of the model ends it: that a prompt has the model choose another one is no
    credit to it.
    """
    read = Context.of(model, context, pairs)
    forms = [(index, form) for index, pair in enumerate(pairs) for form in pair.answers]

    def done(asked: int) -> int:
        # A pair is done when the next form is another's.
        return forms[asked][0] if asked < len(forms) else len(pairs)

    found = answers_behind(
        model,
        read,
        [form for _, form in forms],
        on_chunk=None if on_chunk is None else lambda asked: on_chunk(done(asked)),
        should_stop=should_stop,
    )
    held = {forms[place][0] for place in found.held}
    held |= {forms[place][0] for place in _ended_otherwise(model, read, forms, found)}
    asked = done(len(found.right))
    # Of each pair the first form is its own value.
    own: dict[int, int] = {}
    for (index, _), right in zip(forms, found.right, strict=False):
        own.setdefault(index, right)
    return Answered(
        exact=tuple(sorted(index for index in held if index < asked)),
        asked=asked,
        right=tuple(own[index] for index in range(asked)),
    )


def _ended_otherwise(
    model: FrozenModel,
    context: Context,
    forms: Sequence[tuple[int, EncodedPair]],
    found: Evaluation,
) -> list[int]:
    """Places of the forms that come, but for another end marker of the model than their own."""
    ended = [
        (place, replace(form, value_ids=(*form.value_ids[:-1], end)))
        for place in found.but_end
        for form in [forms[place][1]]
        for end in model.codec.end_ids
        if end != form.value_ids[-1]
    ]
    if not ended:
        return []
    came = answers_behind(model, context, [form for _, form in ended])
    return [ended[index][0] for index in came.held]


@dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """Tokens in front of every key, as a prompt that `evaluate` takes."""

    prompt: Tensor  # (P, W)
    kind: PromptKind

    @classmethod
    def of(cls, model: FrozenModel, ids: Sequence[int], pairs: Sequence[EncodedPair]) -> Self:
        """Run once where the model's cache can be kept for many pairs; else read with each chunk.

        Stock code keeps a copy of the cache for each pair; where that is more than reading the
        tokens takes, they are read.
        """
        tokens = torch.tensor(list(ids), dtype=torch.long, device=model.device)
        part = Part(prompt_tokens=len(ids), pairs=pack(pairs, device=model.device))
        with suppress(UserError):  # of a family whose cache is no prefix
            cached, read = (model.step_bytes(part, kind=kind) for kind in _CACHED_OR_READ)
            if ids and cached <= read:
                return cls(prompt=model.prefix_from_tokens(tokens[None])[0], kind=PromptKind.PREFIX)
        with torch.no_grad():
            return cls(prompt=model.embed(tokens), kind=PromptKind.SOFT)


_CACHED_OR_READ: Final = (PromptKind.PREFIX, PromptKind.SOFT)


def answers_behind(
    model: FrozenModel,
    context: Sequence[int] | Context,
    pairs: Sequence[EncodedPair],
    *,
    on_chunk: OnChunk | None = None,
    should_stop: Stopper | None = None,
) -> Evaluation:
    """Ask pairs behind the tokens of a context."""
    if not isinstance(context, Context):
        context = Context.of(model, context, pairs)
    return evaluate(
        model,
        context.prompt,
        pairs,
        kind=context.kind,
        on_chunk=on_chunk,
        should_stop=should_stop,
    )


def written_out(pairs: Sequence[EncodedPair]) -> tuple[int, ...]:
    """Token ids of pairs one after another: key, value, end marker."""
    return tuple(token for pair in pairs for token in pair.key_ids + pair.value_ids)


def written_out_within(pairs: Sequence[EncodedPair], limit: int) -> tuple[tuple[int, ...], int]:
    """As many of the first pairs as fit into `limit` tokens, and how many they are."""
    context: tuple[int, ...] = ()
    for shots, pair in enumerate(pairs):
        longer = context + written_out([pair])
        if len(longer) > limit:
            return context, shots
        context = longer
    return context, len(pairs)
