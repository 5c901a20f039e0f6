"""Attention meets a prompt through (A, Z) alone, masked or not, normalised or turned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from promptlimits.errors import UserError
from promptlimits.lipschitz.weights import TransformerWeights, random_weights
from promptlimits.models.transformer import from_weights
from promptlimits.single_layer.setting import (
    Floats,
    Front,
    SharedQuery,
    Statistics,
    answers,
    attend,
    offsets,
    query_statistics,
    shared_query,
    statistics,
)


def layer_and_tokens(
    seed: int,
    *,
    dim: int = 6,
    heads: int = 2,
    head_dim: int = 4,
    queries: int = 3,
    biases: bool = True,
) -> tuple[TransformerWeights, Floats, list[Floats], np.random.Generator]:
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


def front_of(generator: np.random.Generator, dim: int, centred: bool) -> Front:
    return Front(
        gamma=generator.standard_normal(dim),
        beta=generator.standard_normal(dim),
        eps=1e-5,
        centred=centred,
    )


@pytest.mark.parametrize("front", ["none", "layer", "rms"])
@pytest.mark.parametrize("rotary_base", [None, 10000.0])
@pytest.mark.parametrize("prompt_tokens", [1, 5])
def test_a_prompt_acts_through_its_statistics_alone(
    front: str, rotary_base: float | None, prompt_tokens: int
) -> None:
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


def test_queries_of_several_lengths_keep_the_form_without_rotation() -> None:
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
def test_the_answers_are_those_of_the_papers_transformer(seed: int) -> None:
    weights, token, contexts, generator = layer_and_tokens(seed)
    setting = shared_query(weights.layers[0], token, contexts)
    prompt = generator.standard_normal((6, 4))
    model = from_weights(weights)
    whole = torch.tensor(
        np.stack([np.concatenate([prompt, query], 1) for query in setting.queries])
    )
    assert answers(setting, prompt) == pytest.approx(model(whole)[..., -1].numpy(), rel=1e-12)


def test_no_prompt_has_no_weight() -> None:
    weights, token, contexts, _ = layer_and_tokens(3)
    setting = shared_query(weights.layers[0], token, contexts)
    none = Statistics(mean=np.zeros((2, 6)), log_weight=np.full(2, -np.inf))
    assert np.array_equal(
        attend(setting, np.zeros((6, 0))), offsets(query_statistics(setting), none)
    )


def test_huge_scores_do_not_overflow() -> None:
    weights, token, contexts, _ = layer_and_tokens(4)
    setting = shared_query(weights.layers[0], 1e3 * token, contexts)
    prompt = np.full((6, 2), 1e3)
    assert np.isfinite(attend(setting, prompt)).all()
    assert offsets(query_statistics(setting), statistics(setting, prompt)) == pytest.approx(
        attend(setting, prompt), rel=1e-9
    )


def test_what_is_no_set_of_shared_queries_is_refused() -> None:
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
    odd, *rest = layer_and_tokens(5, head_dim=3)
    with pytest.raises(UserError, match="even for rotary"):
        shared_query(odd.layers[0], rest[0], rest[1], rotary_base=10.0)
