"""What the store hands out: one run as a frozen record, and how rows become records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from promptlimits.base.files import JsonObject
from promptlimits.capacity.store.schema import RESUMABLE


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run, as it stands in the store."""

    id: int  # number of the run in this store
    spec: JsonObject  # what defines the run; with the seed inside, it names the run everywhere
    spec_hash: str  # SHA-256 of the spec's canonical JSON
    seed: int  # seed of the run
    provenance: JsonObject  # versions and commit that started it
    outcome: str | None  # how its latest ending called it; None while it never ended
    result: JsonObject | None  # what its latest ending left; None while it never ended
    steps: int  # the highest step recorded, 0 before the first
    created: str  # when it was started, ISO 8601 in UTC
    updated: str  # when anything was last recorded for it

    @property
    def finished(self) -> bool:
        """Whether nothing more can be recorded for it."""
        return self.outcome is not None and self.outcome not in RESUMABLE


SELECT_RUNS = """
    SELECT runs.id, runs.spec, runs.spec_hash, runs.seed, runs.provenance,
        endings.outcome, endings.result,
        COALESCE((SELECT MAX(step) FROM steps WHERE run_id = runs.id), 0),
        runs.created,
        MAX(runs.created, COALESCE(endings.created, ''), COALESCE(
            (SELECT created FROM steps WHERE run_id = runs.id ORDER BY step DESC LIMIT 1), ''))
    FROM runs LEFT JOIN endings
        ON endings.id = (SELECT MAX(id) FROM endings WHERE run_id = runs.id)
"""
"""Columns in the order of `run_record`; a WHERE clause on `runs` may follow."""


def run_record(row: Sequence[Any]) -> RunRecord:
    """One row of `SELECT_RUNS` as a record."""
    identity, spec, digest, seed, provenance, outcome, result, steps, created, updated = row
    return RunRecord(
        id=identity,
        spec=json.loads(spec),
        spec_hash=digest,
        seed=seed,
        provenance=json.loads(provenance),
        outcome=outcome,
        result=None if result is None else json.loads(result),
        steps=steps,
        created=created,
        updated=updated,
    )


def now() -> str:
    """The time, ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
