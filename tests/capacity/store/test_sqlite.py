"""What the store does beside the laws: faults of files and disks, readers, cost of a step."""

import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.capacity.store import Store
from promptlimits.capacity.store.connection import lock_path
from promptlimits.capacity.store.faults import for_people
from promptlimits.capacity.store.schema import (
    APPLICATION_ID,
    VERSION,
    make_tables,
    missing_part,
    version_of,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.sqlite"


def filled(path, *, steps=3, state=b"state"):
    with Store.open(path) as store:
        run = store.start_run({"seed": 0}, seed=0, provenance={})
        for step in range(1, steps + 1):
            store.record_step(run.id, step=step, metrics={"loss": 1 / step}, state=state)
    return run.id


def everything(store):
    return store.runs(), store.curve(1), store.checkpoint(1), store.get("kind", {"seed": 0})


def not_sqlite(path):
    path.write_text("key,value\nFrance,Paris\n" * 50)


def of_another_program(path):
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()


def newer(path):
    filled(path)
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version = {VERSION + 1}")
    raw.close()


def with_damaged_pages(path):
    filled(path, steps=200, state=bytes(5000))
    content = bytearray(path.read_bytes())
    for offset in range(4096 * 3, len(content), 4096):
        content[offset : offset + 64] = b"\xff" * 64
    path.write_bytes(content)


def truncated(path):
    filled(path, steps=200, state=bytes(5000))
    os.truncate(path, path.stat().st_size // 2)


def with_a_damaged_header(path):
    filled(path)
    content = bytearray(path.read_bytes())
    content[36:40] = (77).to_bytes(4, "big")  # pages that the header calls free
    path.write_bytes(content)


def cut_to_nothing(path):
    filled(path)
    os.truncate(path, 0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (not_sqlite, "must be a file that promptlimits wrote, got a file that"),
        (of_another_program, "another program's SQLite database"),
        (newer, rf"got version {VERSION + 1}; upgrade promptlimits"),
        (with_damaged_pages, "must be an undamaged SQLite file, got a damaged one"),
        (truncated, "damaged"),
        (with_a_damaged_header, r"got a damaged one \(Main freelist"),
        (cut_to_nothing, r"nothing is in it.*restore it from a copy"),
    ],
)
def test_what_is_no_whole_store_is_refused_and_left_alone(path, make, words):
    make(path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=words):
        Store.open(path)
    assert path.read_bytes() == before


def test_a_folder_is_not_a_store(path):
    path.mkdir()
    with pytest.raises(UserError, match="got a folder"):
        Store.open(path)


@pytest.mark.parametrize(
    ("text", "table"),
    [
        (b"ALPHA", "runs"),
        (b"BETA", "runs"),
        (b"GAMMA", "steps"),
        (b"DELTA", "checkpoints"),
        (b"EPSILON", "endings"),
        (b"ZETA", "endings"),
        (b"ETTA", "endings"),
        (b"THETA", "records"),
        (b"IOTA", "records"),
        (b"KAPPA", "used_time"),
    ],
)
def test_a_byte_that_changed_inside_a_value_is_noticed_on_opening(path, text, table):
    with Store.open(path) as store:
        run = store.start_run({"seed": 0, "a": "ALPHA"}, seed=0, provenance={"b": "BETA"})
        store.record_step(run.id, step=1, metrics={"GAMMA": 0.5}, state=b"DELTA")
        store.finish_run(run.id, outcome="EPSILON", result={"c": "ZETA"}, artifact=b"ETTA")
        store.put("THETA", {"seed": 0}, {"IOTA": 1})
        store.add_seconds("KAPPA", 1.5)
    Store.open(path).close()
    changed = bytes([text[0] ^ 1]) + text[1:]
    content = path.read_bytes().replace(text, changed)
    assert content != path.read_bytes()
    path.write_bytes(content)
    for read_only in (False, True):
        with pytest.raises(UserError, match=rf"got a damaged one \(row 1 of {table} is not as"):
            Store.open(path, read_only=read_only)
    assert path.read_bytes() == content


@pytest.mark.parametrize("part", ["TABLE used_time", "INDEX records_by_key", "TRIGGER steps_go_up"])
def test_a_part_that_is_missing_is_noticed_on_opening(path, part):
    filled(path)
    raw = sqlite3.connect(path)
    raw.execute(f"DROP {part}")
    raw.commit()
    raw.close()
    with pytest.raises(UserError, match=rf"got a damaged one \(no {part.lower()[:5]}"):
        Store.open(path)


def test_a_log_without_its_store_is_not_thrown_away(path):
    log = path.with_name(path.name + "-wal")
    log.write_bytes(b"steps that were done")
    with pytest.raises(UserError, match="only its log"):
        Store.open(path)
    assert log.read_bytes() == b"steps that were done"
    assert not path.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes of POSIX")
@pytest.mark.parametrize("name", ["store.sqlite", "store.lock"])
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(path, name):
    os.mkfifo(path.with_name(name))
    with pytest.raises(UserError, match=r"a pipe or a device|no regular file"):
        Store.open(path)


@pytest.mark.parametrize("seed", range(60, 80))
def test_flipped_bytes_are_refused_or_change_nothing(path, seed):
    """Anywhere in the file: what opens reads as it was written, and the rest is one error."""
    moments = random.Random(seed)
    filled(path, steps=30, state=bytes(range(256)) * 20)
    with Store.open(path) as store:
        store.put("kind", {"seed": 0}, {"floor": 3})
        whole = everything(store)
    content = bytearray(path.read_bytes())
    for _ in range(moments.choice((1, 1, 50))):
        content[moments.randrange(len(content))] ^= 1 << moments.randrange(8)
    path.write_bytes(content)
    try:
        with Store.open(path) as store:
            found = (
                store.runs(),
                store.curve(1),
                store.checkpoint(1),
                store.get("kind", {"seed": 0}),
            )
    except (UserError, RunFailed):
        return
    assert found == whole


def test_updated_is_when_the_last_thing_was_recorded(path, monkeypatch):
    clock = iter(f"2026-01-01T00:00:0{second}" for second in range(9))
    monkeypatch.setattr("promptlimits.capacity.store.sqlite.now", lambda: next(clock))
    with Store.open(path) as store:
        run = store.start_run({"seed": 0}, seed=0, provenance={})
        assert run.created == run.updated == "2026-01-01T00:00:00"
        for step in (1, 2):
            store.record_step(run.id, step=step, metrics={}, state=b"")
        assert store.run(run.id).updated == "2026-01-01T00:00:02"
        store.finish_run(run.id, outcome="interrupted", result={}, artifact=None)
        assert store.run(run.id).updated == "2026-01-01T00:00:03"
        store.record_step(run.id, step=3, metrics={}, state=b"")
        assert store.run(run.id).updated == "2026-01-01T00:00:04"
        assert store.run(run.id).created == "2026-01-01T00:00:00"


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (sqlite3.SQLITE_IOERR_WRITE, RunFailed, "every step recorded before is kept"),
        (sqlite3.SQLITE_READONLY_DIRECTORY, UserError, "can be written"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, UserError, "another program holds"),
        (sqlite3.SQLITE_CORRUPT_INDEX, UserError, "undamaged"),
        (sqlite3.SQLITE_NOTADB, UserError, "promptlimits wrote"),
    ],
)
def test_every_fault_of_the_file_is_said_for_people(path, code, kind, words):
    error = sqlite3.OperationalError("said by SQLite")
    error.sqlite_errorcode = code
    translated = for_people(path, error)
    assert isinstance(translated, kind)
    assert words in str(translated)
    assert str(path) in str(translated)


