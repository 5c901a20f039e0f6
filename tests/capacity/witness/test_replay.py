"""Both ways to replay, on every family and kind; `make replay-matrix` runs it under other versions.

Here replay.py runs in this process, which saves the seconds of an import for each;
`test_witness_process` runs it alone.
"""

import runpy
import sys

import pytest
from tests.capacity.witness.witness_cases import edit

from promptlimits.testing.tiny_models import FAMILIES


def replay(directory, model, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["replay.py", "--model", str(model)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(directory / "replay.py"), run_name="__main__")
    return ended.value.code


@pytest.mark.parametrize("kind", ["soft", "prefix"])
@pytest.mark.parametrize("family", FAMILIES)
def test_verify_and_replay_find_every_pair(cases, family, kind, tmp_path, monkeypatch, capsys):
    case = cases(family, kind)
    directory = case.save(tmp_path / "w")
    found = case.verify(directory)
    assert found.pairs_exact == found.of == len(case.pairs)
    assert [a.generated_ids for a in found.answers] == [p.value_ids for p in case.pairs]
    assert [a.decoded for a in found.answers] == [p.value for p in case.pairs]
    assert found.same_weights
    assert found.confirmed_by.endswith("greedy generate, float32")
    assert found.answers == case.verify(directory, batch_size=1).answers
    assert replay(directory, case.model, monkeypatch) == 0
    every = len(case.pairs)
    assert capsys.readouterr().out.splitlines()[-1] == f"{every} of {every} pairs exact"


@pytest.mark.parametrize(("version", "told"), [("0.0.1", True), (None, False)])
def test_replay_says_with_which_versions_it_was_confirmed(
    case, version, told, tmp_path, monkeypatch, capsys
):
    """Where a counted pair fails and the versions are others, those may be to blame."""
    import peft
    import transformers

    directory = case.save(tmp_path / "w", prompt=case.prompt.flip(0).neg())
    found = case.verify(directory).to_json()
    assert found["pairs_exact"] < len(case.pairs)
    for answer in found["answers"]:
        answer["counted"] = True
    found["versions"]["peft"] = version or peft.__version__
    edit(directory, "witness.json", lambda document: document.update(verification=found))
    assert replay(directory, case.model, monkeypatch) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    here = f"these are peft {peft.__version__} transformers {transformers.__version__}"
    pins = f"pip install peft==0.0.1 transformers=={transformers.__version__}"
    assert (last == f"{here}; it was confirmed with: {pins}") == told
