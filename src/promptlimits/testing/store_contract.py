"""The laws of a store, as functions to run over anything that says it is one.

Each law takes a function that opens the store at a path, making it where there is none, and
a folder of its own. It raises `AssertionError` where the store breaks the law:

    @pytest.mark.parametrize("law", STORE_LAWS, ids=lambda law: law.__name__)
    def test_store(law, tmp_path):
        law(Store.open, tmp_path)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

from promptlimits.base.errors import UserError
from promptlimits.base.files import JsonObject
from promptlimits.capacity.store import RunRecord, Store

OpenStore: TypeAlias = Callable[[Path], Store]
Law: TypeAlias = Callable[[OpenStore, Path], None]

_SPEC: JsonObject = {"pairs": 8, "seed": 3, "learning_rate": 0.1, "name": "Åland ✓ 'q' \x00"}
_PROVENANCE: JsonObject = {"git_commit": None, "torch": "2.13.0"}


def a_run_is_found_again_by_its_spec(open_store: OpenStore, folder: Path) -> None:
    """Starting a spec twice, also over a reopening and in another key order, is one run."""
    with open_store(folder / "s.sqlite") as store:
        first = _start(store)
        _hold(_start(store) == first, "a second start changed the run")
        _hold((first.steps, first.outcome, first.result) == (0, None, None), "a new run is bare")
    with open_store(folder / "s.sqlite") as store:
        turned = dict(reversed(_SPEC.items()))
        again = store.start_run(turned, seed=3, provenance={"torch": "9"})
        _hold(again == first, "the reopened run differs")
        _hold(store.run_by_spec({**_SPEC, "pairs": 9}) is None, "another spec found a run")
        _hold(store.run(first.id).spec == _SPEC, "the spec did not come back as it was")


def a_spec_holds_its_seed(open_store: OpenStore, folder: Path) -> None:
    """One spec with two seeds is refused: the hash must tell runs apart."""
    with open_store(folder / "s.sqlite") as store:
        _start(store)
        _refuses("two seeds", lambda: store.start_run(_SPEC, seed=4, provenance={}))
        _refuses("a seed over 64 bits", lambda: store.start_run({}, seed=2**63, provenance={}))


def the_checkpoint_is_the_last_row_of_the_curve(open_store: OpenStore, folder: Path) -> None:
    """After any number of steps the state is that of the last row, over a reopening too."""
    with open_store(folder / "s.sqlite") as store:
        run = _start(store)
        _hold(store.checkpoint(run.id) is None, "a state before the first step")
        for step in (0, 1, 5):
            store.record_step(run.id, step=step, metrics={"loss": step / 4}, state=bytes([step]))
            _hold(store.checkpoint(run.id) == bytes([step]), "the state is not the last one")
    with open_store(folder / "s.sqlite") as store:
        _hold(store.checkpoint(run.id) == b"\x05", "the state was lost on reopening")
        _hold(
            store.curve(run.id) == [{"step": s, "loss": s / 4} for s in (0, 1, 5)],
            "the curve is not what was recorded",
        )
        _hold(store.run(run.id).steps == 5, "steps is not the highest step")


def a_refused_step_leaves_no_trace(open_store: OpenStore, folder: Path) -> None:
    """A repeated or earlier step, an unknown run and a NaN change neither curve nor state."""
    with open_store(folder / "s.sqlite") as store:
        run = _start(store)
        _refuses("-1", lambda: store.record_step(run.id, step=-1, metrics={}, state=b"wrong"))
        store.record_step(run.id, step=4, metrics={"loss": 1.0}, state=b"4")

        def record(run_id: int, step: int, loss: float) -> Callable[[], None]:
            return lambda: store.record_step(
                run_id, step=step, metrics={"loss": loss}, state=b"wrong"
            )

        _refuses("the same step", record(run.id, 4, 0.0))
        _refuses("an earlier step", record(run.id, 3, 0.0))
        _refuses("an unknown run", record(run.id + 1, 1, 0.0))
        _refuses("NaN", record(run.id, 5, math.nan))
        _refuses("infinity", record(run.id, 5, math.inf))
        _hold(store.curve(run.id) == [{"step": 4, "loss": 1.0}], "a refused step left a row")
        _hold(store.checkpoint(run.id) == b"4", "a refused step left a state")


def runs_do_not_mix(open_store: OpenStore, folder: Path) -> None:
    """Steps, states and endings of one run are never another's."""
    with open_store(folder / "s.sqlite") as store:
        runs = [store.start_run({"seed": s, "k": s % 2}, seed=s, provenance={}) for s in range(4)]
        for step in range(3):
            for run in runs:
                store.record_step(run.id, step=step, metrics={}, state=bytes([run.seed, step]))
        store.finish_run(runs[2].id, outcome="solved", result={}, artifact=b"2")
        for run in runs:
            _hold(store.checkpoint(run.id) == bytes([run.seed, 2]), "a state of another run")
            _hold(len(store.curve(run.id)) == 3, "rows of another run")
        _hold([r.seed for r in store.runs()] == [0, 1, 2, 3], "runs are not in order of start")
        _hold([r.seed for r in store.runs(k=1)] == [1, 3], "a filter on the spec failed")
        _hold([r.seed for r in store.runs(seed=3, k=0)] == [], "filters are not joined by and")
        _hold([r.seed for r in store.runs(outcome="solved")] == [2], "a filter on outcome failed")
        _hold(store.runs(absent=None) == [], "an absent field agreed with None")


