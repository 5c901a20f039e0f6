"""Cells are computed once each, whatever is killed on the way."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from tests.experiments.toy_cells import Silent, Toy, deadly, drive, grid, square, threads, toy_work

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.capacity.store.sqlite import Store
from promptlimits.experiments.execute import Here, execute
from promptlimits.experiments.workers import LocalWorkers


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store.sqlite") as opened:
        yield opened


def done(store, cells, *, pool=None, measure=square, progress=None):
    return execute(
        toy_work(measure),
        cells,
        store=store,
        pool=pool or Here(),
        progress=progress or Silent(),
        facts={"commit": "none"},
    )


def squares(found):
    return [each.record["square"] for each in found]


def test_each_cell_is_computed_once_and_a_larger_grid_only_adds(store):
    calls = []

    def counted(cell):
        calls.append(cell.number)
        return square(cell)

    assert squares(done(store, grid(3), measure=counted)) == [0, 1, 4]
    progress = Silent()
    found = done(store, [*grid(5), Toy(number=1)], measure=counted, progress=progress)
    assert squares(found) == [0, 1, 4, 9, 16]
    assert calls == [0, 1, 2, 3, 4]
    assert (progress.total, progress.done) == (5, [3, 4, 5])
    assert found[2].to_json() == {"number": 2, "seconds": 0.0, "marker": "", "square": 4}


def test_another_engine_computes_anew(store):
    done(store, grid(2))
    newer = toy_work(lambda _: {"square": -1})
    found = execute(
        replace(newer, engine=2), grid(2), store=store, pool=Here(), progress=Silent(), facts={}
    )
    assert squares(found) == [-1, -1]
    assert squares(done(store, grid(2))) == [0, 1]


def test_workers_give_what_this_process_gives_each_with_one_thread(store):
    assert squares(done(store, grid(7), pool=LocalWorkers(2))) == [n**2 for n in range(7)]
    before = os.environ.get("OMP_NUM_THREADS")
    found = done(store, grid(4, seconds=0.01), pool=LocalWorkers(2), measure=threads)
    assert {each.record["threads"] for each in found} == {"1"}
    assert os.getpid() not in {each.record["pid"] for each in found}
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_a_killed_worker_costs_its_cell_which_another_does(store, tmp_path):
    cells = [*grid(3), Toy(number=9, marker=str(tmp_path / "marker"))]
    assert squares(done(store, cells, pool=LocalWorkers(2))) == [0, 1, 4, 81]
    assert (tmp_path / "marker").exists()


def test_a_cell_that_kills_every_worker_ends_the_run_and_the_others_are_kept(store):
    with pytest.raises(RunFailed, match=r"number=2.*ended 3 workers.*memory"):
        done(store, grid(3), pool=LocalWorkers(1), measure=deadly)
    assert store.get("cell", toy_work().key(Toy(number=0))) is not None


def test_an_error_in_a_cell_is_told_with_the_cell(store):
    with pytest.raises(RunFailed, match=r"number=-1.*be 0 or more"):
        done(store, [Toy(number=-1)], pool=LocalWorkers(1))
    with pytest.raises(RuntimeError, match=r"number='x'"):
        done(store, [Toy(number="x")], pool=LocalWorkers(1))


def test_a_pool_has_a_worker():
    with pytest.raises(UserError, match="--workers"):
        LocalWorkers(0)


@pytest.mark.slow  # twenty drivers, each with two processes of its own, or a Ray
@pytest.mark.parametrize(("kind", "longest"), [("local", 1.2), ("ray", 12.0)])
def test_killed_at_random_moments_a_driver_goes_on_to_the_same_end(
    kind, longest, tmp_path, repository
):
    if kind == "ray":
        pytest.importorskip("ray", reason="the extra `ray` is not installed")
    whole = squares(drive(tmp_path / "whole.sqlite", 40))
    chance = random.Random(0)
    path = tmp_path / "killed.sqlite"
    script = [sys.executable, "-m", "tests.experiments.toy_cells", str(path), "40", kind]
    kept = []
    for _ in range(20):
        driver = subprocess.Popen(script, cwd=repository, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.05, longest))
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        kept.append(stored(path))
    assert kept == sorted(kept)
    assert squares(drive(path, 40, kind)) == whole


def stored(path):
    """How many cells of the drivers' grid a store has."""
    if not path.exists():
        return 0
    with Store.open(path, read_only=True) as store:
        cells = (store.get("cell", toy_work().key(c)) for c in grid(40, seconds=0.03))
        return sum(cell is not None for cell in cells)
