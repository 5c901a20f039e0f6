"""A user's grid: its file, its cells, its curves, its export."""

import csv
from dataclasses import replace

import pytest

from promptlimits.base.errors import UserError
from promptlimits.experiments import sweep
from promptlimits.experiments.execute import Done
from promptlimits.experiments.export import export, require_exportable
from promptlimits.testing.tiny_models import tiny_causal_lm

GRID = """
models = ["tiny"]
pairs = ["random:8,1,1"]
prompt_tokens = [2, 1]
sizes = [1, 2]
seeds = 2
steps = 30
"""


def grid(tmp_path, text=GRID):
    path = tmp_path / "grid.toml"
    path.write_text(text)
    return sweep.read_grid(path)


def test_cells_are_every_combination_and_more_seeds_only_add(tmp_path):
    cells = grid(tmp_path).cells()
    assert len(set(cells)) == len(cells) == 2 * 2 * 2 * 2
    more = grid(tmp_path, GRID.replace("seeds = 2", "seeds = 3")).cells()
    assert set(cells) < set(more)
    assert {cell.planted for cell in cells} == {False, True}
    bare = grid(tmp_path, GRID + "control = false\n").cells()
    assert {cell.planted for cell in bare} == {False}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("models =", "modls ="), "modls"),
        (("steps = 30", ""), "steps"),
        (("seeds = 2", "seeds = 0"), "seeds"),
        (("[1, 2]", "[]"), "sizes"),
        (("[1, 2]", "[9]"), "at most 8"),
        (('["random:8,1,1"]', '["nowhere.csv"]'), "nowhere.csv"),
        (("models =", "models"), "TOML"),
    ],
)
def test_mistakes_in_the_file_are_named(change, words, tmp_path):
    with pytest.raises(UserError, match=words):
        grid(tmp_path, GRID.replace(*change))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="the grid must be a file that can be read"):
        sweep.read_grid(tmp_path / "none.toml")


@pytest.fixture(scope="module")
def attempt(tmp_path_factory):
    folder = tiny_causal_lm(tmp_path_factory.mktemp("models") / "tiny", "gpt2")
    return sweep.Attempt(
        model=str(folder), pairs="random:8,1,1", kind="soft", prompt_tokens=2, size=1, seed=0,
        planted=False, steps=60, starts=2, learning_rate=1.0, dtype="float32",
    )  # fmt: skip


def test_a_cell_trains_and_repeats(attempt):
    first, again = sweep.measure(attempt), sweep.measure(attempt)
    assert first == again
    assert first["of"] == 1
    assert first["solved"] is (first["held"] == 1)
    assert 0 < first["steps"] <= 120


@pytest.mark.parametrize("kind", ["soft", "prefix"])
def test_a_planted_cell_is_solved(attempt, kind):
    found = sweep.measure(replace(attempt, planted=True, kind=kind))
    assert (found["of"], found["solved"]) == (1, True)


def done(solved, *, tokens=1, planted=False, **record):
    """Cells of one curve: {size: whether each seed's list was held}."""
    cell = sweep.Attempt(
        model="m", pairs="p", kind="soft", prompt_tokens=tokens, size=1, seed=0, planted=planted,
        steps=1, starts=1, learning_rate=1.0, dtype="float32",
    )  # fmt: skip
    return [
        Done(
            cell=replace(cell, size=size, seed=seed),
            record={"solved": one, "model_hash": "h", "task_hash": f"{size} {seed}"} | record,
        )
        for size, row in solved.items()
        for seed, one in enumerate(row)
    ]


def test_curves_count_by_size_and_slopes_go_with_the_length():
    short, long = {1: [1, 1], 2: [0, 0], 3: [0, 0]}, {1: [1, 1], 2: [1, 1], 3: [0, 0]}
    found = sweep.curves([*done(short), *done(long, tokens=2), *done({1: [1, None]}, planted=True)])
    assert [each.success.counts for each in found] == [[2, 0, 0], [2, 2, 0]]
    assert [each.success.k50.value for each in found] == [1.5, 2.5]
    assert (found[0].control.solved, found[0].control.of) == (1, 1)
    assert found[1].control is None
    (slope,) = sweep.slopes(found)
    assert slope.value == pytest.approx(1)
    assert slope.low < 1 < slope.high
    (drawing,) = sweep.drawings(found).values()
    assert "pairs 2: 1 (" in drawing.description


def test_two_models_under_one_name_are_refused():
    with pytest.raises(UserError, match="two under m"):
        sweep.curves([*done({1: [1]}), *done({2: [1]}, model_hash="other")])


def test_cells_are_exported_row_by_row(tmp_path):
    rows = [{"size": 1, "solved": True, "model": "a,b"}, {"size": 2, "solved": None, "model": "c"}]
    export(tmp_path / "cells.csv", rows)
    with (tmp_path / "cells.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert read == [
        {"size": "1", "solved": "True", "model": "a,b"}, {"size": "2", "solved": "", "model": "c"}
    ]  # fmt: skip
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not here")
    export(tmp_path / "new" / "cells.parquet", rows)
    assert parquet.read_table(tmp_path / "new" / "cells.parquet").to_pylist() == rows
    with pytest.raises(UserError, match=r"end in \.csv or \.parquet"):
        require_exportable(tmp_path / "cells.xlsx")
