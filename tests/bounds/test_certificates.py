"""Certificates of every kind: right ones pass, and whatever is made stronger is refused."""

import copy
import json
import os
from fractions import Fraction
from importlib import import_module
from random import Random

import pytest
from tests.bounds.certificates import CASES, plain

from promptlimits import checker
from promptlimits.base.errors import PromptLimitsError, UserError
from promptlimits.bounds.core import KINDS
from promptlimits.certificates import THEOREMS, check_certificate, checked

MANY = int(os.environ.get("PROMPTLIMITS_CERTIFICATES", "12"))
"""Random certificates of each kind; every one is checked some ten times."""

FROM_WEIGHTS = "transformer_lipschitz"

every_kind = pytest.mark.parametrize("kind", sorted(CASES))


def test_every_theorem_has_a_checker_and_cases():
    for module in THEOREMS.values():
        import_module(module)
    named = {kind for kind, theorem in KINDS.items() if theorem.__module__.startswith("promptl")}
    # Its limit is proved from weights alone: tests/checker/test_ellipsoid.py.
    assert named == THEOREMS.keys() == checker.KINDS.keys() == CASES.keys() | {FROM_WEIGHTS}


def steps(value):
    """A number one unit up and down in its last place; those of a list one at a time."""
    if isinstance(value, int) and not isinstance(value, bool):
        yield from (value - 1, value + 1)
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from ([*value[:place], other, *value[place + 1 :]] for other in steps(part))
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from (value | {name: other} for other in steps(part))


def altered(certificate):
    """The certificate with one derived number changed by one unit."""
    for name, value in certificate["value"].items():
        for other in steps(value):
            yield certificate | {"value": certificate["value"] | {name: other}}


def require_exact(certificate):
    """It is checked, it is the one of its inputs, and none of its numbers can be altered."""
    checker.check(certificate)
    theorem = KINDS[certificate["kind"]].model_validate(certificate["inputs"])
    assert plain(theorem) == certificate
    for other in altered(certificate):
        with pytest.raises((checker.Refuted, ValueError)):
            checker.check(other)


@every_kind
def test_certificates_are_exact(kind):
    random = Random(kind)
    for _ in range(MANY):
        require_exact(plain(CASES[kind](random)))


@every_kind
def test_the_claim_and_what_it_rests_on_are_made_of_the_numbers(kind):
    theorem = CASES[kind](Random(1))
    said = checked(plain(theorem))
    assert said.statement == theorem.claim(theorem.value())
    unproved = "not checked against a model: " * said.about_a_model
    assert check_certificate(plain(theorem)) == unproved + said.statement
    assert said.assumptions == theorem.rests_on() != ()
    assert "{" not in said.statement + "".join(said.assumptions)


@every_kind
def test_a_certificate_holds_numbers_and_names_no_module(kind):
    certificate = plain(CASES[kind](Random(2)))
    assert certificate.keys() == {"schema", "kind", "inputs", "value"}
    text = json.dumps(certificate)
    assert "promptlimits" not in text
    assert len(text) < (2000 if kind != "model_ceiling" else 5000)


@every_kind
def test_inputs_are_of_their_types_and_in_their_one_form(kind):
    certificate = plain(CASES[kind](Random(3)))
    for name, value in certificate["inputs"].items():
        for other in (None, 1.5, [value], float("nan"), f"{value} ", f"0{value}", "٣"):
            with pytest.raises(UserError, match=r"be a .*certificate as promptlimits writes it"):
                check_certificate(certificate | {"inputs": certificate["inputs"] | {name: other}})


def missing_or_more(record):
    yield record | {"more": 1}
    yield from ({k: v for k, v in record.items() if k != name} for name in record)


@every_kind
def test_keys_are_exact(kind):
    certificate = plain(CASES[kind](Random(4)))
    others = list(missing_or_more(certificate))
    for part in ("inputs", "value"):
        others += [certificate | {part: other} for other in missing_or_more(certificate[part])]
    for schema in (0, 2, "1", 1.0, True, None):
        others.append(certificate | {"schema": schema})
    for other in others:
        with pytest.raises(PromptLimitsError):
            check_certificate(other)


@pytest.mark.parametrize(
    "other", [None, [], {}, "x", 3, {"kind": "nothing"}, {"kind": ["counting"]}, {"kind": 1.0}]
)
def test_what_is_no_certificate_is_a_users_error(other):
    with pytest.raises(UserError, match="the certificate must be a certificate"):
        check_certificate(other)


@every_kind
def test_values_of_another_type_are_refused(kind):
    certificate = plain(CASES[kind](Random(5)))
    for name, value in certificate["value"].items():
        others = (float(10**6), True, str(value), [value], {}, None if value is not None else 0)
        for other in others:
            changed = copy.deepcopy(certificate)
            changed["value"][name] = other
            with pytest.raises(PromptLimitsError):
                check_certificate(changed)


LONG = Fraction(1, 10**5000)  # no decimals that Python would write
CHANGES = {
    "counting": {"share": LONG, "values": 10**5000},
    "vector_counting": {"values": 10**5000, "per_token": True},
    "prompt_capacity": {"least_deviation": LONG},
    "whole_output_capacity": {"eps": LONG, "choice": None},
    "short_prompt_capacity": {"spread": LONG, "choice": None},
    "last_tokens_capacity": {"eps": LONG, "parts": None},
    "washout": {"prompt_tokens": 10**5000},
}


@pytest.mark.parametrize("kind", CHANGES)
def test_numbers_of_any_length_are_put_into_words(kind):
    theorem = CASES[kind](Random(6))
    inputs = dict(theorem) | CHANGES[kind]
    longer = type(theorem)(**{name: v for name, v in inputs.items() if v is not None})
    said = checked(plain(longer))
    assert "0x" in said.statement + "".join(said.assumptions)


@pytest.mark.parametrize("kind", ["prompt_capacity", "vector_counting"])
def test_a_claim_about_targets_rests_on_its_assumptions(kind):
    said = checked(plain(CASES[kind](Random(7)))).statement
    assert "; under the assumptions that it states" in said
    assert (", with L = " in said) is (kind == "prompt_capacity")


@pytest.mark.parametrize("kind", ["last_tokens_capacity", "washout"])
def test_many_layers_are_refused_at_once(kind):
    """A product of exact numbers over all layers would take hours: that it ends is the test."""
    certificate = plain(CASES[kind](Random(8)))
    for count in (300, 1001):
        layers = certificate["inputs"]["layers"][:1] * count
        with pytest.raises((checker.Refuted, ValueError), match=r"is not|too long"):
            checker.check(certificate | {"inputs": certificate["inputs"] | {"layers": layers}})
