"""Any Lipschitz map by a prompt: what is measured stays at or under what is proved."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from promptlimits.base.errors import UserError
from promptlimits.lab.universal.universal import (
    BUILT_IN,
    RealMap,
    entrywise_norm,
    measure_error,
    probes,
    universal_prompt,
)
from promptlimits.lab.universal.universal_bound import as_float_above

CASES = [
    (1, 1, None, Fraction(1, 30)),
    (2, 1, None, Fraction(1, 10)),
    (1, 2, 2, Fraction(1, 8)),
    (2, 1, 1, Fraction(1, 8)),
    (3, 1, 2, Fraction(1, 5)),
    (1, 3, None, Fraction(1, 8)),
]
FUNCTIONS = 10
POINTS = 4_000


def random_lipschitz(dim, tokens, exponent, lipschitz, seed):
    """Lower envelopes of cones of full slope, in every entry of the value.

    A value has d m entries of slope s each, so in the p-norm L = s (d m)^(1/p).
    """
    generator = np.random.default_rng(seed)
    numbers = dim * tokens
    slope = lipschitz / (numbers ** (1 / exponent) if exponent else 1)
    tips = generator.random((numbers, 6, dim, tokens))
    heights = generator.random((numbers, 6)) * 0.6

    def function(inputs):
        away = entrywise_norm(inputs[:, None, None] - tips, exponent)
        entries = (heights + slope * away).min(axis=2)
        return np.clip(entries, 0, 1).reshape(-1, tokens, dim).transpose(0, 2, 1)

    return function


@pytest.mark.parametrize(("dim", "tokens", "exponent", "eps"), CASES)
def test_sixty_random_maps_stay_within_the_proved_error(dim, tokens, exponent, eps):
    tightest = 0.0
    for seed in range(FUNCTIONS):
        real_map = RealMap(
            name="random",
            function=random_lipschitz(dim, tokens, exponent, 1.0, seed),
            lipschitz=1,
            dim=dim,
            tokens=tokens,
            exponent=exponent,
        )
        built = universal_prompt(real_map, eps)
        found = measure_error(built, points=POINTS, generator=np.random.default_rng(seed))
        proved = as_float_above(built.sup_error)
        assert found.largest <= proved <= float(eps)
        assert found.points + found.left_out == POINTS
        assert found.points > 0.999 * POINTS
        tightest = max(tightest, found.largest / proved)
    # Cones have full slope; where an entry's cone runs along all axes the limit is attained.
    assert tightest > (0.97 if dim * tokens == 1 else 0.5)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_built_in_maps_in_their_own_units(name):
    built = universal_prompt(BUILT_IN[name], Fraction(1, 20))
    found = measure_error(built, points=2_001, generator=np.random.default_rng(0))
    assert found.largest <= as_float_above(built.sup_error) <= 0.05
    assert found.largest > 0.045
    real_map = built.real_map
    unit = np.array([[[0.3]]])
    inputs = real_map.inputs(unit)
    assert float(real_map.low) <= inputs.item() <= float(real_map.low + real_map.side)
    assert abs(built.answers(unit).item() - real_map.function(inputs).item()) <= 0.05


def test_long_prompts_are_evaluated_block_by_block():
    built = universal_prompt(BUILT_IN["sin"], Fraction(1, 40_000))
    steps = []
    found = measure_error(
        built,
        points=40,
        generator=np.random.default_rng(0),
        progress=lambda done, _: steps.append(done),
    )
    assert built.network.prompt_tokens > 100_000
    assert len(steps) >= 8
    assert found.largest <= as_float_above(built.sup_error)


def test_a_map_that_is_steeper_than_it_says_is_named():
    steep = RealMap(name="root", function=lambda x: np.sqrt(np.abs(x)), lipschitz=1, low=-1, side=2)
    with pytest.raises(
        UserError,
        match=r"root must be Lipschitz with constant 1, got a slope of 5.* between 0 and 0",
    ):
        universal_prompt(steep, Fraction(1, 50))
    tilted = RealMap(
        name="plane",
        function=lambda x: np.repeat((x[:, :1] + x[:, 1:]) / 2, 2, axis=1),
        lipschitz=Fraction(1, 3),
        dim=2,
    )
    with pytest.raises(UserError, match=r"got a slope of 0\.5 between \(0\.\d+, 0\.\d+\) and \("):
        universal_prompt(tilted, Fraction(1, 20))


@pytest.mark.parametrize(
    ("name", "lipschitz", "eps"),
    [("square", Fraction(11, 10), "1/2"), ("sin", Fraction(1, 10**400), "9/10")],
)
def test_too_small_a_constant_is_refused_where_cells_are_too_few_to_tell(name, lipschitz, eps):
    with pytest.raises(UserError, match=rf"{name} must be Lipschitz with constant .* a slope of"):
        universal_prompt(replace(BUILT_IN[name], lipschitz=lipschitz), Fraction(eps))


def test_an_error_above_the_limit_is_no_result():
    # Too narrow for the pairs that are compared.
    def spike(inputs):
        return np.maximum(0, 1 - 5_000 * np.abs(inputs - 0.6115))

    real_map = RealMap(name="spike", function=spike, lipschitz=1)
    built = universal_prompt(real_map, Fraction(1, 5))
    with pytest.raises(UserError, match=r"spike must be .* got an error of 1 at 0"):
        measure_error(built, points=4_001, generator=np.random.default_rng(0))


def test_roundings_of_the_scales_are_in_the_limit():
    def constant(inputs):
        return np.full_like(inputs, 0.3)

    flat = RealMap(name="flat", function=constant, lipschitz=Fraction(1, 10**20))
    with pytest.raises(UserError, match="eps must be above what float64 resolves"):
        universal_prompt(flat, Fraction(1, 10**19))
    built = universal_prompt(flat, Fraction(1, 10**14))
    found = measure_error(built, points=100, generator=np.random.default_rng(0))
    assert 0 < found.largest <= as_float_above(built.sup_error) <= 1e-14
    far = replace(BUILT_IN["sin"], low=10**12)
    with pytest.raises(UserError, match="rounding may cost"):
        universal_prompt(far, Fraction(1, 1000))
    assert far.rounding() > Fraction(1, 1000)


@pytest.mark.parametrize(("name", "number"), [("side", 10**400), ("height", Fraction(1, 10**400))])
def test_units_that_no_float_holds(name, number):
    with pytest.raises(UserError, match=f"{name} must be of a size from 1e-300 to 1e300"):
        replace(BUILT_IN["sin"], **{name: number})


def test_norms_neither_overflow_nor_vanish():
    matrices = np.array([[[3.0, 4.0]], [[0.0, 0.0]]])
    for scale in (1e-200, 1.0, 1e200):
        assert entrywise_norm(scale * matrices, 2) / scale == pytest.approx([5, 0], rel=1e-14)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x + 1, "have values from 0 to 1, got 1.0"),
        (lambda x: np.full_like(x, np.nan), "got nan at"),
        (lambda x: x[:, 0], "return values of the shape"),
        (lambda x: "text", "return arrays of numbers, got str"),
    ],
)
def test_values_are_checked(function, words):
    with pytest.raises(UserError, match=words):
        universal_prompt(RealMap(name="odd", function=function, lipschitz=2), Fraction(1, 10))


def test_floats_are_no_exact_numbers():
    with pytest.raises(TypeError, match="must be an"):
        RealMap(name="odd", function=np.sin, lipschitz=1, low=0.5)
    with pytest.raises(UserError, match="eps must be above 0"):
        universal_prompt(BUILT_IN["sin"], Fraction(-1, 20))


def test_probes_hold_the_edges_of_cells():
    network = universal_prompt(BUILT_IN["sin"], Fraction(1, 20)).network
    points = probes(network, 1_000, np.random.default_rng(0)).ravel()
    scaled = points * network.shape.cells
    assert (np.abs(scaled - np.round(scaled)) < 1e-5).sum() >= 400
    assert {0.0, 1.0} <= set(points.tolist())


def test_one_cell_is_enough_for_coarse_answers_in_many_dimensions():
    flat = RealMap(
        name="flat",
        function=lambda x: np.full_like(x, 0.5) + 0.1 * (x - 0.5),
        lipschitz=Fraction(1, 10),
        dim=40,
        tokens=2,
    )
    built = universal_prompt(flat, Fraction(1, 10))
    assert built.prompt.shape[1] == 2
    found = measure_error(built, points=50, generator=np.random.default_rng(0))
    assert found.largest <= as_float_above(built.sup_error) <= 0.1
