"""`promptlimits errata`."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

Call = Callable[..., Any]


def test_it_lists_every_erratum(call):
    ended = call("errata")
    assert (ended.code, ended.err) == (0, "")
    for number in range(1, 19):
        assert f"E{number}" in ended.out
    records = json.loads(call("errata", "--json").out)
    assert [record["erratum"] for record in records] == [*(f"E{n}" for n in range(1, 19)), "W4"]


def test_the_list_needs_no_torch():
    code = (
        "import sys\nsys.argv = ['promptlimits', 'errata']\n"
        "from promptlimits.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "assert not {'torch', 'scipy', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_one_is_run_and_told(call):
    ended = call("errata", "E13")
    assert (ended.code, ended.err) == (0, "")
    starts = [line.split(" ")[0] for line in ended.out.splitlines()]
    assert starts == ["E13", "Published:", "Wrong:", "Correct:", "Measured:"]
    assert "0.447214" in ended.out
    assert "Measured" not in call("errata", "E1").out


def test_the_record_of_e13(call):
    record = json.loads(call("errata", "E13", "--json").out)
    assert record["heads"] == 4
    assert record["published_floor"] == 0.5
    assert record["errors"] == pytest.approx([5**-0.5] * 5, abs=1e-11)
    other = json.loads(call("errata", "e13", "--heads", "6", "--seed", "7", "--json").out)
    assert other["errors"] == pytest.approx([7**-0.5] * 7, abs=1e-11)
