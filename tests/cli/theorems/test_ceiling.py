"""`promptlimits ceiling` through the entry point."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

Call = Callable[..., Any]
USUAL = {
    "--dim": "768",
    "--lipschitz": "10",
    "--radius": "1",
    "--eps": "0.1",
    "--prompt-tokens": "20",
    "--tokens": "1",
}


def typed(**changes):
    options = USUAL | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return ["ceiling", *(part for option in options.items() for part in option)]


def test_json(call):
    ended = call(*typed(), "--json")
    assert (ended.code, ended.err) == (0, "")
    told = json.loads(ended.out)
    published, corrected = told["published"], told["corrected"]
    assert f"{published['kappa']:.2f}" == "4.74"
    assert f"{corrected['kappa']:.2f}" == "3.16"
    for bound in (published, corrected):
        assert bound["threshold_pairs"] == pytest.approx(bound["kappa"] * 20, rel=1e-15)
    assert f"{corrected['delta']:.4f}" == "0.0462"
    assert corrected["kappa_lower"] <= corrected["kappa"]
    assert corrected["first_pairs_excluded"] == told["pairs"] == 64
    assert corrected["proportion"]["log10"] < 0 < published["proportion"]["log10"]
    assert told["counting"][0]["prompts"] == "float32"
    assert (told["winner"], told["excluded"]) == ("corrected", True)


def test_text(call):
    ended = call(*typed(pairs="1000", vocabulary="50257"))
    assert (ended.code, ended.err) == (0, "")
    for words in ("4.73747", "94.7494", "3.15836", "63.1671", "float32", "50257", "k = 1,000"):
        assert words in ended.out
    assert "counting (vocabulary of 50257 tokens)" in " ".join(ended.out.split())


@pytest.mark.parametrize(
    ("changes", "corrected"),
    [
        ({"eps": "3/10"}, "5.687"),
        ({"eps": "1e-2"}, "1.943"),
        ({"eps": "0.0001"}, "1.419"),
        ({"lipschitz": "1e4"}, "6.514"),
        ({"lipschitz": "1E+12", "eps": ".01"}, "7.799"),
        ({"lipschitz": "1e1000", "eps": "0.01"}, "502.718"),
        ({"radius": "10/3", "eps": "1/3"}, "3.158"),
    ],
)
def test_numbers_are_read_exactly(call, changes, corrected):
    told = json.loads(call(*typed(**changes), "--json").out)
    assert f"{told['corrected']['kappa']:.3f}" == corrected


def test_beyond_floats(call):
    told = json.loads(call(*typed(lipschitz="1e1000000"), "--json").out)
    assert told["corrected"]["kappa"] > 1e6
    assert told["winner"] == "float32"


def test_where_the_published_theorem_does_not_apply_or_is_false(call):
    told = json.loads(call(*typed(eps="0.4"), "--json").out)
    assert told["published"]["kappa"] is None
    assert told["published"]["threshold_pairs"] is None
    assert "r > 3 eps" in told["published"]["reason"]
    assert told["corrected"]["kappa"] > 0
    assert "r > 3 eps" in call(*typed(eps="0.4")).out
    told = json.loads(call(*typed(lipschitz="0.01"), "--json").out)
    assert told["published"]["false_here"]
    assert told["corrected"]["one_centre"]
    assert told["corrected"]["first_pairs_excluded"] == 1
    assert "constant maps refute it" in call(*typed(lipschitz="0.01")).out


def test_the_frobenius_norm_costs_the_root_of_the_length(call):
    frobenius = json.loads(call(*typed(prompt_tokens="25", norm="frobenius"), "--json").out)
    larger = json.loads(call(*typed(prompt_tokens="25", lipschitz="50"), "--json").out)
    assert frobenius["corrected"]["kappa"] == larger["corrected"]["kappa"]
    assert frobenius["published"]["kappa"] < larger["published"]["kappa"]


@pytest.mark.parametrize("changes", [{}, {"lipschitz": "1e30"}, {"vocabulary": "100"}])
def test_the_certificate_is_good(call, here, changes):
    assert call(*typed(out="ceiling.json", **changes)).code == 0
    ended = call("check", "ceiling.json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("ok: of all lists of ")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"radius": "0"}, "--radius must be a finite number above 0"),
        ({"radius": "-1"}, "--radius"),
        ({"radius": "inf"}, "--radius"),
        ({"radius": "nan"}, "--radius"),
        ({"radius": "1_0"}, "--radius"),
        ({"eps": "1"}, "--eps must be below the radius of the targets, 1"),
        ({"eps": "1/0"}, "--eps"),
        ({"eps": ""}, "--eps"),
        ({"eps": "."}, "--eps"),
        ({"eps": "١"}, "--eps"),
        ({"eps": "0." + "1" * 500}, "--eps must be written in at most 200 characters"),
        ({"eps": "1e-5000"}, "--eps"),
        ({"lipschitz": "0"}, "--lipschitz"),
        ({"lipschitz": "0e5"}, "--lipschitz"),
        ({"lipschitz": "1e1000001"}, "--lipschitz"),
        ({"lipschitz": "1e99999999999"}, "--lipschitz"),
        ({"dim": "-5"}, "--dim must be a whole number"),
        ({"dim": "1e3"}, "--dim"),
        ({"prompt_tokens": "0"}, "--prompt-tokens"),
        ({"tokens": "9" * 5000}, "--tokens"),
        ({"pairs": "0"}, "--pairs"),
        ({"norm": "max"}, "--norm"),
        ({"storage": "float33"}, "--storage"),
        ({"vocabulary": "1"}, "--vocabulary must be a whole number from 2"),
        ({"prompt_radius": "x"}, "--prompt-radius"),
        ({"out": "."}, "--out"),
    ],
)
def test_bad_input_is_one_line(call, changes, words):
    ended = call(*typed(**changes))
    ended.says(2, words)
    assert len(ended.err) < 500


def test_the_largest_sizes_end(call):
    most = "1000000000"
    ended = call(*typed(dim=most, prompt_tokens=most, tokens=most, pairs=most), "--json")
    assert ended.code == 0


def test_it_needs_nothing_heavy():
    code = (
        "import sys\n"
        "from promptlimits.cli.main import main\n"
        f"sys.argv = ['promptlimits', *{typed()}]\n"
        "try:\n    main()\n"
        "except SystemExit as ending:\n    assert not ending.code\n"
        "heavy = {'torch', 'transformers', 'scipy', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


SMALL = {"dim": "3", "prompt_tokens": "4"}


def test_text_rounds_upper_limits_up_and_says_when_a_share_says_nothing(call):
    shown = call(*typed(**SMALL, pairs="13")).out
    assert json.loads(call(*typed(**SMALL, pairs="13"), "--json").out)["corrected"]["proportion"][
        "log10"
    ] == pytest.approx(-0.921567, abs=1e-6)
    assert "10^-0.9215" in shown
    assert "10^-0.9216" not in shown
    many = call(*typed(pairs="1")).out
    assert many.count("says nothing") == 3
    assert "10^" not in many.split("Best delta")[0]


def test_the_limit_falls_not_the_share(call):
    said = " ".join(call(*typed(dim="1", prompt_tokens="2", pairs="3")).out.split())
    assert "With each pair more the limit on the share falls by a factor of at least" in said
    assert "10^0.5311" in said  # rounded down


def test_the_published_theorem_is_not_for_tokens_in_balls_with_frobenius(call):
    case = typed(dim="1", lipschitz="1/30", prompt_tokens="49", pairs="1", norm="frobenius")
    told = json.loads(call(*case, "--json").out)["published"]
    assert not told["false_here"]
    assert "not proved for tokens in balls" in told["reason"]
    assert "not proved for tokens in balls" in " ".join(call(*case).out.split())


@pytest.mark.parametrize(("radius", "eps"), [("1e400", "1e399"), ("1e-400", "1e-401")])
def test_radii_beyond_floats(call, here, radius, eps):
    case = typed(**SMALL, radius=radius, eps=eps, out="c.json")
    told = json.loads(call(*case, "--json").out)
    usual = json.loads(call(*typed(**SMALL), "--json").out)
    assert told["corrected"]["kappa"] == usual["corrected"]["kappa"]
    assert isinstance(usual["corrected"]["delta"], float)
    power = {"1e400": "+398", "1e-400": "-402"}[radius]
    assert told["corrected"]["delta"].startswith("4.617")
    assert told["corrected"]["delta"].endswith(f"e{power}")
    assert f"Best delta at the threshold: 4.618e{power}" in call(*case).out
    assert call("check", "c.json").code == 0


def test_constants_far_below_floats_are_met(call):
    told = json.loads(call(*typed(lipschitz="1e-1000000"), "--json").out)
    assert told["corrected"]["kappa"].endswith("e-1000000")
    assert told["published"]["kappa"] < -1e6


def test_certificates_of_wide_nets(call, here):
    assert call(*typed(**SMALL, radius="1e12", eps="1e11", out="c.json")).code == 0
    assert call("check", "c.json").out.startswith("ok: ")
