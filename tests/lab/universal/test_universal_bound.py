"""The proved limit: closed form, laws, and what the network does with the worst tables.

Prompt lengths that suffice and that are needed, for one class of maps.
"""

import math
from fractions import Fraction

import numpy as np
import pytest

from promptlimits.base.errors import UserError
from promptlimits.lab.universal.universal import off_ramps, prompt_of
from promptlimits.lab.universal.universal_bound import (
    MOST_TOKENS,
    POINTER,
    ZETA,
    FunctionClass,
    TableShape,
    as_float_above,
    choose_shape,
    exceptional_measure,
    least_cells,
    prompt_lengths,
    prompt_tokens,
    universal_bound,
)
from promptlimits.lab.universal.value_table import answers, table_network


def function_class(**changed):
    given = {
        "dim": 1,
        "tokens": 1,
        "lipschitz": Fraction(3, 2),
        "eps": Fraction(1, 20),
    }
    return FunctionClass(**{**given, **changed})


@pytest.mark.parametrize(
    ("dim", "tokens", "exponent"), [(1, 1, None), (2, 1, None), (1, 2, 2), (3, 1, 1)]
)
def test_closed_form(dim, tokens, exponent):
    target = function_class(dim=dim, tokens=tokens, exponent=exponent, eps=Fraction(1, 4))
    shape = TableShape(cells=9, ramp=Fraction(1, 2**10), sharpness=8)
    length = tokens * 9 ** (dim * tokens) + tokens
    drift = length**2 * math.exp(-POINTER)
    tail = 2 * sum(math.exp(-8 * (1 - 2 * drift) * r * r) for r in range(1, 5))
    tail += tokens * math.exp(16 * drift * length - POINTER)
    ones = (dim * tokens) ** (1 / exponent) if exponent else 1.0
    simple = ones * (1.5 * (1 / 18 + 2.0**-44) + tail)
    bound = universal_bound(target, shape)
    # The closed sum of the tail is above the tail by less than a part in exp(-3 * 8).
    assert simple * (1 - 1e-12) <= as_float_above(bound.sup_error) <= simple * (1 + 1e-9)
    left_out = 1 - (1 - 8 * (2.0**-10 + 2 * 2.0**-44)) ** (dim * tokens)
    assert float(bound.exceptional_measure) == pytest.approx(left_out, rel=1e-12)
    assert (bound.mean_error is None) == (exponent is None)
    if exponent and bound.mean_error is not None:
        mean = (simple**exponent + dim * tokens * left_out) ** (1 / exponent)
        assert as_float_above(bound.mean_error) == pytest.approx(mean, rel=1e-9)


@pytest.mark.parametrize("eps", ["1/3", "1/20", "1/1000", "1/1000000"])
def test_the_least_table_meets_the_precision(eps):
    target = function_class(eps=Fraction(eps))
    shape = choose_shape(target)
    assert as_float_above(universal_bound(target, shape).sup_error) <= float(Fraction(eps))
    # L/(2 N) alone needs so many cells; the leak costs one part in 128 at most.
    needed = float(target.lipschitz / (2 * target.eps))
    assert needed <= shape.cells <= math.ceil(needed * 128 / 127 * 1.001)
    assert exceptional_measure(target, shape) <= Fraction(1, 10**6)


def test_more_precision_takes_more_cells():
    cells = [least_cells(function_class(eps=Fraction(1, 2**k)))[0] for k in range(1, 20)]
    assert cells == sorted(set(cells))
    steeper = [least_cells(function_class(lipschitz=k))[0] for k in range(1, 9)]
    assert steeper == sorted(set(steeper))


def test_what_is_refused():
    with pytest.raises(UserError, match="eps must be above 0"):
        function_class(eps=0)
    with pytest.raises(TypeError, match="must be an"):
        function_class(eps=0.05)
    with pytest.raises(UserError, match="exponent must be 1 or more"):
        function_class(exponent=Fraction(1, 2))
    with pytest.raises(UserError, match="resolves"):
        choose_shape(function_class(eps=Fraction(1, 10**30)))
    with pytest.raises(UserError, match=r"got 10\^19\d\.\d tokens"):
        prompt_tokens(function_class(dim=10, tokens=10), 90)
    with pytest.raises(UserError, match=r"got 75,000,\d+ tokens"):
        prompt_tokens(function_class(), 75_000_001)
    with pytest.raises(UserError, match="ramp must be a power of two"):
        choose_shape(function_class(), ramp=Fraction(1, 1000))
    assert prompt_tokens(function_class(), MOST_TOKENS) == MOST_TOKENS


