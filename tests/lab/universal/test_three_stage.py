"""The paper's three stages: exact on the grid, the same network for every map, counts by hand."""

import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from promptlimits.base.errors import UserError
from promptlimits.lab.universal.paper_route import (
    as_tokens,
    probes,
    staged_prompt,
    three_stage_weights,
)
from promptlimits.lab.universal.three_stage import (
    StageSizes,
    build,
    column_id,
    contextual_map,
    grid_inputs,
    on_grid,
    placed,
)
from promptlimits.lab.universal.universal import BUILT_IN, RealMap
from promptlimits.nets.paper.transformer import from_weights


def sizes_of(dim, tokens, steps):
    return StageSizes(dim=dim, tokens=tokens, steps=steps)


def random_map(sizes, seed):
    generator = random.Random(seed)
    points = list(grid_inputs(sizes))
    return {point: generator.choice(points) for point in points}


def moved(inputs, by):
    return tuple(tuple(entry + by for entry in column) for column in inputs)


@pytest.mark.parametrize(
    ("case", "counts"),
    [
        ((1, 1, 2), (2, 3, 6, 7, 24)),
        ((1, 1, 3), (3, 4, 12, 13, 324)),
        ((1, 1, 4), (4, 5, 20, 21, 5120)),
        ((1, 2, 2), (8, 10, 20, 21, 10240)),
        ((2, 1, 2), (4, 5, 20, 21, 5120)),
    ],
)
def test_counts_by_hand(case, counts):
    sizes = sizes_of(*case)
    assert counts == (
        sizes.prompt_tokens,
        sizes.length,
        sizes.quantiser_layers,
        sizes.attention_layers,
        sizes.value_layers,
    )


def assert_exact(sizes, maps, inputs):
    network = build(sizes)
    assert len(network.thresholds) == sizes.quantiser_layers
    assert len(network.sweep) + 1 == sizes.attention_layers
    assert len(network.values) == sizes.value_layers
    last = Fraction(99, 100) * sizes.delta
    for seed in range(maps):
        table = random_map(sizes, seed)
        prompt = network.prompt(table.__getitem__)
        assert len(prompt) == sizes.prompt_tokens
        for point in random.Random(seed).sample(list(table), min(inputs, len(table))):
            assert network(prompt, point) == table[point]
            assert network(prompt, moved(point, last)) == table[point]


@pytest.mark.parametrize("case", [(1, 1, 2), (1, 1, 3), (2, 1, 2)])
def test_the_target_is_met_exactly_on_the_grid(case):
    assert_exact(sizes_of(*case), maps=4, inputs=9)


@pytest.mark.slow  # more than 5,000 layers for each of the columns, in rational numbers
@pytest.mark.parametrize("case", [(1, 1, 4), (1, 2, 2)])
def test_the_target_is_met_exactly_on_larger_grids(case):
    assert_exact(sizes_of(*case), maps=3, inputs=4)


def test_every_map_of_the_smallest_grid():
    sizes = sizes_of(1, 1, 2)
    network = build(sizes)
    points = list(grid_inputs(sizes))
    for first in points:
        for second in points:
            table = dict(zip(points, (first, second), strict=True))
            prompt = network.prompt(table.__getitem__)
            assert [network(prompt, point) for point in points] == [first, second]


def hard_attention(ids, bias):
    """xi: the largest id for columns above the bias, the least for those below."""
    chosen = [max(ids) if number > bias else min(ids) for number in ids]
    assert bias not in ids
    return chosen


