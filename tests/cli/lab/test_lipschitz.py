"""`promptlimits lipschitz` through the entry point."""

import json
from collections.abc import Callable
from typing import Any

import pytest

Call = Callable[..., Any]


@pytest.mark.parametrize("masked", [0, 1])
def test_what_is_found_lies_below_what_is_proved(call, masked):
    random = f"d=4,h=2,layers=2,scale=.7,seed=3,masked={masked}"
    given = ("lipschitz", "--random", random, "--tokens", "5", "--prompt-tokens", "3")
    told = json.loads(call(*given, "--json").out)
    assert (told["dim"], told["layers"], told["masked"]) == (4, 2, bool(masked))
    assert [set(each["proved_log10"]) for each in told["constants"]] == [
        {"token", "ellipsoid"},
        {"token-prompt", "ellipsoid"},
        {"frobenius", "published-frobenius"},
    ]
    for each in told["constants"]:
        assert each["least_proved_log10"] == min(each["proved_log10"].values())
        assert each["found_log10"] <= each["least_proved_log10"]
    steep, by_prompt, _ = (each["found_log10"] for each in told["constants"])
    assert by_prompt < steep
    # Running means expand W_q: nothing is claimed of measures under a mask.
    assert bool(told["measures_proved_log10"]) is (not masked)
    published = told["one_radius_as_published_not_proved_log10"]["published-frobenius"]
    assert published < told["constants"][2]["proved_log10"]["published-frobenius"]


def test_the_text_names_the_method_of_each_limit(call):
    text = call(
        "lipschitz", "--random", "d=2,h=1,layers=1", "--tokens", "2", "--prompt-tokens", "1"
    )
    assert (text.code, text.err) == (0, "")
    assert text.out.count("  proved  at most 10^") == 3
    assert text.out.count(", at an explicit point") == 3


def test_a_transformer_that_ignores_the_prompt_has_no_slope(call):
    told = json.loads(
        call("lipschitz", "--random", "d=2,h=1,layers=1,f=0,scale=1e-6", "--json").out
    )
    assert told["constants"][1]["found_log10"] < -10
    assert told["constants"][0]["least_proved_log10"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--prompt-tokens", "8"], "--prompt-tokens must be fewer than the 8 of --tokens, got 8"),
        (["--radius", "0"], "--radius must be"),
        (["--effort", "long"], "--effort must be one of quick, full, got 'long'"),
        (["--tokens", "257"], "--tokens must be at most 256"),
    ],
)
def test_bad_input(call, given, message):
    ended = call("lipschitz", "--random", "d=2,h=1,layers=1", *given)
    assert ended.code == 2
    assert message in ended.err
