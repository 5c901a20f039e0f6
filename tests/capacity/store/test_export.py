import csv
import io
import json

import pytest

from promptlimits.base.errors import RunFailed
from promptlimits.capacity.store import Store
from promptlimits.capacity.store.export import runs_as_csv, runs_as_json, write_text


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store.sqlite") as store:
        one = store.start_run({"task": {"name": 'a, "b"\nc'}, "seed": 1}, seed=1, provenance={})
        store.record_step(one.id, step=1, metrics={"loss": 0.1}, state=b"")
        store.finish_run(one.id, outcome="solved", result={"held": [1, 2]}, artifact=b"x")
        store.start_run({"seed": 2, "rate": 1e-300}, seed=2, provenance={"torch": None})
        yield store


def test_json_reads_back_as_the_runs(store):
    document = json.loads(runs_as_json(store, curves=True))
    assert document["schema"] == 1
    for entry, run in zip(document["runs"], store.runs(), strict=True):
        curve = entry.pop("curve")
        assert curve == store.curve(run.id)
        assert {name: getattr(run, name) for name in entry} == entry
    assert "curve" not in json.loads(runs_as_json(store))["runs"][0]


def test_csv_has_one_row_a_run_and_a_column_a_field(store):
    rows = list(csv.DictReader(io.StringIO(runs_as_csv(store))))
    assert [row["seed"] for row in rows] == ["1", "2"]
    assert rows[0]["spec.task.name"] == 'a, "b"\nc'
    assert json.loads(rows[0]["result.held"]) == [1, 2]
    assert (rows[0]["outcome"], rows[1]["outcome"]) == ("solved", "")
    assert float(rows[1]["spec.rate"]) == 1e-300
    assert (rows[0]["steps"], rows[1]["steps"]) == ("1", "0")


def test_an_empty_store_has_a_header_and_no_rows(tmp_path):
    with Store.open(tmp_path / "empty.sqlite") as store:
        assert runs_as_csv(store) == "id,spec_hash,seed,outcome,steps,created,updated\n"
        assert json.loads(runs_as_json(store))["runs"] == []


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "runs.csv"
    write_text(target, "oldest")
    held = tmp_path / "held"
    held.hardlink_to(target)
    write_text(target, "old")
    assert held.read_text() == "oldest", "another file under the same name"
    held.unlink()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunFailed, match=r"could not be written \(No space left on device\)"):
        write_text(target, "new" * 1000)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target], "the draft is removed"
