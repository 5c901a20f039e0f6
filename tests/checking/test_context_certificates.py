"""Certificates of Theorems 2a, 2b, 2c and W: nothing altered passes, even sealed again."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
from tests.checking.altered import alterations, assert_all_refused, sealed_again

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.checking import context_capacity, washout
from promptlimits.theory.last_tokens_capacity import last_tokens_capacity
from promptlimits.theory.layer_constants import LayerConstants
from promptlimits.theory.washout import washout as theorem_w
from promptlimits.theory.whole_output_capacity import short_prompt_capacity, whole_output_capacity

LAYERS = [
    LayerConstants(
        radius=Fraction(3, 2), mlp_lipschitz=Fraction(5, 4), heads=((1, Fraction(1, 3)), (2, 1))
    ),
    LayerConstants(radius=9, mlp_lipschitz=2, heads=((Fraction(1, 7), Fraction(1, 90)),)),
]
SIZES: dict[str, Any] = {
    "dim": 4, "lipschitz": 3, "radius": 1, "eps": Fraction(1, 100), "order": 2
}  # fmt: skip


def records() -> dict[str, tuple[Any, Any]]:
    found = {
        "2a": whole_output_capacity(**SIZES),
        "2a many": whole_output_capacity(**(SIZES | {"dim": 40}), cover="rogers"),
        "2b": short_prompt_capacity(**(SIZES | {"dim": 2}), tokens=3),
        "2c": last_tokens_capacity(dim=8, layers=LAYERS, eps=Fraction(1, 10), tokens=2),
    }
    plain = {
        name: (context_capacity.check, json.loads(json.dumps(made.certificate.to_json())))
        for name, made in found.items()
    }
    made = theorem_w(layers=LAYERS, query_tokens=4, prompt_tokens=1000).certificate
    return plain | {"W": (washout.check, json.loads(json.dumps(made.to_json())))}


RECORDS = records()


def test_each_certificate_is_taken_and_says_what_it_claims() -> None:
    for name, (check, record) in RECORDS.items():
        assert f"Theorem {name[:2].strip()}" in check(record)


# Some two thousand altered records for each certificate, every one of them checked.
@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDS)
def test_nothing_altered_passes(name: str) -> None:
    check, record = RECORDS[name]
    assert_all_refused(
        check, record, excused=lambda change: change.path[:2] == ("inputs", "masked")
    )
    # Even the last digits of a limit: it is the one point of its grid.
    for change in alterations(record, sealed=True):
        if change.path[-1:] == ("mantissa",):
            with pytest.raises((RunFailed, UserError)):
                check(change.record)


def test_a_single_layer_needs_no_mask() -> None:
    """The one field that may change: Theorem 2c gives one layer the same limit without a mask."""
    made = last_tokens_capacity(dim=8, layers=LAYERS[:1], eps=Fraction(1, 10)).certificate.to_json()
    made["inputs"] = dict(made["inputs"]) | {"masked": False}  # type: ignore[arg-type]
    assert "one-layer" in context_capacity.check(sealed_again(made))


def test_theorem_2b_says_how_long_and_how_far_apart_its_queries_are() -> None:
    """K rests on both: 10^0.000 for near queries, 10^7.1 for far ones."""
    sizes = SIZES | {"lipschitz": 100, "tokens": 16}
    said = {}
    for spread in (Fraction(1, 10**9), None):
        record = short_prompt_capacity(**sizes, spread=spread).certificate.to_json()
        said[spread] = context_capacity.check(record)
        bound: Any = record["bound"]
        texts = [assumption["text"] for assumption in bound["assumptions"]]
        distance = 2 if spread is None else spread
        assert texts[-1] == (
            f"Each query has 16 tokens, and W_2 between any two of them is at most {distance}."
        )
        assert f"queries of 16 tokens within {distance} of each other" in said[spread]
        assert "with L = 100" in said[spread]
    (near, far) = said.values()
    assert near.partition(" than K = ")[0] != far.partition(" than K = ")[0]
    record = short_prompt_capacity(**sizes).certificate.to_json()
    bound = record["bound"]
    bound["assumptions"] = bound["assumptions"][:-1]
    with pytest.raises(RunFailed):
        context_capacity.check(sealed_again(record))
