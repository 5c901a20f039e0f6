"""How many pairs an adapter from elsewhere makes a model answer, and a witness of it.

A pair is exact if stock tools, decoding greedily and running free, write one of its accepted
answers, token for token, and then an end marker of the model. Those that are exact without the
adapter, too, are counted beside it: the adapter gets no credit for them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from promptlimits.base.errors import UserError
from promptlimits.base.files import JsonObject
from promptlimits.base.strict import Strict
from promptlimits.capacity.adapter.decoding import Decoded, Request
from promptlimits.capacity.adapter.folder import ForeignAdapter
from promptlimits.capacity.task.encoded import EncodedTask, require_fits
from promptlimits.capacity.witness.answer_check import NO_END, WRONG_ANSWER
from promptlimits.capacity.witness.format import save_witness
from promptlimits.capacity.witness.fresh_process import OnProgress, Verifier, confirm, run_fresh
from promptlimits.capacity.witness.verification import Verification
from promptlimits.nets.protocol import EncodedPair, ModelCard

SAME_TEXT: Final = "the same text in other tokens"
OTHER_JOINER: Final = "the value behind another joiner"


class ScoredAnswer(Strict):
    """What the model answers to one key, with the adapter and without."""

    key: str
    value: str  # the value it should answer
    decoded: str  # text of what it answers behind the adapter
    exact: bool  # whether that is an accepted answer, end marker included
    unprompted: bool  # whether what it answers without the adapter is one
    decoded_unprompted: str  # text of that
    fault: str  # why it is not exact; empty where it is
    generated_ids: tuple[int, ...]  # token ids of the answer behind the adapter


@dataclass(frozen=True, kw_only=True)
class AdapterScore:
    """How an adapter does on a list of pairs."""

    answers: tuple[ScoredAnswer, ...]  # one for each pair, in the order of the list
    tools: str  # tools and decoding, in one line
    seconds: float  # how long decoding took
    versions: JsonObject  # provenance of the process that decoded

    @property
    def exact(self) -> int:
        """Pairs answered exactly."""
        return sum(answer.exact for answer in self.answers)

    @property
    def credited(self) -> int:
        """Of those, the pairs that are not answered exactly without the adapter."""
        return sum(answer.exact and not answer.unprompted for answer in self.answers)

    @property
    def unprompted(self) -> int:
        """Pairs answered exactly without the adapter."""
        return sum(answer.unprompted for answer in self.answers)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the count must know."""
        on, alike, joined = (
            sum(answer.fault == fault for answer in self.answers)
            for fault in (NO_END, SAME_TEXT, OTHER_JOINER)
        )
        notes = []
        if on:
            notes.append(f"answers that begin as they should, but go on where they end: {on}")
        if alike:
            notes.append(f"answers that read as they should, but in other tokens: {alike}")
        if joined:
            notes.append(
                "answers that are right but for what stands between key and value, which --joiner "
                f"says: {joined}"
            )
        return tuple(notes)

    def to_json(self) -> JsonObject:
        """The counts and the answers, as a record shows them."""
        return {
            "exact": self.exact,
            "of": len(self.answers),
            "credited": self.credited,
            "unprompted": self.unprompted,
            "tools": self.tools,
            "answers": [answer.to_json() for answer in self.answers],
            "seconds": self.seconds,
            "versions": self.versions,
        }


