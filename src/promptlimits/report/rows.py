"""The rows of every table and figure: one per prompt length, one per baseline."""

from __future__ import annotations

from dataclasses import dataclass

from promptlimits._typing import JsonObject
from promptlimits.report.record import Record, parse_record


@dataclass(frozen=True, kw_only=True)
class BracketRow:
    """Floor and ceiling at one prompt length.

    Attributes:
        prompt_tokens: P.
        floor_pairs: Pairs that a prompt on disk holds (found).
        floor_bits: The same in bits of the answer set: what so many random answers would take.
        bits_per_prompt_token: `floor_bits` over P.
        ceiling_pairs: Lists of more random answers than this cannot be answered in full by any
            prompt of this length, but for a share of the lists (proved). None where the theorem
            gives no ceiling: there is a single answer to give.
        ceiling_bits: The same in bits of the answer set; those of the prompt without a ceiling.
        seconds: Time spent at this length.
        stopped_because: What ended the search.
    """

    prompt_tokens: int
    floor_pairs: int
    floor_bits: float
    bits_per_prompt_token: float
    ceiling_pairs: int | None
    ceiling_bits: float
    seconds: float
    stopped_because: str


@dataclass(frozen=True, kw_only=True)
class BaselineRow:
    """Pairs of the same list that are exact without a trained prompt.

    Attributes:
        name: What was done instead, such as "in context".
        pairs: Pairs answered exactly.
        of: Pairs asked.
        shots: Pairs written in front of the question, if any.
        context_tokens: Tokens in front of the question, if any.
        note: What else a reader must know.
    """

    name: str
    pairs: int
    of: int
    shots: int | None
    context_tokens: int | None
    note: str


def rows(record: JsonObject | Record) -> tuple[BracketRow, ...]:
    """One row per prompt length, shortest first.

    Args:
        record: A bracket record, as JSON or parsed.

    Returns:
        The rows.
    """
    return tuple(
        BracketRow(
            prompt_tokens=bracket.prompt_tokens,
            floor_pairs=bracket.floor.pairs,
            floor_bits=bracket.floor.bits,
            bits_per_prompt_token=bracket.floor.bits_per_prompt_token,
            ceiling_pairs=bracket.ceiling.pairs,
            ceiling_bits=bracket.ceiling.bits,
            seconds=bracket.seconds,
            stopped_because=bracket.stopped_because,
        )
        for bracket in as_record(record).brackets
    )


def baseline_rows(record: JsonObject | Record) -> tuple[BaselineRow, ...]:
    """One row per baseline, in the order of the record.

    Args:
        record: A bracket record, as JSON or parsed.

    Returns:
        The rows.
    """
    return tuple(
        BaselineRow(
            name=baseline.name,
            pairs=baseline.pairs,
            of=baseline.of,
            shots=baseline.shots,
            context_tokens=baseline.context_tokens,
            note=baseline.note,
        )
        for baseline in as_record(record).baselines
    )


def as_record(record: JsonObject | Record) -> Record:
    """The parsed record, whichever form it came in; every check applies to JSON."""
    return record if isinstance(record, Record) else parse_record(record)