def test_a_mistake_of_the_program_keeps_its_traceback(path):
    with Store.open(path) as store, pytest.raises(sqlite3.OperationalError):
        store._all("SELECT * FROM nowhere")


def test_a_failed_opening_gives_the_lock_back(path):
    path.write_text("not a database, and long enough to be looked at" * 100)
    for _ in range(2):
        with pytest.raises(UserError, match="promptlimits wrote"):
            Store.open(path)
    path.unlink()
    Store.open(path).close()


def test_a_full_disk_loses_nothing_and_the_run_goes_on(path):
    with Store.open(path) as store:
        run = store.start_run({"seed": 0}, seed=0, provenance={})
        store.record_step(run.id, step=1, metrics={"loss": 1.0}, state=b"one")
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(RunFailed, match=r"disk is full.*nothing that was recorded is lost"):
            store.record_step(run.id, step=2, metrics={"loss": 0.5}, state=bytes(100_000))
        assert store.checkpoint(run.id) == b"one"
        assert store.curve(run.id) == [{"step": 1, "loss": 1.0}]
        store._connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
        store.record_step(run.id, step=2, metrics={"loss": 0.5}, state=b"two")
        assert store.checkpoint(run.id) == b"two"


@pytest.fixture
def nobody():
    """Root may write anywhere, so as root the test runs as nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.fixture
def locked_folder():
    """A folder outside pytest's own, which only its owner may enter."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        Path(folder).chmod(0o755)


