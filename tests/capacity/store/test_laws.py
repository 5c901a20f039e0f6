"""The laws of a store: what holds whatever order its methods are called in."""

import math
from contextlib import suppress
from functools import partial

import pytest

from promptlimits.base.errors import UserError
from promptlimits.capacity.store import Store

_SPEC = {"pairs": 8, "seed": 3, "learning_rate": 0.1, "name": "Åland ✓ 'q' \x00"}
_PROVENANCE = {"git_commit": None, "torch": "2.13.0"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.sqlite"


def _start(store):
    return store.start_run(_SPEC, seed=3, provenance=_PROVENANCE)


def _refuses(what, call):
    try:
        call()
    except UserError:
        return
    pytest.fail(f"{what} was not refused")


def test_a_run_is_found_again_by_its_spec(path):
    """Starting a spec twice, also over a reopening and in another key order, is one run."""
    with Store.open(path) as store:
        first = _start(store)
        assert _start(store) == first, "a second start changed the run"
        assert (first.steps, first.outcome, first.result) == (0, None, None), "a new run is bare"
    with Store.open(path) as store:
        turned = dict(reversed(_SPEC.items()))
        again = store.start_run(turned, seed=3, provenance={"torch": "9"})
        assert again == first, "the reopened run differs"
        assert store.run_by_spec({**_SPEC, "pairs": 9}) is None, "another spec found a run"
        assert store.run(first.id).spec == _SPEC, "the spec did not come back as it was"


def test_a_spec_holds_its_seed(path):
    """One spec with two seeds is refused: the hash must tell runs apart."""
    with Store.open(path) as store:
        _start(store)
        _refuses("two seeds", lambda: store.start_run(_SPEC, seed=4, provenance={}))
        _refuses("a seed over 64 bits", lambda: store.start_run({}, seed=2**63, provenance={}))


def test_the_checkpoint_is_the_last_row_of_the_curve(path):
    """After any number of steps the state is that of the last row, over a reopening too."""
    with Store.open(path) as store:
        run = _start(store)
        assert store.checkpoint(run.id) is None, "a state before the first step"
        for step in (0, 1, 5):
            store.record_step(run.id, step=step, metrics={"loss": step / 4}, state=bytes([step]))
            assert store.checkpoint(run.id) == bytes([step]), "the state is not the last one"
    with Store.open(path) as store:
        assert store.checkpoint(run.id) == b"\x05", "the state was lost on reopening"
        assert store.curve(run.id) == [{"step": s, "loss": s / 4} for s in (0, 1, 5)], (
            "the curve is not what was recorded"
        )
        assert store.run(run.id).steps == 5, "steps is not the highest step"


def test_a_refused_step_leaves_no_trace(path):
    """A repeated or earlier step, an unknown run and a NaN change neither curve nor state."""
    with Store.open(path) as store:
        run = _start(store)
        _refuses("-1", lambda: store.record_step(run.id, step=-1, metrics={}, state=b"wrong"))
        store.record_step(run.id, step=4, metrics={"loss": 1.0}, state=b"4")

        def record(run_id, step, loss):
            return lambda: store.record_step(
                run_id, step=step, metrics={"loss": loss}, state=b"wrong"
            )

        _refuses("the same step", record(run.id, 4, 0.0))
        _refuses("an earlier step", record(run.id, 3, 0.0))
        _refuses("an unknown run", record(run.id + 1, 1, 0.0))
        _refuses("NaN", record(run.id, 5, math.nan))
        _refuses("infinity", record(run.id, 5, math.inf))
        assert store.curve(run.id) == [{"step": 4, "loss": 1.0}], "a refused step left a row"
        assert store.checkpoint(run.id) == b"4", "a refused step left a state"


def test_steps_before_come_with_a_step_or_not_at_all(path):
    """Rows of earlier steps are recorded in the transaction of the state, and go up as well."""
    with Store.open(path) as store:
        run = _start(store)
        store.record_step(
            run.id, step=3, metrics={"loss": 3.0}, state=b"3", before=[(1, {}), (2, {"loss": 2.0})]
        )
        rows = [{"step": 1}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": 3.0}]
        assert store.curve(run.id) == rows
        for before in ([(5, {}), (5, {})], [(3, {})], [(7, {})]):
            _refuses(
                str(before),
                lambda before=before: store.record_step(
                    run.id, step=6, metrics={}, state=b"6", before=before
                ),
            )
        assert (store.curve(run.id), store.checkpoint(run.id)) == (rows, b"3")


def test_what_is_recorded_together_is_kept_together(path):
    """An error inside leaves nothing of what came before it."""
    with Store.open(path) as store:
        run = _start(store)
        with suppress(ZeroDivisionError), store.together():
            store.record_step(run.id, step=1, metrics={}, state=b"1")
            store.put("kind", {}, {})
            raise ZeroDivisionError
        assert store.run(run.id).steps == 0, "a step was kept"
        assert store.get("kind", {}) is None, "a record was kept"
        with store.together():
            store.record_step(run.id, step=1, metrics={}, state=b"1")
            store.put("kind", {}, {})
        assert (store.run(run.id).steps, store.get("kind", {})) == (1, {})


def test_runs_do_not_mix(path):
    """Steps, states and endings of one run are never another's."""
    with Store.open(path) as store:
        runs = [store.start_run({"seed": s, "k": s % 2}, seed=s, provenance={}) for s in range(4)]
        for step in range(3):
            for run in runs:
                store.record_step(run.id, step=step, metrics={}, state=bytes([run.seed, step]))
        store.finish_run(runs[2].id, outcome="solved", result={}, artifact=b"2")
        for run in runs:
            assert store.checkpoint(run.id) == bytes([run.seed, 2]), "a state of another run"
            assert len(store.curve(run.id)) == 3, "rows of another run"
        assert [r.seed for r in store.runs()] == [0, 1, 2, 3], "runs are not in order of start"


def test_a_final_ending_is_final(path):
    """After a final ending nothing is recorded for the run, by any command."""
    with Store.open(path) as store:
        run = _start(store)
        store.record_step(run.id, step=1, metrics={}, state=b"1")
        store.finish_run(run.id, outcome="solved", result={"pairs": 8}, artifact=b"prompt")
    with Store.open(path) as store:
        ended = _start(store)
        assert (ended.outcome, ended.result) == ("solved", {"pairs": 8}), "the ending was lost"
        assert ended.finished, "a solved run is not finished"
        _refuses(
            "a second ending",
            lambda: store.finish_run(run.id, outcome="stalled", result={}, artifact=None),
        )
        _refuses(
            "a later interruption",
            lambda: store.finish_run(run.id, outcome="interrupted", result={}, artifact=None),
        )
        _refuses(
            "a step after the end",
            lambda: store.record_step(run.id, step=2, metrics={}, state=b"2"),
        )
        assert store.run(run.id) == ended, "a refused ending changed the run"
        assert store.artifact(run.id) == b"prompt", "the artifact was lost"
        assert store.checkpoint(run.id) == b"1", "the state was lost"


def test_an_interrupted_run_goes_on(path):
    """Steps and a further ending may follow "interrupted" and "out_of_budget"."""
    with Store.open(path) as store:
        run = _start(store)
        for step, outcome in enumerate(("interrupted", "out_of_budget", "interrupted")):
            store.record_step(run.id, step=step, metrics={}, state=b"%d" % step)
            store.finish_run(run.id, outcome=outcome, result={"at": step}, artifact=b"old")
            now = store.run(run.id)
            assert (now.outcome, now.result) == (outcome, {"at": step}), "not the latest ending"
            assert not now.finished, "an interrupted run counts as finished"
        store.finish_run(run.id, outcome="stalled", result={}, artifact=None)
        assert store.run(run.id).outcome == "stalled", "the final ending was not recorded"
        assert store.artifact(run.id) is None, "an artifact of an earlier ending"


def test_the_latest_record_wins(path):
    """`get` gives the last payload about a key; kinds and keys are apart."""
    with Store.open(path) as store:
        assert store.get("bracket", {"p": 1}) is None, "a record out of nothing"
        store.put("bracket", {"p": 1, "q": [1.5, None]}, {"floor": 1})
        store.put("bracket", {"p": 2}, {"floor": 2})
        store.put("baseline", {"p": 2}, {"floor": 9})
        store.put("bracket", {"q": [1.5, None], "p": 1}, {"floor": 3})
    with Store.open(path) as store:
        assert store.get("bracket", {"p": 1, "q": [1.5, None]}) == {"floor": 3}, "not the latest"
        assert store.get("baseline", {"p": 1}) is None, "a record of another kind"
        _refuses("NaN", lambda: store.put("bracket", {}, {"floor": math.nan}))
        _refuses("no kind", lambda: store.put("", {}, {}))


def test_seconds_add_up(path):
    """Time of a command is summed over reopenings and never falls."""
    for _ in range(3):
        with Store.open(path) as store:
            store.add_seconds("a", 0.5)
            store.add_seconds("b", 0.0)
    with Store.open(path) as store:
        assert store.seconds("a") == 1.5, "seconds were lost"
        assert (store.seconds("b"), store.seconds("c")) == (0.0, 0.0), "seconds out of nothing"
        for wrong in (-1.0, math.nan, math.inf):
            _refuses(f"{wrong} seconds", partial(store.add_seconds, "a", wrong))
        assert store.seconds("a") == 1.5, "refused seconds were counted"


def test_text_is_only_text(path):
    """No name, key or outcome is ever read as a statement."""
    evil = "x'); DROP TABLE runs; --"
    with Store.open(path) as store:
        run = store.start_run({evil: evil}, seed=0, provenance={evil: evil})
        store.record_step(run.id, step=0, metrics={evil: evil}, state=evil.encode())
        store.finish_run(run.id, outcome=evil, result={evil: evil}, artifact=None)
        store.put(evil, {evil: evil}, {evil: evil})
        store.add_seconds(evil, 1.0)
        assert store.run(run.id).outcome == evil, "the outcome changed"
        assert store.runs()[0].spec == {evil: evil}, "the spec changed"
        assert store.get(evil, {evil: evil}) == {evil: evil}, "the record changed"
        assert store.seconds(evil) == 1.0, "the seconds changed"


def test_one_writer_at_a_time(path):
    """A second opening for writing is refused until the first is closed."""
    path = path.parent / "new folder" / "s.sqlite"
    with Store.open(path):
        _refuses("a second writer", lambda: Store.open(path))
    store = Store.open(path)
    store.close()
    store.close()
    Store.open(path).close()
