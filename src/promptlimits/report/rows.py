"""The rows of every table and figure: one per kind and length of prompt, one per baseline."""

from __future__ import annotations

from dataclasses import dataclass

from promptlimits.base.files import JsonObject
from promptlimits.report.record import Record, parse_record


@dataclass(frozen=True, kw_only=True)
class BracketRow:
    """Floor and ceiling of one kind of prompt at one length.

    Attributes:
        kind: "soft" or "prefix".
        searched: Whether prompts of this length were searched for at all; the floor is 0 if not.
        prompt_tokens: P.
        stored_bits: Bits that the numbers of such a prompt take on disk.
        floor_pairs: Pairs that a prompt on disk holds (found).
        floor_tokens: Tokens of a text that it holds, from the first on (found); None for a list.
        floor_bits: The same in bits of the answer set: what so many random answers would take.
        bits_per_prompt_token: `floor_bits` over P.
        bits_per_stored_bit: `floor_bits` over `stored_bits`.
        ceiling_pairs: Lists of more random answers than this cannot be answered in full by any
            prompt of this length, but for a share of the lists (proved). None where the theorem
            gives no ceiling: there is a single answer to give.
        ceiling_bits: The same in bits of the answer set; those of the prompt without a ceiling.
        seconds: Time spent at this length.
        stopped_because: What ended the search.
    """

    kind: str
    searched: bool
    prompt_tokens: int
    stored_bits: int
    floor_pairs: int
    floor_tokens: int | None
    floor_bits: float
    bits_per_prompt_token: float
    bits_per_stored_bit: float
    ceiling_pairs: int | None
    ceiling_bits: float
    seconds: float
    stopped_because: str

    @property
    def floor_held(self) -> int:
        """What is held: tokens of a text, pairs of a list."""
        return self.floor_pairs if self.floor_tokens is None else self.floor_tokens


@dataclass(frozen=True, kw_only=True)
class BaselineRow:
    """Pairs of the same list that are exact without a trained prompt.

    Attributes:
        name: What was done instead, such as "in context".
        pairs: Pairs answered exactly; None where the list was not asked in full.
        of: Pairs of the list.
        asked: How many of them were asked.
        tokens: Tokens of a text that come out, from the first one on; None for a list.
        shots: Pairs written in front of the question, if any.
        context_tokens: Tokens in front of the question, if any.
        note: What else a reader must know.
    """

    name: str
    pairs: int | None
    of: int
    asked: int
    tokens: int | None
    shots: int | None
    context_tokens: int | None
    note: str


def rows(record: JsonObject | Record) -> tuple[BracketRow, ...]:
    """One row per kind and length of prompt, soft prompts first, shortest first."""
    parsed = as_record(record)
    return tuple(
        BracketRow(
            kind=bracket.kind,
            searched=bracket.searched,
            prompt_tokens=bracket.prompt_tokens,
            stored_bits=bracket.stored_bits,
            floor_pairs=bracket.floor.pairs,
            floor_tokens=bracket.floor.tokens,
            floor_bits=bracket.floor.bits,
            bits_per_prompt_token=bracket.floor.bits_per_prompt_token,
            bits_per_stored_bit=bracket.floor.bits / bracket.stored_bits,
            ceiling_pairs=bracket.ceiling.pairs,
            ceiling_bits=bracket.ceiling.bits,
            seconds=bracket.seconds,
            stopped_because=bracket.stopped_because,
        )
        for bracket in parsed.brackets
    )


def baseline_rows(record: JsonObject | Record) -> tuple[BaselineRow, ...]:
    """One row per baseline, in the order of the record."""
    return tuple(
        BaselineRow(
            name=baseline.name,
            pairs=baseline.pairs,
            of=baseline.of,
            asked=baseline.asked,
            tokens=baseline.tokens,
            shots=baseline.shots,
            context_tokens=baseline.context_tokens,
            note=baseline.note,
        )
        for baseline in as_record(record).baselines
    )


def as_record(record: JsonObject | Record) -> Record:
    """The parsed record, whichever form it came in; every check applies to JSON."""
    return record if isinstance(record, Record) else parse_record(record)