def test_a_folder_that_cannot_be_written_is_named(locked_folder, request):
    Path(locked_folder).chmod(0o555)
    request.getfixturevalue("nobody")
    with pytest.raises(UserError, match=r"must be a file, in a folder, that can be written"):
        Store.open(locked_folder / "store.sqlite")
    with pytest.raises(UserError, match=r"must be a file, in a folder, that can be written"):
        Store.open(locked_folder / "deeper" / "store.sqlite")


def test_a_store_in_a_folder_nobody_can_write_can_still_be_read(locked_folder, request):
    run = filled(locked_folder / "store.sqlite")
    Path(locked_folder).chmod(0o555)
    request.getfixturevalue("nobody")
    with Store.open(locked_folder / "store.sqlite", read_only=True) as store:
        assert store.run(run).steps == 3


def test_a_file_that_cannot_be_written_is_named(locked_folder, request):
    path = locked_folder / "store.sqlite"
    filled(path)
    Path(path).chmod(0o444)
    Path(locked_folder).chmod(0o777)
    Path(lock_path(path)).chmod(0o666)
    request.getfixturevalue("nobody")
    with pytest.raises(UserError, match=r"must be a file, in a folder, that can be written"):
        Store.open(path)


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="must be a file, in a folder, that can be written"):
        Store.open(tmp_path / "out" / "store.sqlite")


def test_the_holder_of_the_lock_is_named(path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from promptlimits.capacity.store import Store\n"
        "store = Store.open(Path(sys.argv[1])); print('open', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"open\n"
        for _ in range(2):
            with pytest.raises(UserError, match=rf"in use by process {child.pid}; wait until"):
                Store.open(path)
    finally:
        child.kill()
        child.communicate()
    Store.open(path).close()  # the lock died with its process


def test_a_second_store_of_this_process_is_refused(path):
    with Store.open(path), pytest.raises(UserError, match="this process has open already"):
        Store.open(path)


def test_a_reader_sees_what_a_writer_has_committed(path):
    with Store.open(path) as writer:
        run = writer.start_run({"seed": 0}, seed=0, provenance={})
        with Store.open(path, read_only=True) as reader:
            assert reader.curve(run.id) == []
            writer.record_step(run.id, step=1, metrics={}, state=b"1")
            assert reader.checkpoint(run.id) == b"1"
            with pytest.raises(UserError, match="readonly"):
                reader.record_step(run.id, step=2, metrics={}, state=b"2")


@pytest.mark.parametrize("content", [None, b""])
def test_reading_makes_no_file(path, content):
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"must be a file|nothing is in it"):
        Store.open(path, read_only=True)
    assert path.exists() == (content is not None)
    assert not lock_path(path).exists()


