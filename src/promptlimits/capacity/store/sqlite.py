"""The store: every run, step, record and second used, in one SQLite file.

What a kill leaves. Each write is one transaction of a write-ahead log. When the process is
killed (kill -9 included), every transaction that returned is kept, because the operating
system holds it, and the one in progress is dropped whole. When the power fails, SQLite with
`synchronous=NORMAL` may drop the last transactions, newest first, and never damages the file:
a run then goes on a few steps earlier, from a curve and a state that still agree, and repeats
the same steps. That is why a write costs no wait for the disk.

Threads. A `Store` is one writer: use it in the thread that opened it, SQLite refuses it in
any other, and never carry it over a fork. Other processes may read the file at any time with
`Store.open(path, read_only=True)`.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import BaseFileLock

from promptlimits.base.errors import UserError
from promptlimits.base.files import JsonObject, JsonValue
from promptlimits.capacity.store.connection import make_folder, open_database, take_writer_lock
from promptlimits.capacity.store.faults import for_people
from promptlimits.capacity.store.provenance import canonical_json, spec_hash
from promptlimits.capacity.store.records import SELECT_RUNS, RunRecord, now, run_record
from promptlimits.capacity.store.schema import RESUMABLE, insertion

_RUN_OF_SPEC = SELECT_RUNS + "WHERE runs.spec_hash = ?"
_INSERT_RUN = insertion("runs")
_INSERT_STEP = insertion("steps")
_SET_CHECKPOINT = f"""
    {insertion("checkpoints")} ON CONFLICT (run_id) DO UPDATE
    SET step = excluded.step, state = excluded.state, checksum = excluded.checksum
