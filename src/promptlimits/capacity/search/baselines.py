"""What the frozen model answers without a trained prompt, asked in the same format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

from promptlimits.base.typing import JsonObject
from promptlimits.capacity.task.beginnings import Beginnings
from promptlimits.capacity.train.evaluate import Evaluation, evaluate, tokens_in_a_row
from promptlimits.capacity.train.problem import Stopper
from promptlimits.nets.protocol import EncodedPair, FrozenModel

OnChunk = Callable[[int], None]

NO_PROMPT: Final = "no prompt"
IN_CONTEXT: Final = "in context"


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Pairs answered exactly without a trained prompt, in any of the answers that count.

    Attributes:
        name: What stood in front of the key instead.
        of: Pairs asked.
        exact: Indices of those answered exactly.
        shots: Pairs written out in front of the key.
        context_tokens: Tokens in front of the key.
        note: What else a reader must know.
        tokens: Of a text, how many of its tokens come from the first one on; None for a list.
        asked: How many of the pairs were asked, the first ones: fewer than `of` where the budget
            was used up, and then nothing was measured of the list.
    """

    name: str
    of: int
    asked: int
    exact: tuple[int, ...]
    shots: int = 0
    context_tokens: int = 0
    note: str = ""
    tokens: int | None = None

    @property
    def measured(self) -> bool:
        """Whether every pair was asked."""
        return self.asked == self.of

    def to_json(self) -> JsonObject:
        """The baseline as the record shows it."""
        return {
            "name": self.name,
            "status": "measured" if self.measured else "not measured",
            "pairs": len(self.exact) if self.measured else None,
            "of": self.of,
            "asked": self.asked,
            "exact": list(self.exact),
            "shots": self.shots,
            "context_tokens": self.context_tokens,
            "note": self.note,
            "tokens": self.tokens,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Baseline:
        """Read what `to_json` wrote."""
        return cls(
            name=fields["name"],
            of=fields["of"],
            asked=fields["asked"],
            exact=tuple(fields["exact"]),
            shots=fields["shots"],
            context_tokens=fields["context_tokens"],
            note=fields["note"],
            tokens=fields["tokens"],
        )


def no_prompt(
    model: FrozenModel,
    pairs: Sequence[EncodedPair],
    *,
    beginnings: Beginnings | None = None,
    on_chunk: OnChunk | None = None,
    should_stop: Stopper | None = None,
) -> Baseline:
    """Ask each key with nothing in front."""
    exact, asked = _answered(model, (), pairs, on_chunk=on_chunk, should_stop=should_stop)
    return Baseline(
        name=NO_PROMPT,
        of=len(pairs),
        asked=asked,
        exact=exact,
        tokens=_tokens_behind(model, (), beginnings),
    )


def in_context(
    model: FrozenModel,
    pairs: Sequence[EncodedPair],
    *,
    most_tokens: int | None = None,
    beginnings: Beginnings | None = None,
    on_chunk: OnChunk | None = None,
    should_stop: Stopper | None = None,
) -> Baseline:
    """Write pairs out in front of each key, as many as fit, then ask every pair."""
    longest = max(pair.longest for pair in pairs)
    room = model.card.context_length - longest
    limit = room if most_tokens is None else min(room, most_tokens)
    context, shots = written_out_within(pairs, limit)
    exact, asked = _answered(model, context, pairs, on_chunk=on_chunk, should_stop=should_stop)
    note = ""
    if shots < len(pairs):
        bound = "the context window" if limit == room else "the time given to this baseline"
        note = f"{len(pairs) - shots} pairs did not fit into {bound} and were asked all the same"
    return Baseline(
        name=IN_CONTEXT,
        of=len(pairs),
        asked=asked,
        exact=exact,
        shots=shots,
        context_tokens=len(context),
        note=note,
        tokens=_tokens_behind(model, context, beginnings),
    )


def _answered(
    model: FrozenModel,
    context: Sequence[int],
    pairs: Sequence[EncodedPair],
    *,
    on_chunk: OnChunk | None,
    should_stop: Stopper | None,
) -> tuple[tuple[int, ...], int]:
    """The pairs to which an answer that counts comes behind a context, and how many were asked.

    Any end marker of the model ends it: that a prompt has the model choose another one is no
    credit to it.
    """
    forms = [(index, form) for index, pair in enumerate(pairs) for form in pair.answers]

    def done(asked: int) -> int:
        # A pair is done when the next form is another's.
        return forms[asked][0] if asked < len(forms) else len(pairs)

    found = answers_behind(
        model,
        context,
        [form for _, form in forms],
        on_chunk=None if on_chunk is None else lambda asked: on_chunk(done(asked)),
        should_stop=should_stop,
    )
    held = {forms[place][0] for place in found.held}
    held |= {forms[place][0] for place in _ended_otherwise(model, context, forms, found)}
    asked = done(len(found.exact))
    return tuple(sorted(index for index in held if index < asked)), asked


def _ended_otherwise(
    model: FrozenModel,
    context: Sequence[int],
    forms: Sequence[tuple[int, EncodedPair]],
    found: Evaluation,
) -> list[int]:
    """Places of the forms that come, but for another end marker of the model than their own."""
    written = zip(forms, found.exact, found.but_end, strict=False)
    places = [place for place, (_, exact, but_end) in enumerate(written) if but_end and not exact]
    ended = [
        (place, replace(form, value_ids=(*form.value_ids[:-1], end)))
        for place in places
        for form in [forms[place][1]]
        for end in model.codec.end_ids
        if end != form.value_ids[-1]
    ]
    if not ended:
        return []
    came = answers_behind(model, context, [form for _, form in ended])
    return [ended[index][0] for index in came.held]


def answers_behind(
    model: FrozenModel,
    context: Sequence[int],
    pairs: Sequence[EncodedPair],
    *,
    on_chunk: OnChunk | None = None,
    should_stop: Stopper | None = None,
) -> Evaluation:
    """Ask pairs behind the tokens of a context."""
    context_embedded = _embedded(model, context)
    return evaluate(model, context_embedded, pairs, on_chunk=on_chunk, should_stop=should_stop)


def _tokens_behind(
    model: FrozenModel, context: Sequence[int], beginnings: Beginnings | None
) -> int | None:
    """Tokens of a text that come behind a context, from the first one on; None for a list."""
    if beginnings is None:
        return None
    in_a_row = tokens_in_a_row(model, _embedded(model, context), beginnings.longest)
    return len(beginnings.held_by(in_a_row))


def _embedded(model: FrozenModel, context: Sequence[int]) -> Tensor:
    ids = torch.tensor(list(context), dtype=torch.long, device=model.device)
    with torch.no_grad():
        return model.embed(ids)


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
