"""`promptlimits bracket --pairs text:FILE` says how many tokens are held, and `verify` agrees."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.capacity.witness.test_witness_forged import sign
from tests.capacity.witness.witness_cases import edit

Call = Callable[..., Any]

TEXT = "the dog and the cat: one two three of the big red house and then\n"
BRACKET = (
    *("bracket", "--model", "tiny", "--pairs", "text:story.txt", "--out", "out"),
    *("--prompt-tokens", "2", "--learning-rate", "0.3", "--max-steps", "30"),
    *("--first-size", "2", "--budget", "1e6"),
)
# With it nothing is ever found: nothing is verified.
HOPELESS = ("--learning-rate", "1e-6", "--max-steps", "2", "--no-control")


@pytest.fixture(autouse=True)
def story(here, model):
    (here / "story.txt").write_text(TEXT, encoding="utf-8")


@pytest.mark.slow  # three fresh processes that decode with stock tools
def test_the_record_the_terminal_and_the_witness_say_the_same(call, here):
    ended = call(*BRACKET, "--json")
    assert ended.code == 0
    record = json.loads(ended.out)
    (bracket,) = record["brackets"]
    held, of = bracket["floor"]["tokens"], record["task"]["text_tokens"]
    assert 2 <= held < of
    assert "2 of 2 tokens exact after" in ended.err
    assert (
        f"2 prompt tokens: {held} of {of} tokens found and confirmed, from the first on"
        in ended.err
    )
    said = " ".join(call(*BRACKET).out.split())
    assert f"{held} of {of} tokens of the text held exactly, from the first one on (found" in said
    assert "has ended before: its result follows" in call(*BRACKET).err
    assert f"of {of} tokens, from the first one on," in (here / "out" / "report.html").read_text()

    witness = bracket["floor"]["witness"]
    checked = call("verify", f"out/{witness}", "--model", "tiny")
    assert checked.code == 0
    assert checked.out.startswith(f"the first {held} tokens of the text exact, no end marker asked")

    def lengthen(document):
        (pair,), (answer,) = document["pairs"], document["verification"]["answers"]
        pair["value_ids"] += pair["value_ids"][:1]
        answer["generated_ids"] = pair["value_ids"]

    edit(here / "out" / witness, "witness.json", lengthen)
    sign(here / "out" / witness)
    forged = call("verify", f"out/{witness}", "--model", "tiny", "--json")
    assert forged.code == 1
    assert json.loads(forged.out)["beginning"] is True
    assert json.loads(forged.out)["lost"] == 1


def test_a_text_of_which_nothing_is_held_says_so(call):
    ended = call(*BRACKET, *HOPELESS)
    said = " ".join(ended.out.split())
    assert ended.code == 0
    assert "no prompt was confirmed to hold the first of the" in said
    assert "soft P=2: 0 of 1 token exact after 2 steps" in ended.err


def test_a_fit_of_a_text_is_about_the_whole_of_it(call, here):
    fit = ("fit", "--model", "tiny", "--pairs", "text:story.txt", "--out", "fitted", *HOPELESS)
    ended = call(*fit, "--json")
    record = json.loads(ended.out)
    assert (ended.code, record["pairs"]) == (1, 0)
    assert record["text_tokens"] > 10
    said = call(*fit).out
    assert f"the {record['text_tokens']} tokens of the text: not held as a whole" in said
    assert "of 1 pairs" not in said