"""
_INSERT_ENDING = insertion("endings")
_INSERT_RECORD = insertion("records")
_INSERT_SECONDS = insertion("used_time")


class Store:
    """One store, open. Made by `Store.open`; a context manager."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, lock: BaseFileLock | None
    ) -> None:
        self._path = path
        self._connection = connection
        self._lock = lock

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Self:
        """Open a store, or make it where there is none.

        Args:
            path: The file. Its folder is made if need be.
            read_only: Take no lock and change nothing; another process may be writing.

        Returns:
            The open store.

        Raises:
            UserError: The file is not a store, is damaged or newer than this program, is in
                use, or cannot be written.
        """
        if not read_only:
            make_folder(path)
        lock = None if read_only else take_writer_lock(path)
        try:
            return cls(path, open_database(path, read_only=read_only), lock)
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    def close(self) -> None:
        """Close the file and give the lock back; a second call does nothing."""
        try:
            self._connection.close()
        finally:
            if self._lock is not None:
                self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- runs ---------------------------------------------------------------------------

    def start_run(
        self, spec: JsonObject, *, seed: int, provenance: Mapping[str, JsonValue]
    ) -> RunRecord:
        """The run of a spec: a new one, or the one the store has already.

        Args:
            spec: What defines the run. It must hold the seed in some field, as it alone
                tells runs apart.
            seed: Seed of the run.
            provenance: Versions and commit; those of the first start are kept.

        Returns:
            The run, with the outcome and steps of earlier commands.

        Raises:
            UserError: The spec's run exists with another seed, or a value is not JSON.
        """
        known = self.run_by_spec(spec)
        if known is None:
            text = canonical_json(spec, name="spec")
            facts = canonical_json(dict(provenance), name="provenance")
            self._write((_INSERT_RUN, (spec_hash(spec), text, _seed(seed), facts, now())))
            return run_record(self._one(_RUN_OF_SPEC, spec_hash(spec)))
        if known.seed != seed:
            raise UserError(
                "seed",
                f"be {known.seed}, as the stored run {known.id} of the same spec has it",
                got=seed,
                remedy="put the seed into the spec, so that each seed is a run of its own",
            )
        return known

    def record_step(
        self,
        run_id: int,
        *,
        step: int,
        metrics: JsonObject,
        state: bytes,
        before: Sequence[tuple[int, JsonObject]] = (),
    ) -> None:
        """Add a row to the curve and replace the state to resume from, in one transaction.

        Args:
            run_id: The run.
            step: Number of the step, above every step recorded for the run.
            metrics: Finite numbers and text to keep for the curve.
            state: Whatever the run needs to go on after this step.
            before: Steps since the last recorded one, with their metrics, that nobody resumes at.

        Raises:
            UserError: The run does not exist or has ended, the step does not go up, or a
                metric is not a finite number.
        """
        created = now()
        rows = [
            (_INSERT_STEP, (run_id, number, canonical_json(told, name="metrics"), created))
            for number, told in (*before, (step, metrics))
        ]
        try:
            self._write(*rows, (_SET_CHECKPOINT, (run_id, step, state)))
        except sqlite3.IntegrityError as error:
            run = self._not_ended(run_id)
            raise UserError(
                "step",
                f"be 0 or more and above every step of run {run_id} (up to {run.steps} so far)",
                got=step,
                remedy="go on from checkpoint(run_id)",
            ) from error

    def finish_run(
        self, run_id: int, *, outcome: str, result: JsonObject, artifact: bytes | None
    ) -> None:
        """Record how a run ended. Only "interrupted" and "out_of_budget" can be followed.

        Args:
            run_id: The run.
            outcome: How it ended.
            result: What to report about it.
            artifact: What it made, such as the prompt.

        Raises:
            UserError: The run does not exist or has ended for good, or the result is not
                JSON.
        """
        self._not_ended(run_id)
        text = canonical_json(result, name="result")
        final = int(outcome not in RESUMABLE)
        self._write((_INSERT_ENDING, (run_id, outcome, final, text, artifact, now())))

    def run(self, run_id: int) -> RunRecord:
        """The run with a number.

        Raises:
            UserError: There is none.
        """
        row = self._one(SELECT_RUNS + "WHERE runs.id = ?", run_id)
        if row is None:
            raise UserError(
                "run id", "be a run of this store", got=run_id, remedy="list them with runs()"
            )
        return run_record(row)

    def run_by_spec(self, spec: JsonObject) -> RunRecord | None:
        """The run of a spec, or None."""
        row = self._one(_RUN_OF_SPEC, spec_hash(spec))
        return None if row is None else run_record(row)

    def runs(self) -> list[RunRecord]:
        """Every run, in the order they were started."""
        return [run_record(row) for row in self._all(SELECT_RUNS + "ORDER BY runs.id")]

    def checkpoint(self, run_id: int) -> bytes | None:
        """The state of the last recorded step, or None before the first."""
        row = self._one("SELECT state FROM checkpoints WHERE run_id = ?", run_id)
        return None if row is None else bytes(row[0])

    def curve(self, run_id: int) -> list[JsonObject]:
        """The recorded metrics of a run, one object per step, each with its `step`."""
        rows = self._all("SELECT step, metrics FROM steps WHERE run_id = ? ORDER BY step", run_id)
        return [{"step": step, **json.loads(metrics)} for step, metrics in rows]

    def artifact(self, run_id: int) -> bytes | None:
        """What the latest ending of a run left, or None."""
        query = "SELECT artifact FROM endings WHERE run_id = ? ORDER BY id DESC LIMIT 1"
        row = self._one(query, run_id)
        return None if row is None or row[0] is None else bytes(row[0])

    # --- records and time ---------------------------------------------------------------

    def put(self, kind: str, key: JsonObject, payload: JsonObject) -> None:
        """Add a record, such as a baseline or a bracket; earlier ones are kept.

        Args:
            kind: What it is, such as "bracket".
            key: What it is about.
            payload: What it says.

        Raises:
            UserError: The kind is empty, or a value is not JSON.
        """
        if not kind:
            raise UserError("kind", "be a word", got=kind, remedy='name it, such as "bracket"')
        text = canonical_json(key, name="key")
        said = canonical_json(payload, name="payload")
        self._write((_INSERT_RECORD, (kind, spec_hash(key), text, said, now())))

    def get(self, kind: str, key: JsonObject) -> JsonObject | None:
        """The latest record of a kind about a key, or None."""
        row = self._one(
            "SELECT payload FROM records WHERE kind = ? AND key_hash = ? ORDER BY id DESC LIMIT 1",
            kind,
            spec_hash(key),
        )
        return None if row is None else dict(json.loads(row[0]))

    def add_seconds(self, command_hash: str, seconds: float) -> None:
        """Count time that a command has used.

        Args:
            command_hash: The command, such as `spec_hash` of its settings.
            seconds: Time to add.

        Raises:
            UserError: The time is negative or not finite.
        """
        if not (math.isfinite(seconds) and seconds >= 0):
            raise UserError(
                "seconds", "be 0 or more", got=seconds, remedy="measure with a monotonic clock"
            )
        # Plus zero: SQLite keeps -0.0 as 0.0, which has another checksum.
        self._write((_INSERT_SECONDS, (command_hash, float(seconds) + 0.0, now())))

    def seconds(self, command_hash: str) -> float:
        """Time that a command has used so far, over all its resumes."""
        query = "SELECT COALESCE(SUM(seconds), 0.0) FROM used_time WHERE command_hash = ?"
        (total,) = self._all(query, command_hash)[0]
        return float(total)

    # --- the only three ways to the file ------------------------------------------------

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make all that is recorded inside one transaction; an error or an interrupt undoes it."""
        with self._translated():
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
            finally:
                # Also reached by Ctrl-C between any two lines; a full disk may have rolled
                # the transaction back already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def _write(self, *statements: tuple[str, tuple[Any, ...]]) -> None:
        """Run statements as one transaction, or as a part of the one that is open."""
        with nullcontext() if self._connection.in_transaction else self.together():
            for statement, values in statements:
                self._connection.execute(statement, values)

    def _all(self, query: str, *values: str | int) -> list[Any]:
        with self._translated():
            return self._connection.execute(query, values).fetchall()

    def _one(self, query: str, *values: str | int) -> Any:
        rows = self._all(query, *values)
        return rows[0] if rows else None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Say for people what SQLite reports about the file."""
        try:
            yield
        except sqlite3.Error as error:
            translated = for_people(self._path, error)
            if translated is None:
                raise
            raise translated from error

    def _not_ended(self, run_id: int) -> RunRecord:
        run = self.run(run_id)
        if run.finished:
            raise UserError(
                f"run {run_id}",
                "be one that has not ended",
                got=f"one that ended as {run.outcome}",
                remedy="change the spec to start a run of its own",
            )
        return run


def _seed(seed: object) -> int:
    """The seed, if a signed 64-bit column can hold it."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
        raise UserError(
            "seed", "be a whole number of 64 bits", got=seed, remedy="choose a smaller one"
        )
    return seed
