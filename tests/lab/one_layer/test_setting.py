"""Attention meets a prompt through (A, Z) alone, masked or not, normalised or turned.

Means that are proved stay finite and true where scores are known badly.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from promptlimits.base.errors import UserError
from promptlimits.lab.one_layer.setting import (
    Front,
    SharedQuery,
    Statistics,
    answers,
    attend,
    offsets,
    proved_means,
    query_statistics,
    shared_query,
    statistics,
)
from promptlimits.nets.paper.transformer import from_weights
from promptlimits.nets.paper.weights import random_weights


def layer_and_tokens(seed, *, dim=6, heads=2, head_dim=4, queries=3, biases=True):
    generator = np.random.default_rng(seed)
    weights = random_weights(
        dim=dim,
        heads=heads,
        head_dim=head_dim,
        hidden=8,
        layers=1,
        generator=generator,
        masked=bool(seed % 2),
        biases=biases,
    )
    token = generator.standard_normal(dim)
    return weights, token, [generator.standard_normal(dim) for _ in range(queries)], generator


def front_of(generator, dim, centred):
    return Front(
        gamma=generator.standard_normal(dim),
        beta=generator.standard_normal(dim),
        eps=1e-5,
        centred=centred,
    )


@pytest.mark.parametrize("front", ["none", "layer", "rms"])
@pytest.mark.parametrize("rotary_base", [None, 10000.0])
@pytest.mark.parametrize("prompt_tokens", [1, 5])
def test_a_prompt_acts_through_its_statistics_alone(front, rotary_base, prompt_tokens):
    weights, token, contexts, generator = layer_and_tokens(1)
    setting = shared_query(
        weights.layers[0],
        token,
        contexts,
        front=None if front == "none" else front_of(generator, 6, front == "layer"),
        rotary_base=rotary_base,
    )
    prompt = generator.standard_normal((6, prompt_tokens))
    summed = statistics(setting, prompt, distance=2)
    assert offsets(query_statistics(setting), summed) == pytest.approx(
        attend(setting, prompt), rel=1e-12, abs=1e-12
    )


def test_queries_of_several_lengths_keep_the_form_without_rotation():
    weights, token, _, generator = layer_and_tokens(2)
    queries = tuple(
        np.concatenate([generator.standard_normal((6, extra)), token[:, None]], axis=1)
        for extra in (0, 1, 4)
    )
    setting = SharedQuery(layer=weights.layers[0], queries=queries)
    prompt = generator.standard_normal((6, 3))
    assert offsets(query_statistics(setting), statistics(setting, prompt)) == pytest.approx(
        attend(setting, prompt), rel=1e-12
    )
    with pytest.raises(UserError, match="of one length where positions are rotary"):
        replace(setting, rotary_base=100.0)


@pytest.mark.parametrize("seed", [0, 1])  # unmasked and masked
def test_the_answers_are_those_of_the_papers_transformer(seed):
    weights, token, contexts, generator = layer_and_tokens(seed)
    setting = shared_query(weights.layers[0], token, contexts)
    prompt = generator.standard_normal((6, 4))
    model = from_weights(weights)
    whole = torch.tensor(
        np.stack([np.concatenate([prompt, query], 1) for query in setting.queries])
    )
    assert answers(setting, prompt) == pytest.approx(model(whole)[..., -1].numpy(), rel=1e-12)


def test_no_prompt_has_no_weight():
    weights, token, contexts, _ = layer_and_tokens(3)
    setting = shared_query(weights.layers[0], token, contexts)
    none = Statistics(mean=np.zeros((2, 6)), log_weight=np.full(2, -np.inf))
    assert np.array_equal(
        attend(setting, np.zeros((6, 0))), offsets(query_statistics(setting), none)
    )


def test_huge_scores_do_not_overflow():
    weights, token, contexts, _ = layer_and_tokens(4)
    setting = shared_query(weights.layers[0], 1e3 * token, contexts)
    prompt = np.full((6, 2), 1e3)
    assert np.isfinite(attend(setting, prompt)).all()
    assert offsets(query_statistics(setting), statistics(setting, prompt)) == pytest.approx(
        attend(setting, prompt), rel=1e-9
    )


def test_what_is_no_set_of_shared_queries_is_refused():
    weights, token, contexts, _ = layer_and_tokens(5)
    layer = weights.layers[0]
    with pytest.raises(UserError, match="at least one"):
        SharedQuery(layer=layer, queries=())
    with pytest.raises(UserError, match="query 1 must end with the same token"):
        SharedQuery(layer=layer, queries=(token[:, None], contexts[0][:, None]))
    with pytest.raises(UserError, match="query 0 must hold finite"):
        shared_query(layer, np.full(6, np.nan), contexts)
    with pytest.raises(UserError, match="query 1 must have the shape"):
        SharedQuery(layer=layer, queries=(token[:, None], token[:5, None]))
    with pytest.raises(UserError, match="query 0 must have the shape"):
        SharedQuery(layer=layer, queries=(np.zeros((6, 0)),))
    odd, token, contexts, _ = layer_and_tokens(5, head_dim=3)
    with pytest.raises(UserError, match="even for rotary"):
        shared_query(odd.layers[0], token, contexts, rotary_base=10.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gamma": np.ones((2, 2))}, "gamma of the front must have the shape"),
        ({"gamma": np.full(6, np.nan)}, "gamma of the front must hold finite"),
        ({"beta": np.ones(5)}, "beta of the front must have the shape"),
        ({"beta": np.full(6, 1e101)}, "beta of the front must be at most 1e100"),
        ({"eps": -1.0}, "eps of the front must be a number from 0"),
        ({"eps": np.nan}, "eps of the front must be a number from 0"),
        ({"eps": True}, "eps of the front must be a number from 0"),
    ],
)
def test_a_front_is_checked(change, words):
    with pytest.raises(UserError, match=words):
        replace(front_of(np.random.default_rng(0), 6, True), **change)


def test_a_front_that_does_not_fit_is_refused():
    weights, token, contexts, generator = layer_and_tokens(6)
    layer = weights.layers[0]
    with pytest.raises(UserError, match="front must have the layer's width 6"):
        shared_query(layer, token, contexts, front=front_of(generator, 2, True))
    bare = replace(front_of(generator, 6, True), eps=0.0)
    assert shared_query(layer, token, contexts, front=bare).front is bare
    with pytest.raises(UserError, match="not divide by zero"):
        shared_query(layer, np.ones(6), contexts, front=bare)


@pytest.mark.parametrize("base", [0.0, -1.0, 0.5, np.nan, np.inf, 1e101, True, "10"])
def test_a_base_of_rotary_positions_is_checked(base):
    weights, token, contexts, _ = layer_and_tokens(6)
    with pytest.raises(UserError, match="rotary_base must be a number from 1 to 1e100"):
        shared_query(weights.layers[0], token, contexts, rotary_base=base)


def changed(layer, **parts):
    head = layer.heads[0]
    new = replace(head, **{name: change(getattr(head, name)) for name, change in parts.items()})
    return replace(layer, heads=(new, *layer.heads[1:]))


def test_heads_of_size_0_are_refused():
    weights, token, contexts, _ = layer_and_tokens(7)
    layer = weights.layers[0]
    blind = changed(layer, query=lambda array: array[:0], key=lambda array: array[:0])
    with pytest.raises(UserError, match="head 0 must have queries and keys of size 1 or more"):
        shared_query(blind, token, contexts)
    dumb = changed(layer, value=lambda array: array[:0], output=lambda array: array[:, :0])
    with pytest.raises(UserError, match="head 0 must have values of size 1 or more"):
        shared_query(dumb, token, contexts)


def test_numbers_that_would_overflow_are_refused():
    weights, token, contexts, _ = layer_and_tokens(8)
    layer = weights.layers[0]
    with pytest.raises(UserError, match="query 0 must be at most 1e100 in size"):
        shared_query(layer, 1e160 * token, contexts)
    with pytest.raises(UserError, match="numbers in W_k"):
        shared_query(changed(layer, query=lambda array: 1e200 * array), token, contexts)
    more = changed(layer, value=lambda x: 1e60 * x, output=lambda x: 1e60 * x)
    with pytest.raises(UserError, match="product W_o W_v of head 0"):
        shared_query(more, token, contexts)
    with pytest.raises(UserError, match="product W_2 W_1"):
        shared_query(replace(layer, w1=1e60 * layer.w1, w2=1e60 * layer.w2), token, contexts)
    with pytest.raises(UserError, match="scores of the queries' tokens"):
        shared_query(layer, 1e60 * token, contexts)
    far = changed(layer, value=lambda x: 1e70 * x, key=np.zeros_like)
    far = replace(far, heads=far.heads[:1])
    with pytest.raises(UserError, match="values of the queries' tokens"):
        shared_query(far, 1e40 * token, contexts)


def test_scores_whose_rounding_overflows_still_give_shares_of_one():
    generator = np.random.default_rng(0)
    layer = random_weights(
        dim=4, heads=2, head_dim=2, hidden=0, layers=1, generator=generator, masked=False
    ).layers[0]
    tokens = generator.standard_normal((2, 4))
    for size in (1.0, 1e10, 1e20, 1e40):
        setting = shared_query(layer, size * tokens[0], [size * tokens[1]])
        found = statistics(setting, setting.queries[0])
        for place, proved in enumerate(proved_means(setting, setting.queries[0])):
            away = np.linalg.norm(proved.center[:, 0] - found.mean[place])
            assert away <= proved.radius <= 1e3 * size
