"""Ray and Slurm's stand-in give what this process gives, and do a lost cell again."""

import pytest
from tests.experiments.toy_cells import Toy, deadly, grid, square, threads

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.experiments.clusters import RayWorkers, SlurmWorkers


def ray(folder):
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    return RayWorkers("local", 2)


def slurm(folder):
    pytest.importorskip("submitit", reason="the extra `slurm` is not installed")
    return SlurmWorkers(folder / "jobs", cluster="local", count=2)


@pytest.mark.slow  # clusters take seconds to start
@pytest.mark.parametrize("make", [ray, slurm])
def test_a_lost_worker_costs_its_cell_and_errors_are_told(make, tmp_path):
    pool = make(tmp_path)
    cells = [*grid(4), Toy(number=9, marker=str(tmp_path / "marker"))]
    answers = sorted(pool.answers(square, cells), key=lambda each: each.place)
    assert [each.record["square"] for each in answers] == [0, 1, 4, 9, 81]
    assert (tmp_path / "marker").exists()
    assert [each.record["threads"] for each in pool.answers(threads, grid(1))] == ["1"]
    with pytest.raises(RunFailed, match=r"number=2.*ended 3 workers"):
        list(pool.answers(deadly, grid(3)))
    with pytest.raises(RunFailed, match="be 0 or more"):
        list(pool.answers(square, [Toy(number=-1)]))


def test_a_library_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    monkeypatch.setitem(__import__("sys").modules, "submitit", None)
    with pytest.raises(UserError, match=r"--ray.*pip install 'ray"):
        RayWorkers("auto", 1)
    with pytest.raises(UserError, match=r"--slurm.*pip install 'submitit"):
        SlurmWorkers(tmp_path, cluster="local", count=1)
