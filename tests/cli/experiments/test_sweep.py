"""`promptlimits sweep`: cells, record, figures and export; a second run computes nothing."""

import json

import pytest

GRID = """
models = ["tiny"]
pairs = ["random:4,1,1"]
prompt_tokens = [1]
sizes = [1, 2]
seeds = 2
steps = 5
"""


@pytest.mark.slow  # a worker imports torch and transformers
@pytest.mark.usefixtures("model")
def test_a_grid_is_run_and_kept(call, here):
    (here / "grid.toml").write_text(GRID)
    options = ("sweep", "grid.toml", "--out", "out", "--workers", "1")
    ended = call(*options, "--export", "cells.csv", "--json")
    assert ended.code == 0, ended.err
    record = json.loads(ended.out)
    assert json.loads((here / "out" / "sweep.json").read_text()) == record
    (curve,) = record["curves"]
    assert (curve["sizes"], curve["of"], len(record["cells"])) == ([1, 2], 2, 8)
    assert len((here / "cells.csv").read_text().splitlines()) == 9
    assert (here / "out" / "sweep-1.pdf").exists()
    again = call(*options)
    assert (again.code, again.err) == (0, "")
    assert "k50 (estimated)" in again.out
    assert "planted control" in again.out


def test_mistakes(call, here):
    call("sweep", "none.toml").says(2, "the grid", "file that can be read")
    (here / "grid.toml").write_text(GRID)
    call("sweep", "grid.toml", "--export", "cells.txt").says(2, "--export")


def test_where_it_runs_is_said_once(call, here):
    (here / "grid.toml").write_text(GRID)
    call("sweep", "grid.toml", "--ray", "--slurm").says(2, "the pool", "drop one")
