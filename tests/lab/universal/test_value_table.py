"""The network is in the papers' class, the same for a whole class, and numpy computes it."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from promptlimits.base.errors import UserError
from promptlimits.lab.universal.universal import BUILT_IN, RealMap, prompt_of, universal_prompt
from promptlimits.lab.universal.universal_bound import FunctionClass, weights_of_network
from promptlimits.lab.universal.value_table import (
    answers,
    cell_middles,
    table_network,
)

SHAPES = [(1, 1), (2, 1), (1, 2), (3, 1), (1, 3), (2, 2)]


def network_of(dim, tokens):
    eps = Fraction(1, 8) if dim * tokens < 3 else Fraction(1, 5)
    return table_network(FunctionClass(dim=dim, tokens=tokens, lipschitz=1, eps=eps))


@pytest.mark.parametrize(("dim", "tokens"), SHAPES)
def test_numpy_computes_what_the_papers_transformer_does(dim, tokens):
    network = network_of(dim, tokens)
    generator = np.random.default_rng(dim + 10 * tokens)
    cells = network.prompt_tokens // tokens
    prompt = prompt_of(network, generator.random((cells, dim, tokens)))
    inputs = np.concatenate([generator.random((20, dim, tokens)), [np.ones((dim, tokens))]])
    found = answers(network, prompt, inputs, block=7)
    transformer = network.paper_transformer()
    told = transformer.with_prompt(torch.tensor(prompt), torch.tensor(network.queries(inputs)))
    # Numbers up to 1, some twenty roundings.
    assert np.abs(told[:, :dim].numpy() - found).max() <= 1e-14
    assert np.array_equal(answers(network, prompt, inputs[:3], block=7), found[:3])
    steps = []
    answers(network, prompt, inputs[:1], block=16, progress=lambda *at: steps.append(at))
    assert steps[-1][0] == steps[-1][1] == len(steps)


@pytest.mark.parametrize(("dim", "tokens"), SHAPES)
def test_the_middle_of_a_cell_is_answered_by_its_entry(dim, tokens):
    network = network_of(dim, tokens)
    cells = network.prompt_tokens // tokens
    values = np.random.default_rng(1).random((cells, dim, tokens))
    found = answers(network, prompt_of(network, values), cell_middles(network, 0, cells))
    assert np.abs(found - values).max() <= 1e-2 * float(network.target.eps)


def test_one_network_for_every_map_of_a_class():
    maps = [
        BUILT_IN["sin"],
        BUILT_IN["cos"],
        RealMap(
            name="zigzag",
            function=lambda x: np.abs((x + 1) % 2 - 1),
            lipschitz=1,
            low=BUILT_IN["sin"].low,
            side=BUILT_IN["sin"].side,
            base=-1,
            height=2,
        ),
    ]
    built = [universal_prompt(each, Fraction(1, 10)) for each in maps]
    assert len({each.network.weights.sha256() for each in built}) == 1
    assert all(np.array_equal(each.network.positions, built[0].network.positions) for each in built)
    assert len({each.prompt.tobytes() for each in built}) == 3
    # and behind the prompt of one map, the others are not answered
    unit = np.linspace(0.01, 0.99, 50).reshape(-1, 1, 1)
    first = built[0].answers(unit)
    assert np.abs(first - built[1].answers(unit)).max() > 0.5


def test_a_prompt_holds_the_table_and_nothing_else():
    network = network_of(2, 1)
    values = np.random.default_rng(0).random((network.prompt_tokens, 2, 1))
    prompt = prompt_of(network, values)
    rows = network.places.value
    assert np.array_equal(prompt[rows].T, values[:, :, 0])
    assert not np.delete(prompt, np.r_[rows], axis=0).any()
    assert not network.weights.masked


def test_sizes_that_do_not_fit_are_refused_with_their_number():
    target = FunctionClass(dim=1, tokens=1, lipschitz=1, eps=Fraction(1, 1000))
    with pytest.raises(
        UserError, match=r"fit in 100,000 bytes, got 50\d tokens and 1,\d+ weights, w"
    ):
        table_network(target, most_bytes=100_000)


def test_wide_tokens_are_refused_before_their_weights_are_made():
    target = FunctionClass(dim=10**6, tokens=1, lipschitz=1, eps=1)
    with pytest.raises(UserError, match=r"got 1 tokens and 18,0\d\d,\d+,\d+,\d+ weights"):
        table_network(target)


@pytest.mark.parametrize(("dim", "tokens"), SHAPES)
def test_the_memory_for_the_weights_is_what_they_take(dim, tokens):
    network = network_of(dim, tokens)
    stored = sum(array.size for _, array in network.weights.arrays())
    assert weights_of_network(network.target, network.shape.cells) == stored


def test_shapes_are_checked():
    network = network_of(1, 1)
    with pytest.raises(UserError, match="be of shape"):
        answers(network, np.zeros((3, 3)), np.zeros((2, 1, 1)))
