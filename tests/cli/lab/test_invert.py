"""`promptlimits invert` through the entry point."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import pytest

from promptlimits.lab.errata.measures import trap
from promptlimits.nets.paper.files import save_transformer

Call = Callable[..., Any]
SMALL = ["--random", "d=4,h=1,layers=2,scale=.2,seed=1,f=3", "--radius", "1"]


def test_a_certified_transformer(call):
    told = json.loads(call("invert", *SMALL, "--json").out)
    assert told["one_to_one"] is True
    assert told["reason"] == ""
    assert [set(layer) for layer in told["layers"]] == [{"radius", "attention", "mlp_branch"}] * 2
    assert 1 - told["lambda"] <= told["floor"] < 1
    assert told["prompt_norm_limit"]["value"] > 1
    assert "spectral_norm_limit" not in told
    found = told["inverse"]
    assert (found["status"], found["inputs"], found["prompt_tokens"]) == ("proved", 16, 3)
    assert found["largest_error"] <= 1e-10
    assert found["proved_error_limit"] <= 1e-10
    text = call("invert", *SMALL)
    assert (text.code, text.err) == (0, "")
    assert "proved one-to-one, |Y - Y'| >=" in text.out
    assert "its a-posteriori limit" in text.out


def test_what_is_not_proved_is_said_and_exits_0(call):
    ended = call("invert", "--random", "d=4,h=1,layers=1,scale=2", "--radius", "1/2")
    assert (ended.code, ended.err) == (0, "")
    assert "not proved one-to-one: the attention of layer 1 has the constant" in ended.out
    assert "nothing is proved at any norm" in ended.out


def test_the_trap_from_a_folder(call, here):
    save_transformer(trap(), here / "trap")
    (here / "prompt.json").write_text("[[0.5, 0.25]]", encoding="utf-8")
    (here / "inputs.json").write_text("[[[0.5, 0.5]], [[-0.5, 0.1]]]", encoding="utf-8")
    given = ["--weights", "trap", "--radius", "1"]
    given += ["--prompt", "prompt.json", "--inputs", "inputs.json"]
    told = json.loads(call("invert", *given, "--json").out)
    assert (told["one_to_one"], told["floor"]) == (False, 0)
    assert told["whole_sequence_floor"] > 0
    assert (told["inverse"]["status"], told["inverse"]["inputs"]) == ("found", 2)
    assert told["inverse"]["proved_error_limit"] is None
    text = call("invert", *given).out
    assert "[P, X] -> [P', Y], all outputs: proved one-to-one" in text


def test_one_layer_has_the_closed_form_too(call):
    told = json.loads(call("invert", "--random", "d=3,h=1,layers=1", "--radius", "1", "--json").out)
    assert told["spectral_norm_limit"]["tokens"] == 5
    assert told["spectral_norm_limit"]["value"] > 100
    free = call("invert", "--random", "d=3,h=1,layers=1,masked=1,f=0,scale=1e-6", "--radius", "1")
    assert "D*" in free.out


def test_proved_is_said_only_of_proved_limits(call):
    given = ["--random", "d=2,h=1,layers=1,scale=1e-6", "--radius", "1e9"]
    told = json.loads(call("invert", *given, "--json").out)["inverse"]
    assert told["proved_error_limit"] > 1e-10
    assert told["status"] in ("converged", "found")
    assert "above the tolerance" in told["reason"]
    first = next(line for line in call("invert", *given).out.splitlines() if "steps:" in line)
    assert "proved" not in first
    assert "steps: proved to within 1e-10" in call("invert", *SMALL).out


def test_long_prompts_have_no_limit_in_ball_arithmetic(call):
    given = ["--random", "d=2,h=1,layers=1", "--radius", "1", "--prompt-tokens", "300", "--json"]
    told = json.loads(call("invert", *given).out)["inverse"]
    assert (told["status"], told["proved_error_limit"]) == ("converged", None)
    assert "ball arithmetic would take too long" in told["reason"]


def test_outputs_that_overflow_are_an_outcome(call):
    given = ["--random", "d=2,h=1,layers=64,scale=1e6", "--radius", "1"]
    ended = call("invert", *given)
    assert (ended.code, ended.err) == (0, "")
    assert "the outputs at these inputs overflow" in ended.out
    assert json.loads(call("invert", *given, "--json").out)["inverse"]["status"] == "failed"


def test_the_drawing_is_refused_before_the_run(call, here, monkeypatch):
    from promptlimits.lab import experiments

    monkeypatch.setattr(experiments, "norm_growth", lambda seed: pytest.fail("it ran"))
    (here / "taken").write_text("", encoding="utf-8")
    call("invert", "--experiment", "norm", "--plot", "taken/x.svg").says(2, "--plot must be a file")


def test_huge_radii_are_numbers(call):
    for radius in ("1e60", "1e-60"):
        ended = call("invert", "--random", "d=2,h=1,layers=8", "--radius", radius, "--json")
        assert ended.code == 0
        json.loads(ended.out)


def test_experiments(call, here, monkeypatch):
    from promptlimits.lab import experiments

    threshold, growth = experiments.threshold, experiments.norm_growth
    monkeypatch.setattr(
        experiments,
        "threshold",
        lambda seed: threshold(scales=(0.2, 2.0), starts=1, steps=2, seed=seed),
    )
    monkeypatch.setattr(experiments, "norm_growth", lambda seed: growth(steps=8, seed=seed))
    for name, first in (("threshold", "scale"), ("norm", "D* =")):
        ended = call("invert", "--experiment", name, "--plot", f"{name}.svg")
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith(first)
        assert ET.fromstring((here / f"{name}.svg").read_text(encoding="utf-8")).tag.endswith("svg")
        told = json.loads(call("invert", "--experiment", name, "--json").out)
        assert told["experiment"] == name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[1]]", "tokens of 2 numbers"),
        ("[1, 2]", "tokens of 2 numbers"),
        ("[]", "tokens of 2 numbers"),
        ("[[0.1, NaN]]", "NaN"),
        ("[[0.1, 0.2], [0.3]]", "all of one length"),
        ("{", "file of JSON"),
        ('{"a": 1}', "file of JSON"),
        ("[[3, 4]]", "within --radius 1"),
    ],
)
def test_bad_prompts_are_one_line(call, here, text, words):
    (here / "prompt.json").write_text(text, encoding="utf-8")
    call("invert", "--random", "d=2,h=1", "--radius", "1", "--prompt", "prompt.json").says(2, words)
