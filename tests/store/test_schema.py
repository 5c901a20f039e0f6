"""Old stores open; a migration is all or nothing."""

import sqlite3
from pathlib import Path

import pytest

from promptlimits.store import Store
from promptlimits.store.schema import MIGRATIONS, VERSION, migrate, version_of

DATA = Path(__file__).parent / "data"


def frozen_store(path, name):
    """A store as an earlier release wrote it, from its text dump (which drops the header)."""
    raw = sqlite3.connect(path)
    raw.executescript((DATA / name).read_text(encoding="utf-8"))
    raw.close()
    return path


def test_a_store_of_version_1_still_opens(tmp_path):
    path = frozen_store(tmp_path / "store.sqlite", "store_v1.sql")
    with Store.open(path) as store:
        ended, going = store.runs()
        assert (ended.outcome, ended.result, ended.steps) == ("solved", {"pairs": 2}, 2)
        assert ended.spec == {"name": "Åland", "seed": 1}
        assert store.run_by_spec({"name": "Åland", "seed": 1}) == ended, "the hash is the same"
        assert store.curve(ended.id) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.1}]
        assert store.artifact(ended.id) == b"\x00prompt"
        assert (going.outcome, store.checkpoint(going.id)) == ("interrupted", b"state\xff")
        assert store.get("bracket", {"p": 1}) == {"floor": 2}
        assert store.seconds("command") == 1.75
        store.record_step(going.id, step=8, metrics={}, state=b"on")


def test_every_version_has_its_migration():
    assert sorted(MIGRATIONS) == list(range(VERSION))


@pytest.fixture
def connection(tmp_path):
    path = tmp_path / "store.sqlite"
    Store.open(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    yield connection
    connection.close()


def test_a_migration_runs_once_and_sets_the_version(connection):
    plan = {**MIGRATIONS, VERSION: ("ALTER TABLE runs ADD COLUMN extra TEXT",)}
    for _ in range(2):
        migrate(connection, migrations=plan, target=VERSION + 1)
        assert version_of(connection) == VERSION + 1
    assert "extra" in {row[1] for row in connection.execute("PRAGMA table_info(runs)")}


def test_a_migration_that_fails_leaves_the_old_version(connection):
    plan = {VERSION: ("ALTER TABLE runs ADD COLUMN extra TEXT", "NOT A STATEMENT")}
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, migrations=plan, target=VERSION + 1)
    assert version_of(connection) == VERSION
    assert not connection.in_transaction
    assert "extra" not in {row[1] for row in connection.execute("PRAGMA table_info(runs)")}
