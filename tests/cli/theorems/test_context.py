"""`promptlimits context` through the entry point."""

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from promptlimits.cli.theorems.context import _power

Call = Callable[..., Any]
USUAL = {"--dim": "80", "--lipschitz": "10", "--radius": "1", "--eps": "0.01"}
LAYER = '{"radius": "1", "mlp_lipschitz": "1", "heads": [["1", "1"]]}'


def typed(**changes):
    options = USUAL | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return ["context", *(part for option in options.items() for part in option)]


def layered(here, text, **changes):
    (here / "layers.json").write_text(text, encoding="utf-8")
    return typed(layers_json="layers.json", **changes)


def test_the_figures(call, here):
    ended = call(*layered(here, f"[{LAYER}]", dim="64", tokens="1"), "--json")
    assert (ended.code, ended.err) == (0, "")
    told = json.loads(ended.out)
    assert told["published"]["log10"] == pytest.approx(84.51, abs=0.01)
    assert told["put_right"]["log10"] == pytest.approx(145.58, abs=0.01)
    assert told["2a_rogers"]["log10"] < told["2a"]["log10"] == pytest.approx(101.49, abs=0.01)
    assert 0 < told["2b"]["log10"] < 1e-20
    assert told["2c"]["log10"] == pytest.approx(3.81, abs=0.01)
    assert told["2b"]["statement"].startswith("Theorem 2b")
    assert "washout" not in told
    assert told["notes"] == []


def test_each_theorem_comes_with_what_it_assumes(call, here):
    told = json.loads(call(*layered(here, f"[{LAYER}]", tokens="3"), "--json").out)
    for name in ("published", "put_right", "2a", "2a_rogers", "2b", "2c"):
        assert told[name]["assumptions"], name
    assert [row["prompt_tokens"] for row in told["washout"]] == [10**n for n in range(1, 7)]
    text = call(*layered(here, f"[{LAYER}]", tokens="3")).out
    listed = [told[name]["assumptions"] for name in ("2a", "2b", "2c")]
    for assumption in itertools.chain(*listed, told["washout"][0]["assumptions"]):
        assert text.count(assumption) == 1
    assert "Each query has 3 tokens, and W_2 between any two of them is at most 2." in text
    assert "more than K pairs cannot all be served" in text


def test_limits_are_shown_rounded_up(call):
    told = json.loads(call(*typed(), "--json").out)
    shown = call(*typed()).out
    assert 125.32 < told["2a"]["log10"] < 125.33
    assert "K = 10^125.4" in shown
    for value in (125.321, -0.92156, 1e-30, 0.30144, 3.9301, 12345.01, -2.7518, 0.0, 9.9999):
        text = _power(value).replace(",", "").removeprefix("10^")
        assert value <= float(text) <= value + max(1e-3 * abs(value), 1e-4) + 1e-15
    assert (_power(1e-30), _power(9677.1)) == ("10^0.0001", "10^9,678")


# From 8191 numbers per token on the share of the cover rounded to 1, and the command failed.
@pytest.mark.parametrize("dim", ["1", "8190", "8191", "8192", "1000000"])
def test_large_dimensions(call, dim):
    told = json.loads(call(*typed(dim=dim), "--json").out)
    assert told["2a"]["log10"] < told["put_right"]["log10"] or dim == "1"
    assert ("2a_rogers" in told) == (int(dim) >= 3)
    assert math.isfinite(told["2a"]["log10"])


@pytest.mark.parametrize("tokens", ["1", "16"])
def test_the_certificates_are_good(call, here, tokens):
    assert call(*typed(tokens=tokens, out="2b.json")).code == 0
    said = call("check", "2b.json")
    assert (said.code, said.err) == (0, "")
    assert (
        f"Theorem 2b: in dimension 80, radius 1, with L = 10, queries of {tokens} tok" in said.out
    )
    assert call(*layered(here, f"[{LAYER}]", tokens=tokens, out="2c.json")).code == 0
    assert call("check", "2c.json").out.startswith("ok: Theorem 2c")


