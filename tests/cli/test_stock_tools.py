"""What the command line says of stock tools that do not fit each other, and of what they lose."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from promptlimits.capacity.witness import stock
from promptlimits.capacity.witness.stock import KEYS, StockCheck
from promptlimits.nets.protocol import PromptKind

Call = Callable[..., Any]

TRAINING = ("--model", "tiny", "--out", "out", "--quiet", "--learning-rate", "0.3", "--no-control")
RANDOM = ("--pairs", "random:3", "--prompt-tokens", "4")


@pytest.fixture
def bad_prefixes(monkeypatch):
    """Tools that decode behind a soft prompt as they should, and not behind a prefix."""

    def check(kind):
        return StockCheck(kind=kind, alike=len(KEYS) if kind is PromptKind.SOFT else 1)

    monkeypatch.setattr(stock, "check_stock_tools", check)


@pytest.fixture
def losing(monkeypatch):
    """Stock tools that keep so many of the pairs."""
    from promptlimits.capacity import floor
    from promptlimits.capacity.witness import fresh_process
    from promptlimits.capacity.witness.format import write_verification
    from promptlimits.capacity.witness.verify import verify_witness

    kept = {"pairs": 0}

    def confirm(directory, verifier, *, on_progress):
        found = verify_witness(directory, model_path=verifier.model_path)
        held = [one.exact and index < kept["pairs"] for index, one in enumerate(found.answers)]
        answers = tuple(
            one.model_copy(update={"exact": exact, "counted": exact})
            for one, exact in zip(found.answers, held, strict=True)
        )
        found = found.model_copy(update={"answers": answers, "pairs_exact": sum(held)})
        write_verification(directory, found)
        return found

    monkeypatch.setattr(floor, "confirm", confirm)
    monkeypatch.setattr(fresh_process.Verifier, "start", lambda _verifier: None)
    return kept


def test_doctor_decodes_with_the_tools_that_are_here(call):
    ended = call("doctor")
    assert ended.code == 0, ended.out
    for kind in ("soft", "prefix"):
        line = f"ok   stock decoding, {kind}: {len(KEYS)} of {len(KEYS)} keys answered alike by "
        assert line in ended.out
    assert "ok   float32 products: " in ended.out
    assert "ok   bfloat16 products: " in ended.out
    assert "times float32 when first measured at width 576" in ended.out


def test_doctor_fails_with_tools_that_do_not_decode(call, bad_prefixes):
    ended = call("doctor")
    assert ended.code == 1
    (line,) = [line for line in ended.out.splitlines() if line.startswith("FAIL")]
    assert line.startswith(f"FAIL stock decoding, prefix: 1 of {len(KEYS)} keys")
    assert " -> " in line


def test_doctor_fails_with_a_version_that_is_not_allowed(call, monkeypatch):
    import importlib.metadata

    asked = importlib.metadata.requires("promptlimits") or []
    others = [one for one in asked if not one.startswith("transformers")]
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda _name: [*others, "transformers<5.1,>=5.0"]
    )
    ended = call("doctor")
    assert ended.code == 1
    (line,) = [line for line in ended.out.splitlines() if line.startswith("FAIL")]
    assert ", where transformers>=5.0,<5.1 is allowed -> " in line
    assert line.endswith("-m pip install 'transformers>=5.0,<5.1'")


@pytest.mark.usefixtures("model", "bad_prefixes")
@pytest.mark.parametrize("command", ["bracket", "fit"])
def test_nothing_is_trained_for_a_kind_that_cannot_be_confirmed(command, call, here):
    call(command, *TRAINING, *RANDOM, "--kind", "prefix").says(2, "a KV prefix", "1 of 4 keys")
    assert not list(here.glob("out/*.json"))


@pytest.mark.slow  # trains a prompt for three pairs
@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("command", ["bracket", "fit"])
def test_a_floor_that_is_lost_altogether_ends_in_failure(command, call, here, losing):
    ended = call(command, *TRAINING, *RANDOM, "--json")
    assert ended.code == 1
    (line,) = ended.err.splitlines()
    assert "training held 3 pairs, stock tools confirmed none of them; a floor of 0 " in line
    assert "promptlimits doctor" in line
    record = json.loads((here / "out" / f"{command}.json").read_text(encoding="utf-8"))
    assert json.loads(ended.out) == record
    part = record["brackets"][0]["floor"] if command == "bracket" else record
    assert part["pairs"] == 0
    # Asked again, it does not say that all is done.
    again = call(command, *TRAINING, *RANDOM)
    assert (again.code, again.err) == (1, ended.err)


@pytest.mark.slow  # trains a prompt for three pairs
@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(("command", "code"), [("bracket", 0), ("fit", 1)])
def test_a_loss_of_some_is_a_warning_with_numbers(command, code, call, losing):
    losing["pairs"] = 2
    ended = call(command, *TRAINING, *RANDOM, "--json")
    assert ended.code == code
    (line,) = ended.err.splitlines()
    assert line.startswith("promptlimits: warning: soft prompt")
    assert line.endswith("training held 3 pairs, stock tools confirmed 2 of them")
