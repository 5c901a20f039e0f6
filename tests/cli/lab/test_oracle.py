"""`promptlimits oracle` through the entry point."""

import itertools
import json
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

Call = Callable[..., Any]
RANDOM = ["--random-layer", "d=6,h=2,seed=1"]


def test_json(call):
    ended = call("oracle", *RANDOM, "--k", "3", "--json")
    assert (ended.code, ended.err) == (0, "")
    told = json.loads(ended.out)
    assert (told["reachable_dimension"], told["ambient_dimension"]) == (8, 18)
    for name in ("sum_of_squares", "largest"):
        each = told[name]
        assert 0 < each["proved"] <= each["relaxation"] * (1 + 1e-12)
        assert each["relaxation"] <= each["found"]
        assert each["prompt_tokens"] == len(each["prompt"][0])
    prompt = np.array(told["sum_of_squares"]["prompt"])
    assert prompt.shape == (6, 2)


def test_found_is_said_of_prompts_only(call):
    bound = ["--random-layer", "d=4,h=2,s=4,seed=0", "--k", "3"]
    ended = call("oracle", *bound)
    for words in (
        "by an actual prompt of",
        "relaxed  0.0151",
        "perhaps no prompt's",
        "the bracket is open",
    ):
        assert words in ended.out
    told = json.loads(call("oracle", *bound, "--json").out)
    each = told["sum_of_squares"]
    assert each["found"] > 1 > 0.0152 > each["relaxation"]
    assert not each["attained"]
    assert each["certificate"]["optimal_within"] is None
    largest = told["largest"]
    assert largest["certificate"]["found"] == largest["found"]
    for name, unit in ("sum_of_squares", "squared error"), ("largest", "error"):
        assert told[name]["unit"] == told[name]["certificate"]["unit"] == unit
        limit = Fraction(told[name]["certificate"]["lower"])
        assert 0 <= limit - Fraction(told[name]["proved"]) <= limit / 10**15
    assert "sum of squared errors, before the MLP" in ended.out
    assert "largest error, not squared, before the MLP" in ended.out


def test_one_head_of_full_rank_is_closed_by_entropy(call):
    """The relaxation is 5.05 and prompts with tokens of ordinary size leave 6.12."""
    bound = ["--random-layer", "d=4,h=1,seed=2", "--k", "3"]
    ended = call("oracle", *bound, "--tokens", "2")
    assert "found    5.26145233, by an actual prompt of" in ended.out
    assert "prompts of length 2: 5.26145" in ended.out
    assert "none of that length goes below it" in ended.out
    told = json.loads(call("oracle", *bound, "--tokens", "2", "--json").out)
    assert told["of_length"]["tokens"] == 2
    for each in (told["sum_of_squares"], told["of_length"]):
        assert each["proved"] <= each["found"] <= each["proved"] * (1 + 1e-5)
    assert told["sum_of_squares"]["attained"]


def test_the_same_command_gives_the_same_bytes(call, here):
    """Whatever the clock says: here every reading is far beyond the one before."""
    case = [
        "oracle",
        "--random-layer",
        "d=8,h=3,s=3,seed=4",
        "--k",
        "5",
        "--json",
        "--boxes",
        "300",
    ]
    told = {call(*case).out for _ in range(2)}
    hours = itertools.count(0.0, 1e5)
    with pytest.MonkeyPatch.context() as patch:
        for clock in ("time", "perf_counter", "monotonic", "process_time"):
            patch.setattr(time, clock, lambda: next(hours))
        told.add(call(*case).out)
    assert len(told) == 1
    assert "seconds" not in told.pop()


def test_more_boxes_prove_more(call):
    case = ["oracle", "--random-layer", "d=8,h=3,s=3,seed=4", "--k", "5", "--json", "--boxes"]
    few, some, many = (json.loads(call(*case, boxes).out) for boxes in ("1", "300", "900"))
    for name in ("sum_of_squares", "largest"):
        limits = [one[name]["proved"] for one in (few, some, many)]
        assert limits == sorted(limits)
        assert limits[0] < limits[2]
        boxes = [one[name]["certificate"]["boxes"] for one in (few, some, many)]
        assert boxes[0] == 1 < boxes[1] < boxes[2]
        assert few[name]["found"] == many[name]["found"]


def test_text_and_drawing(call, here):
    ended = call("oracle", *RANDOM, "--k", "2", "--plot", "drawing.svg")
    assert ended.code == 0
    for word in ("found", "proved", "no prompt of any length goes below it"):
        assert word in ended.out
    drawn = (here / "drawing.svg").read_text(encoding="utf-8")
    assert "found" in "".join(ET.fromstring(drawn).itertext())


def test_the_oracle_agrees_on_impossible_data(call):
    layer = ["--random-layer", "d=5,seed=2,f=10"]
    made = json.loads(call("unmemorizable", *layer, "--out", "data.json", "--json").out)
    told = json.loads(call("oracle", *layer, "--pairs", "data.json", "--json").out)
    floor = made["proved"]["largest_error_before_the_mlp_at_least"]
    assert told["largest"]["relaxation"] == pytest.approx(floor, abs=1e-6)
    assert told["largest"]["found"] == pytest.approx(floor, abs=1e-4)
    assert np.array(told["offsets"]) == pytest.approx(np.array(made["offsets"]), abs=1e-9)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("{", "file of JSON"),
        ("[]", "hold queries and answers"),
        ('{"queries": [[[1, 0]], [[0, 1]]], "answers": [[1, 1], [1, 1]]}', "end with the same"),
        ('{"queries": [[[1, 0, 0]]], "answers": [[1, 1]]}', "tokens of 2 numbers"),
        ('{"queries": [[[1, 0]]], "answers": [[1, NaN]]}', "NaN"),
        ('{"queries": [[[1, 0]]], "answers": []}', "as many answers"),
    ],
)
def test_bad_pairs_are_one_line(call, here, record, words):
    (here / "pairs.json").write_text(record, encoding="utf-8")
    call("oracle", "--random-layer", "d=2", "--pairs", "pairs.json").says(2, words)


def test_answers_outside_the_range_of_the_mlp(call, here):
    eye = np.eye(2)
    head = {f"heads.0.{part}": eye for part in ("query", "key", "value", "output")}
    mlp = {"w1": eye, "b1": np.zeros(2), "w2": -2 * eye, "b2": np.zeros(2)}
    save_file({**head, **mlp}, here / "layer.safetensors")
    record = {"queries": [[[1, 2], [1, 0]]], "answers": [[1, 1]]}
    (here / "pairs.json").write_text(json.dumps(record), encoding="utf-8")
    ended = call("oracle", "--weights", "layer.safetensors", "--pairs", "pairs.json")
    ended.says(2, "answer 0 must lie in the range of the layer's MLP")
