"""Steps on their way to the store: when they are written, and what an interrupt leaves."""

from types import SimpleNamespace

import pytest

from promptlimits.base.errors import RunFailed
from promptlimits.capacity.search import step_log
from promptlimits.capacity.search.step_log import WRITE_SECONDS, StepLog
from promptlimits.capacity.store.sqlite import Store


class State:
    """A state that notes when it is asked for."""

    asked = 0

    def __init__(self, name):
        self.name = name

    def __call__(self):
        State.asked += 1
        return SimpleNamespace(to_bytes=lambda: self.name)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store.sqlite") as found:
        for seed in range(2):
            found.start_run({"seed": seed}, seed=seed, provenance={})
        yield found


@pytest.fixture
def clock(monkeypatch):
    found = SimpleNamespace(now=0.0)
    monkeypatch.setattr(step_log, "time", SimpleNamespace(monotonic=lambda: found.now))
    monkeypatch.setattr(State, "asked", 0)
    return found


def stored(store):
    return [(store.run(run).steps, store.checkpoint(run)) for run in (1, 2)]


def add(log, run, step):
    log.add(run, step=step, metrics={"loss": step / 2}, state=State(b"%d of %d" % (step, run)))


def test_all_runs_are_written_together_every_few_seconds_and_states_copied_only_then(store, clock):
    with StepLog(store) as log:
        for step in (1, 2, 3):
            add(log, 1, step)
            add(log, 2, step)
            assert (stored(store), State.asked) == ([(0, None)] * 2, 0)
        clock.now = WRITE_SECONDS
        add(log, 1, 4)
        assert stored(store) == [(4, b"4 of 1"), (3, b"3 of 2")]
        assert State.asked == 2
        add(log, 2, 4)
        assert stored(store)[1] == (3, b"3 of 2")
    # What is left at the end.
    assert stored(store) == [(4, b"4 of 1"), (4, b"4 of 2")]
    assert store.curve(1) == [{"step": step, "loss": step / 2} for step in (1, 2, 3, 4)]


@pytest.mark.usefixtures("clock")
def test_an_interrupt_anywhere_leaves_curve_and_state_that_agree(store, monkeypatch):
    log = StepLog(store)
    add(log, 1, 1)
    # Between the note of a step and that of its state.
    log._steps[1].append((2, {}))
    log.write()
    assert stored(store)[0] == (1, b"1 of 1")
    add(log, 1, 2)
    together = store.together

    class Interrupted:
        """Ctrl-C behind the transaction, before anyone has noted that it was made."""

        def __enter__(self):
            self.inside = together()
            self.inside.__enter__()

        def __exit__(self, *error):
            self.inside.__exit__(*error)
            raise KeyboardInterrupt

    with monkeypatch.context() as pressing:
        pressing.setattr(store, "together", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            log.write()
    log.write()
    assert stored(store)[0] == (2, b"2 of 1")
    assert [row["step"] for row in store.curve(1)] == [1, 2]


@pytest.mark.usefixtures("clock")
def test_what_could_not_be_written_is_kept_for_the_next_time(store, monkeypatch):
    log = StepLog(store)
    add(log, 1, 1)
    add(log, 2, 1)
    record = store.record_step

    def full(run_id, **told):
        if run_id == 2:
            raise RunFailed("the disk is full", remedy="free some space")
        record(run_id, **told)

    with monkeypatch.context() as small:
        small.setattr(store, "record_step", full)
        with pytest.raises(RunFailed):
            log.write()
    assert stored(store) == [(0, None)] * 2, "one run was written without the other"
    log.write()
    assert stored(store) == [(1, b"1 of 1"), (1, b"1 of 2")]