@pytest.mark.parametrize("case", [(1, 1, 2), (2, 1, 2)])
def test_the_contextual_map_is_attention_with_a_hard_maximum(case):
    sizes = sizes_of(*case)
    network = build(sizes)
    generator = random.Random(3)
    points = [Fraction(k, sizes.steps) for k in range(sizes.steps)]
    columns = placed(
        tuple(
            tuple(generator.choice(points) for _ in range(sizes.dim)) for _ in range(sizes.length)
        )
    )
    ids = [column_id(column, sizes.steps) for column in columns]
    for number in network.sweep:
        above = hard_attention(ids, number - sizes.delta / 2)
        below = hard_attention(ids, number + sizes.delta / 2)
        gain = sizes.steps**sizes.dim
        ids = [i + gain * (a - b) for i, a, b in zip(ids, above, below, strict=True)]
    ids = [i + network.lift * a for i, a in zip(ids, hard_attention(ids, Fraction(0)), strict=True)]
    mapped = contextual_map(columns, sizes, network.sweep, network.lift)
    assert [column_id(column, sizes.steps) for column in mapped] == ids
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("case", "tolerance"),
    # Halves are exact in binary; with thirds ids near 10^6 are off by parts in 10^10, which the
    # value map's moves of that size turn into some 10^-4.
    [((1, 1, 2), 0.0), ((1, 1, 3), 2e-3)],
)
def test_standard_layers_in_the_papers_class(case, tolerance):
    sizes = sizes_of(*case)
    network = build(sizes)
    weights, positions = three_stage_weights(network)
    layers = sizes.quantiser_layers + sizes.attention_layers + sizes.value_layers
    assert len(weights.layers) == layers
    assert max(len(layer.heads) for layer in weights.layers) == 2
    assert {head.query.shape[0] for layer in weights.layers for head in layer.heads} == {1}
    assert max(layer.hidden for layer in weights.layers) == 4
    transformer = replace(from_weights(weights), positions=torch.tensor(positions))
    for seed in range(3):
        table = random_map(sizes, seed)
        prompt = torch.tensor(as_tokens(network.prompt(table.__getitem__)))
        for point, wanted in table.items():
            for part in (Fraction(0), Fraction(2, 3) * sizes.delta):
                queries = torch.tensor(as_tokens(moved(point, part)))
                found = transformer.with_prompt(prompt, queries)[: sizes.dim].numpy()
                error = np.abs(found - as_tokens(wanted)[: sizes.dim]).max()
                assert error <= tolerance
                rounded = np.round(found * sizes.steps) / sizes.steps
                assert np.allclose(rounded, as_tokens(wanted)[: sizes.dim], atol=1e-15)


def test_maps_are_rounded_to_the_grid_within_the_stated_error():
    sizes = sizes_of(1, 1, 4)
    squared = on_grid(lambda columns: tuple((entry[0] ** 2,) for entry in columns), sizes)
    for k in range(4):
        [[value]] = squared(((Fraction(k, 4),),))
        assert 0 <= Fraction(k * k, 16) - value < sizes.delta
    assert on_grid(lambda columns: ((Fraction(1),),), sizes)(((Fraction(0),),)) == (
        (Fraction(3, 4),),
    )


@pytest.mark.parametrize(("name", "eps"), [("sin", 3), ("square", 2), ("abs", Fraction(2, 3))])
def test_a_map_in_its_own_units_stays_within_its_limit(name, eps):
    real_map = BUILT_IN[name]
    built = staged_prompt(real_map, Fraction(eps))
    steps = built.network.sizes.steps
    assert built.sup_error <= eps
    unit = probes(built.network.sizes)
    found = built.answers(unit)
    inputs = real_map.inputs(np.array([float(x) for x in unit]))
    errors = np.abs(found - real_map.function(inputs))
    assert errors.max() <= built.sup_error
    # One answer in each cell: the middle's value, rounded down to the grid.
    middles = (np.arange(steps) + 0.5) / steps
    values = (real_map.function(real_map.inputs(middles)) - float(real_map.base)) / real_map.height
    table = np.minimum(np.floor(values.astype(float) * steps + 1e-12), steps - 1) / steps
    cells = [int(x * steps) for x in unit]
    wanted = float(real_map.base) + float(real_map.height) * table[cells]
    assert np.abs(found - wanted).max() <= 1e-15
    # A finer grid is not taken where a coarser one will do.
    assert steps == 2 or eps < built.sup_error * Fraction(steps, steps - 1)


@pytest.mark.parametrize(("slope", "tight"), [(Fraction(1, 10**6), 0.999), (1, 0.6)])
def test_the_limit_in_own_units_is_nearly_attained(slope, tight):
    """By a map that is 1, which the grid rounds to 1 - delta, and by one that rises to 1."""
    real_map = RealMap(
        name="rise", function=lambda x: 1 - float(slope) * (1 - x), lipschitz=slope, low=0
    )
    built = staged_prompt(real_map, Fraction(3, 4))
    delta = built.network.sizes.delta
    assert built.sup_error == delta * (slope / Fraction(2) + 1) + real_map.rounding()
    assert built.to_json()["measured_sup_error"] >= tight * float(built.sup_error)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"got 80002 \* 200\^80002"):
        build(sizes_of(1, 2, 200))
    with pytest.raises(UserError, match="float64, got ids up to"):
        three_stage_weights(build(sizes_of(2, 1, 2)))
    network = build(sizes_of(1, 1, 2))
    with pytest.raises(UserError, match="have values on the grid of 2 steps, got 1/3"):
        network.prompt(lambda _: ((Fraction(1, 3),),))