@pytest.mark.parametrize(("dim", "tokens"), [(1, 1), (2, 1), (1, 2)])
def test_the_worst_table_leaks_what_is_proved_and_hardly_less(dim, tokens):
    target = function_class(dim=dim, tokens=tokens, lipschitz=1, eps=Fraction(1, 4))
    network = table_network(target)
    cells = network.prompt_tokens // tokens
    middle = cells // 2
    values = np.ones((cells, dim, tokens))
    values[middle] = 0
    shape = (network.shape.cells,) * target.numbers
    place = np.array(np.unravel_index(middle, shape))[::-1]
    inputs = ((place + 0.5) / network.shape.cells).reshape(tokens, dim).T[None]
    found = answers(network, prompt_of(network, values), inputs)
    leak = as_float_above(network.bound.sup_error) - float(
        target.lipschitz * (Fraction(1, 2 * network.shape.cells) + ZETA)
    )
    assert found.max() <= leak * (1 + 1e-9)
    if tokens == 1:  # else half of the neighbours of a token's entry belong to the same cell
        assert found.max() >= 0.99 * leak


def test_the_exceptional_set_is_where_digits_fail_and_as_large_as_stated():
    target = function_class(dim=2, lipschitz=1, eps=Fraction(1, 8))
    network = table_network(target, ramp=Fraction(1, 2**8))
    cells = network.shape.cells
    generator = np.random.default_rng(5)
    values = generator.integers(0, 2, (cells**2, 2, 1)).astype(float)
    inputs = generator.random((40_000, 2, 1))
    kept = off_ramps(network, inputs)
    stated = float(network.bound.exceptional_measure)
    share = 1 - kept.mean()
    deviation = math.sqrt(stated * (1 - stated) / len(inputs))
    assert abs(share - stated) <= 4 * deviation
    digits = np.floor(inputs[:, :, 0] * cells).astype(int)
    wanted = values[digits[:, 0] + cells * digits[:, 1]]
    wrong = np.abs(answers(network, prompt_of(network, values), inputs) - wanted).max(axis=(1, 2))
    assert wrong[kept].max() <= 1e-3
    # It could not be stated much smaller: on a ramp most entries of a random table go wrong.
    assert (wrong[~kept] > 1e-3).mean() > 0.5
    assert wrong.max() <= 1 + 1e-12  # still a mix of entries


def lengths(dim=1, tokens=1, *, eps, p=2):
    return prompt_lengths(
        FunctionClass(dim=dim, tokens=tokens, lipschitz=1, eps=Fraction(eps), exponent=p)
    )


def test_the_footnote():
    """d = 768, C = 1, alpha = 2, eps = 30, two tokens: 10^640 suffice there; none is needed."""
    found = lengths(768, 2, eps="30")
    assert found.sufficient.upper_log10() == pytest.approx(640.97, abs=0.01)
    single = lengths(768, 1, eps="30")
    assert single.sufficient.upper_log10() == pytest.approx(204.7, abs=0.05)
    # All inputs are within sqrt(1536)/2 < 30 of the middle: a constant answer is good enough.
    assert found.necessary_log10 is None


@pytest.mark.parametrize(
    ("dim", "p", "eps", "needed"),
    [
        (1, 2, "1/2", False),
        (1, 2, "49/100", True),
        (4, 2, "1", False),
        (4, 2, "99/100", True),
        (4, 1, "2", False),
        (4, 1, "199/100", True),
        (1536, 2, "2000", False),
    ],
)
def test_a_prompt_is_needed_below_half_of_the_diameter_only(dim, p, eps, needed):
    # The constants 0 and 1 are dim^(1/p) apart; the constant 1/2 is in the middle.
    assert lengths(dim, eps=eps, p=p).necessary_log10 == (0 if needed else None)


@pytest.mark.parametrize(
    ("dim", "tokens", "eps"), [(1, 1, "1/20"), (1, 1, "1/1000"), (2, 1, "1/5")]
)
def test_what_is_needed_is_below_what_is_built(dim, tokens, eps):
    network = table_network(
        FunctionClass(dim=dim, tokens=tokens, lipschitz=1, eps=Fraction(eps), exponent=2)
    )
    needed = lengths(dim, tokens, eps=eps).necessary_log10
    assert needed is not None
    assert 0 <= needed <= math.log10(network.prompt_tokens)


@pytest.mark.parametrize("eps", ["1/1" + "0" * 40, "1/1" + "0" * 400])
def test_precisions_of_any_size(eps):
    found = lengths(3, 2, eps=eps)
    assert found.necessary_log10 is not None
    assert 200 < found.necessary_log10 < found.sufficient.upper_log10() < math.inf


def test_the_norm_needs_an_exponent():
    with pytest.raises(UserError, match="exponent must be a number"):
        prompt_lengths(FunctionClass(dim=1, tokens=1, lipschitz=1, eps=Fraction(1, 2)))