def test_a_radius_that_the_limits_do_not_imply_is_noted(call, here):
    second = LAYER.replace('"1"', '"1/1000"', 1)
    ended = call(*layered(here, f"[{LAYER}, {second}]"))
    assert (ended.code, ended.err) == (0, "")
    assert "Note: the radius 1/1000 of layer 2 is below 2" in ended.out
    assert "Note" not in call(*layered(here, f"[{LAYER}, {LAYER.replace('1', '2', 1)}]")).out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"radius": "0"}, "--radius must be a finite number above 0"),
        ({"radius": "1_0"}, "--radius"),
        ({"eps": "0.5"}, "--eps must be below half the radius, 1, got 0.5"),
        ({"eps": "١"}, "--eps"),
        ({"order": "1/2"}, "--order must be from 1 to 1,000"),
        ({"order": "inf"}, "--order"),
        ({"dim": "0"}, "--dim"),
        ({"dim": "1000001"}, "--dim must be at most 1,000,000"),
        ({"tokens": "-1"}, "--tokens"),
        ({"lipschitz": "nan"}, "--lipschitz"),
        ({"lipschitz": "1e1000001"}, "--lipschitz"),
        ({"layers_json": "missing.json"}, "--layers-json must be a file of JSON"),
        ({"out": "."}, "--out must be a file that can be written"),
        ({"dim": "8", "eps": "0.4999"}, "eps must leave room"),
    ],
)
def test_bad_input_is_one_line(call, changes, words):
    call(*typed(**changes)).says(2, words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "a list of layers"),
        ("{}", "a list of layers"),
        ("[", "a file of JSON"),
        ("[" * 100_000, "a file of JSON"),
        (LAYER.join("[]"), ""),
        (f'[{LAYER[:-1]}, "radius": "2"}}]', "is given twice"),
        (f"[{LAYER.replace('1', '1_0', 1)}]", "radius of a layer must be"),
        (f"[{LAYER.replace('1', '١', 1)}]", "radius of a layer must be"),
        (f"[{LAYER.replace('1', 'NaN', 1)}]", "radius of a layer must be"),
        (
            '[{"radius": NaN, "mlp_lipschitz": "1", "heads": [["1", "1"]]}]',
            "NaN is no number of JSON",
        ),
        (f"[{LAYER.replace('1', '-1', 1)}]", "radius of a layer must be"),
        (f"[{LAYER.replace('1', '1e1999', 1)}]", "between 1e-100 and 1e100, got 1e1999"),
        (f"[{LAYER.replace('1', '1e-4000', 1)}]", "between 1e-2000 and 1e2000"),
        (f"[{LAYER.replace('1', '1e99', 1)}]", "||A|| r^2"),
        (f"[{LAYER}, {LAYER}]", ""),
    ],
)
def test_bad_layers_are_one_line(call, here, text, words):
    if words:
        call(*layered(here, text)).says(2, words)
    else:
        assert call(*layered(here, text)).code == 0


def test_radii_beyond_floats(call, here):
    """The target radius of Theorem 2c is searched in floats; without layers any size will do."""
    far = {"radius": "1e400", "eps": "1e398"}
    call(*layered(here, f"[{LAYER}]", **far)).says(2, "--radius must be between 1e-100 and 1e100")
    here_, there = (json.loads(call(*typed(**x), "--json").out) for x in ({}, far))
    assert here_["2a"]["log10"] == pytest.approx(there["2a"]["log10"], rel=1e-3)


def test_unmasked_is_for_one_layer(call, here):
    assert call(*layered(here, f"[{LAYER}]"), "--unmasked").code == 0
    call(*layered(here, f"[{LAYER}, {LAYER}]"), "--unmasked").says(2, "be one without a mask")


def test_nothing_heavy_is_imported():
    code = (
        "import sys\nsys.argv = ['promptlimits', 'context', '--dim', '80', '--lipschitz', '10',"
        " '--radius', '1', '--eps', '0.01']\n"
        "from promptlimits.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "assert not {'torch', 'scipy', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