def score_adapter(
    adapter: ForeignAdapter,
    task: EncodedTask,
    card: ModelCard,
    *,
    device: str = "cpu",
    allow_hub: bool = True,
    on_progress: OnProgress | None = None,
) -> AdapterScore:
    """Decode a list of pairs behind an adapter and without it, in a fresh process."""
    prompt_tokens = adapter.virtual_tokens
    require_fits(task, context_length=card.context_length, prompt_tokens=prompt_tokens)
    with tempfile.TemporaryDirectory(prefix="promptlimits-") as scratch:
        folder = Path(scratch) / "adapter"
        folder.mkdir()
        adapter.write(folder)
        request = Request(
            adapter=str(folder),
            model=card.path,
            model_hash=card.model_hash,
            compute_dtype=card.compute_dtype,
            device=device,
            allow_hub=allow_hub,
            trained_for=adapter.trained_for,
            keys=tuple(pair.key_ids for pair in task.pairs),
            most_tokens=max(pair.longest_answer for pair in task.pairs),
        )
        path = Path(scratch) / "request.json"
        path.write_text(request.model_dump_json(), encoding="utf-8")
        decoded = Decoded.from_json(
            run_fresh(
                "promptlimits.capacity.adapter.decoding",
                [str(path)],
                result="decoded",
                doing="decoding behind the adapter",
                late="ask for fewer pairs with --limit",
                on_progress=on_progress,
            )["decoded"]
        )
    return AdapterScore(
        answers=tuple(_judged(pair, decoded, index) for index, pair in enumerate(task.pairs)),
        tools=decoded.tools,
        seconds=decoded.seconds,
        versions=decoded.versions,
    )


def save_scored_witness(
    folder: Path,
    adapter: ForeignAdapter,
    score: AdapterScore,
    task: EncodedTask,
    card: ModelCard,
    *,
    device: str = "cpu",
    extra: JsonObject,
    on_progress: OnProgress | None = None,
) -> Verification:
    """Save what a prompt answers as a witness, and have it confirmed in a fresh process."""
    if adapter.prompt is None:
        raise UserError(
            "a witness",
            "be of a soft prompt or a prefix",
            got=adapter.kind.value,
            remedy="keep the score: it says what was decoded",
        )
    save_witness(
        folder,
        prompt=adapter.prompt,
        card=card,
        task_name=task.name,
        task_hash=task.hash,
        pairs=[
            _as_answered(pair, answer)
            for pair, answer in zip(task.pairs, score.answers, strict=True)
        ],
        prefix_shape=adapter.prefix_shape,
        keys_as=task.keys_as,
        extra={"adapter": adapter.to_json(), **extra},
    )
    with closing(Verifier(model_path=card.path, device=device)) as verifier:
        return confirm(folder, verifier, on_progress=on_progress)


def _judged(pair: EncodedPair, decoded: Decoded, index: int) -> ScoredAnswer:
    ids, text = decoded.answers[index], decoded.texts[index]
    exact = _is_accepted(pair, ids, decoded.stops)
    return ScoredAnswer(
        key=pair.key,
        value=pair.value,
        decoded=text.removeprefix(pair.joiner),
        exact=exact,
        unprompted=_is_accepted(pair, decoded.bare[index], decoded.stops),
        decoded_unprompted=decoded.bare_texts[index].removeprefix(pair.joiner),
        fault="" if exact else _fault(pair, ids, text),
        generated_ids=ids,
    )


def _is_accepted(pair: EncodedPair, ids: Sequence[int], stops: Sequence[int]) -> bool:
    """Whether these tokens are an answer that counts, and then any end marker of the model."""
    said = tuple(ids[:-1])
    return bool(ids) and ids[-1] in stops and any(f.value_ids[:-1] == said for f in pair.answers)


def _fault(pair: EncodedPair, ids: Sequence[int], text: str) -> str:
    for form in pair.answers:
        if tuple(ids[: len(form.value_ids) - 1]) == form.value_ids[:-1]:
            return NO_END
    values = {form.value for form in pair.answers}
    if text in {pair.joiner + value for value in values}:
        return SAME_TEXT
    return OTHER_JOINER if text.strip() in {value.strip() for value in values} else WRONG_ANSWER


def _as_answered(pair: EncodedPair, answer: ScoredAnswer) -> EncodedPair:
    """The pair with the end marker that came: a model may have several."""
    ids = answer.generated_ids

    def ended(value_ids: tuple[int, ...]) -> tuple[int, ...]:
        return ids if answer.exact and value_ids[:-1] == ids[:-1] else value_ids

    also = tuple((text, ended(value_ids)) for text, value_ids in pair.also)
    return replace(pair, value_ids=ended(pair.value_ids), also=also)