def test_another_thread_is_refused(path):
    with Store.open(path) as store:
        raised = []

        def use():
            try:
                store.runs()
            except sqlite3.ProgrammingError as error:
                raised.append(error)

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert len(raised) == 1


@pytest.mark.parametrize("table", ["runs", "steps", "endings", "records", "used_time"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET created = ''"])
def test_the_database_itself_refuses_to_forget(path, table, statement):
    with Store.open(path) as store:
        run = store.start_run({"seed": 0}, seed=0, provenance={})
        store.record_step(run.id, step=1, metrics={}, state=b"1")
        store.finish_run(run.id, outcome="interrupted", result={}, artifact=None)
        store.put("kind", {}, {})
        store.add_seconds("c", 1.0)
    raw = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        raw.execute(statement.format(table))
    raw.close()


def test_the_database_itself_refuses_a_state_without_its_row(path):
    run = filled(path)
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        raw.execute("UPDATE checkpoints SET step = 9 WHERE run_id = ?", (run,))
    raw.close()


def test_settings_that_survive_a_kill(path):
    with Store.open(path) as store:
        ask = store._connection.execute
        assert ask("PRAGMA journal_mode").fetchone() == ("wal",)
        assert ask("PRAGMA synchronous").fetchone() == (1,)
        assert ask("PRAGMA foreign_keys").fetchone() == (1,)
        assert ask("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        strict = ask("SELECT name, strict FROM pragma_table_list WHERE type = 'table'").fetchall()
        assert {name for name, is_strict in strict if is_strict} >= {"runs", "steps", "endings"}


class Interrupting:
    """A connection that raises Ctrl-C at its n-th statement, before or after it runs."""

    def __init__(self, connection, at, after):
        self.connection, self.at, self.after, self.count = connection, at, after, 0

    def __getattr__(self, name):
        return getattr(self.connection, name)

    def execute(self, *arguments):
        self.count += 1
        if self.count == self.at and not self.after:
            raise KeyboardInterrupt
        done = self.connection.execute(*arguments)
        if self.count == self.at:
            raise KeyboardInterrupt
        return done


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", [1, 2, 3, 4], ids=["begin", "row", "state", "commit"])
def test_an_interrupt_inside_a_write_leaves_no_half(path, at, after):
    """Ctrl-C anywhere in a step: the row and the state are both kept or both not."""
    with Store.open(path) as store:
        run = store.start_run({"seed": 0}, seed=0, provenance={})
        store.record_step(run.id, step=1, metrics={}, state=b"1")
        real = store._connection
        store._connection = Interrupting(real, at, after)
        with pytest.raises(KeyboardInterrupt):
            store.record_step(run.id, step=2, metrics={}, state=b"2")
        store._connection = real
        kept = 2 if (at, after) == (4, True) else 1
        assert [row["step"] for row in store.curve(run.id)] == list(range(1, kept + 1))
        assert store.checkpoint(run.id) == b"%d" % kept
        store.record_step(run.id, step=3, metrics={}, state=b"3")
        assert store.checkpoint(run.id) == b"3"


@pytest.mark.slow  # a thousand writes, to measure their mean
def test_a_step_is_cheap(path):
    state = os.urandom(30_000)
    with Store.open(path) as store:
        run = store.start_run({"seed": 0}, seed=0, provenance={})
        times = []
        for step in range(1000):
            start = time.perf_counter()
            store.record_step(run.id, step=step, metrics={"loss": 0.5, "exact": 3}, state=state)
            times.append(time.perf_counter() - start)
    assert sorted(times)[500] < 0.001, "the median step should cost under a millisecond"
    assert path.stat().st_size < 1_000_000, "the state should be replaced, not added"


@pytest.fixture
def connection(path):
    connection = sqlite3.connect(path, isolation_level=None)
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