def a_final_ending_is_final(open_store: OpenStore, folder: Path) -> None:
    """After a final ending nothing is recorded for the run, by any command."""
    with open_store(folder / "s.sqlite") as store:
        run = _start(store)
        store.record_step(run.id, step=1, metrics={}, state=b"1")
        store.finish_run(run.id, outcome="solved", result={"pairs": 8}, artifact=b"prompt")
    with open_store(folder / "s.sqlite") as store:
        ended = _start(store)
        _hold((ended.outcome, ended.result) == ("solved", {"pairs": 8}), "the ending was lost")
        _hold(ended.finished, "a solved run is not finished")
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
        _hold(store.run(run.id) == ended, "a refused ending changed the run")
        _hold(store.artifact(run.id) == b"prompt", "the artifact was lost")
        _hold(store.checkpoint(run.id) == b"1", "the state was lost")


def an_interrupted_run_goes_on(open_store: OpenStore, folder: Path) -> None:
    """Steps and a further ending may follow "interrupted" and "out_of_budget"."""
    with open_store(folder / "s.sqlite") as store:
        run = _start(store)
        for step, outcome in enumerate(("interrupted", "out_of_budget", "interrupted")):
            store.record_step(run.id, step=step, metrics={}, state=b"%d" % step)
            store.finish_run(run.id, outcome=outcome, result={"at": step}, artifact=b"old")
            now = store.run(run.id)
            _hold((now.outcome, now.result) == (outcome, {"at": step}), "not the latest ending")
            _hold(not now.finished, "an interrupted run counts as finished")
        store.finish_run(run.id, outcome="stalled", result={}, artifact=None)
        _hold(store.run(run.id).outcome == "stalled", "the final ending was not recorded")
        _hold(store.artifact(run.id) is None, "an artifact of an earlier ending")


def the_latest_record_wins(open_store: OpenStore, folder: Path) -> None:
    """`get` gives the last payload about a key; kinds and keys are apart."""
    with open_store(folder / "s.sqlite") as store:
        _hold(store.get("bracket", {"p": 1}) is None, "a record out of nothing")
        store.put("bracket", {"p": 1, "q": [1.5, None]}, {"floor": 1})
        store.put("bracket", {"p": 2}, {"floor": 2})
        store.put("baseline", {"p": 2}, {"floor": 9})
        store.put("bracket", {"q": [1.5, None], "p": 1}, {"floor": 3})
    with open_store(folder / "s.sqlite") as store:
        _hold(store.get("bracket", {"p": 1, "q": [1.5, None]}) == {"floor": 3}, "not the latest")
        _hold(store.get("baseline", {"p": 1}) is None, "a record of another kind")
        latest = store.records("bracket")
        _hold([p for _, p in latest] == [{"floor": 2}, {"floor": 3}], "records are not the latest")
        _refuses("NaN", lambda: store.put("bracket", {}, {"floor": math.nan}))
        _refuses("no kind", lambda: store.put("", {}, {}))


def seconds_add_up(open_store: OpenStore, folder: Path) -> None:
    """Time of a command is summed over reopenings and never falls."""
    for _ in range(3):
        with open_store(folder / "s.sqlite") as store:
            store.add_seconds("a", 0.5)
            store.add_seconds("b", 0.0)
    with open_store(folder / "s.sqlite") as store:
        _hold(store.seconds("a") == 1.5, "seconds were lost")
        _hold((store.seconds("b"), store.seconds("c")) == (0.0, 0.0), "seconds out of nothing")
        for wrong in (-1.0, math.nan, math.inf):
            _refuses(f"{wrong} seconds", partial(store.add_seconds, "a", wrong))
        _hold(store.seconds("a") == 1.5, "refused seconds were counted")


def text_is_only_text(open_store: OpenStore, folder: Path) -> None:
    """No name, key or outcome is ever read as a statement."""
    evil = "x'); DROP TABLE runs; --"
    with open_store(folder / "s.sqlite") as store:
        run = store.start_run({evil: evil}, seed=0, provenance={evil: evil})
        store.record_step(run.id, step=0, metrics={evil: evil}, state=evil.encode())
        store.finish_run(run.id, outcome=evil, result={evil: evil}, artifact=None)
        store.put(evil, {evil: evil}, {evil: evil})
        store.add_seconds(evil, 1.0)
        _hold(store.run(run.id).outcome == evil, "the outcome changed")
        _hold(store.runs()[0].spec == {evil: evil}, "the spec changed")
        _hold(store.get(evil, {evil: evil}) == {evil: evil}, "the record changed")
        _hold(store.seconds(evil) == 1.0, "the seconds changed")


def one_writer_at_a_time(open_store: OpenStore, folder: Path) -> None:
    """A second opening for writing is refused until the first is closed."""
    path = folder / "new folder" / "s.sqlite"
    with open_store(path):
        _refuses("a second writer", lambda: open_store(path))
    store = open_store(path)
    store.close()
    store.close()
    open_store(path).close()


STORE_LAWS: tuple[Law, ...] = (
    a_run_is_found_again_by_its_spec,
    a_spec_holds_its_seed,
    the_checkpoint_is_the_last_row_of_the_curve,
    a_refused_step_leaves_no_trace,
    runs_do_not_mix,
    a_final_ending_is_final,
    an_interrupted_run_goes_on,
    the_latest_record_wins,
    seconds_add_up,
    text_is_only_text,
    one_writer_at_a_time,
)


def _start(store: Store) -> RunRecord:
    return store.start_run(_SPEC, seed=3, provenance=_PROVENANCE)


def _hold(law: bool, broken: str) -> None:
    if not law:
        raise AssertionError(broken)


def _refuses(what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except UserError:
        return
    raise AssertionError(f"{what} was not refused")
