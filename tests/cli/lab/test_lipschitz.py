"""`promptlimits lipschitz` through the entry point."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from tests.report.conftest import sample_record

from promptlimits.bounds.prompt_capacity import PromptCapacity
from promptlimits.cli.lab.weights_options import Transformer
from promptlimits.lipschitz import estimate
from promptlimits.lipschitz.estimate import states_behind
from promptlimits.nets.load.stock import load_stock
from promptlimits.testing.tiny_models import tiny_causal_lm

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
    # From the prompt to the outputs behind it, each sharper than the one before.
    limits = told["proved"]
    assert told["measured"] == by_prompt
    assert told["measured"] <= limits["ellipsoid"] <= limits["ours"]
    assert limits["ellipsoid"] == told["constants"][1]["proved_log10"]["ellipsoid"]
    assert limits["published"] == told["constants"][2]["proved_log10"]["published-frobenius"]
    assert told["measured"] <= limits["published"] + math.log10(3) / 2
    pairs = told["K"]
    guess = told["K_estimated_from_measured"]
    assert guess < pairs["ellipsoid"] < pairs["ours"] < pairs["published"]
    assert (told["reasons"], told["observed"]) == ({}, None)
    for name, size in limits.items():
        theorem = PromptCapacity(
            dim=4,
            lipschitz=Fraction(10**size),
            radius=1,
            eps=Fraction(1, 10),
            prompt_tokens=3,
            tokens=2,
            norm="frobenius" if name == "published" else "token",
        )
        assert math.floor(pairs[name]) == theorem.most_pairs()
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
    # All outputs are near those of one prompt: not one target anywhere is always in reach.
    assert told["K"]["ours"] == told["K"]["ellipsoid"] == 0
    assert told["constants"][0]["least_proved_log10"] == pytest.approx(0, abs=1e-5)


def test_a_slope_above_what_is_proved_is_an_error_and_no_result(call, monkeypatch):
    found = estimate.largest_jacobian_norm

    def steeper(*given, **named):
        return replace(found(*given, **named), value=100.0)

    monkeypatch.setattr(estimate, "largest_jacobian_norm", steeper)
    ended = call("lipschitz", "--random", "d=2,h=1,layers=1,f=0")
    ended.says(1, "a constant of 10^2.0000 was found above one that is proved")


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_language_model_needs_no_choice_of_attention(call, here, family):
    tiny_causal_lm(here / "small", family, dim=8, layers=1, heads=2)
    sizes = ("--tokens", "3", "--prompt-tokens", "2", "--radius", "1/2", "--quiet")
    ended = call("lipschitz", "small", *sizes, "--json")
    assert (ended.code, ended.err) == (0, "")
    told = json.loads(ended.out)
    assert told["measured"] <= told["proved"]["ours"]
    assert told["K_estimated_from_measured"] < told["K"]["ours"]
    for name in ("published", "ellipsoid"):
        assert (told["proved"][name], told["K"][name]) == (None, None)
        assert "normalisation" in told["reasons"][name]
    # The witness: a step along its direction moves a state that much, in stock code.
    point, direction = (
        torch.tensor(told["witness"][part], dtype=torch.float64).mT[None]
        for part in ("point", "direction")
    )
    assert max(point.norm(dim=1).max() * 2, direction.norm(dim=1).max()) <= 1 + 1e-6
    model = load_stock("./small", dtype=torch.float64, allow_hub=False).model
    assert model.config._attn_implementation == "sdpa"
    states = states_behind(model, torch.tensor(told["input_ids"]))
    ahead, behind = (states(point + sign * 1e-6 * direction) for sign in (1, -1))
    moved = (ahead - behind).norm(dim=1).max() / 2e-6
    assert moved.log10().item() == pytest.approx(told["measured"], abs=1e-3)


def test_a_family_whose_blocks_are_not_known_is_measured_alone(call, here):
    tiny_causal_lm(here / "small", "gpt_neo", dim=8, layers=1, heads=2)
    ended = call("lipschitz", "small", "--tokens", "2", "--prompt-tokens", "1", "--quiet")
    assert (ended.code, ended.err) == (0, "")
    assert "an estimate, not proved" in ended.out
    assert ended.out.count("  proved, ") == ended.out.count("none: ") == 3


def test_what_prompts_held_stands_beside(call, here):
    random = "d=2,h=1,layers=1,f=0"
    document = sample_record(held={2: 7})
    (here / "other.json").write_text(json.dumps(document))
    document["model"]["model_hash"] = Transformer(random=random).read().sha256()
    (here / "same.json").write_text(json.dumps(document))
    given = ("lipschitz", "--random", random, "--tokens", "4", "--prompt-tokens")
    told = json.loads(call(*given, "2", "--observed", "same.json", "--json").out)
    assert (told["observed"]["held"], told["observed"]["unit"]) == (7, "pairs")
    call(*given, "2", "--observed", "other.json").says(2, "--observed must be about the same")
    call(*given, "3", "--observed", "same.json").says(2, "--observed must hold soft prompts of 3")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--prompt-tokens", "8"], "--prompt-tokens must be fewer than the 8 of --tokens, got 8"),
        (["--radius", "0"], "--radius must be"),
        (["--effort", "long"], "--effort must be one of quick, full, got 'long'"),
        (["--eps", "1"], "--eps must be below the radius of the targets, got 1 with a radius of 1"),
        (["--observed", "none.json"], "--observed must be a file of JSON that can be read"),
        (["small"], "the transformer must be given by one of MODEL, --random and --weights"),
        (["--tokens", "257"], "--tokens must be at most 256"),
    ],
)
def test_bad_input(call, given, message):
    ended = call("lipschitz", "--random", "d=2,h=1,layers=1", *given)
    assert ended.code == 2
    assert message in ended.err
