"""A store is made whole or not at all."""

import sqlite3

import pytest

from promptlimits.capacity.store.schema import VERSION, make_tables, missing_part, version_of


@pytest.fixture
def connection(tmp_path):
    connection = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
    yield connection
    connection.close()


def test_an_empty_file_becomes_a_store(connection):
    assert version_of(connection) == 0
    make_tables(connection)
    assert version_of(connection) == VERSION
    assert missing_part(connection) == ""


def test_making_that_fails_leaves_nothing(connection):
    connection.execute("CREATE TABLE endings (x)")
    with pytest.raises(sqlite3.OperationalError, match="endings already exists"):
        make_tables(connection)
    assert not connection.in_transaction
    assert version_of(connection) is None
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("endings",)]
