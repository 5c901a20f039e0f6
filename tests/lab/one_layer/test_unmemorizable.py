"""The impossible data: impossible for trained prompts of 64 tokens, easy for LoRA."""

import json
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.bounds.prompt_parameters import trained_numbers
from promptlimits.lab.one_layer.data_set import data_set_from_json
from promptlimits.lab.one_layer.prompt_length_data import (
    length_floor,
    lora_update,
    outputs_behind,
    prompt_length_data,
)
from promptlimits.lab.one_layer.realise import train_prompt
from promptlimits.lab.one_layer.setting import (
    SharedQuery,
    answers,
    feed_forward,
    query_statistics,
    score_vectors,
    value_maps,
)
from promptlimits.lab.one_layer.unmemorizable import (
    answers_for,
    is_outside,
    unmemorizable_pair,
    unmemorizable_set,
)
from promptlimits.nets.paper.weights import random_weights


def layer_of(dim, heads, seed=0, *, hidden=None, head_dim=None):
    generator = np.random.default_rng([dim, heads, seed])
    layer = random_weights(
        dim=dim,
        heads=heads,
        head_dim=head_dim or dim // heads,
        hidden=2 * dim if hidden is None else hidden,
        layers=1,
        generator=generator,
        masked=False,
        scale=0.4,
        biases=True,
    ).layers[0]
    if layer.hidden:
        shrink = 0.6 / (np.linalg.norm(layer.w1, 2) * np.linalg.norm(layer.w2, 2))
        layer = replace(layer, w1=layer.w1 * shrink)
    heads_ = tuple(replace(one, value=3 * one.value, key=3 * one.key) for one in layer.heads)
    return replace(layer, heads=heads_), generator


def offsets_of(data):
    assert data.offsets is not None
    return data.offsets


@pytest.mark.parametrize("dim", [4, 5, 10, 16])
@pytest.mark.parametrize("seed", range(3))
def test_the_pair_is_what_the_closed_form_says(dim, seed):
    layer, generator = layer_of(dim, 1, seed)
    data = unmemorizable_pair(layer, generator)
    setting = SharedQuery(layer=layer, queries=data.queries)
    known = query_statistics(setting)
    directions = known.mean[:, 0] / np.linalg.norm(known.mean[:, 0], axis=1)[:, None]
    offsets = offsets_of(data)
    assert directions @ offsets.T == pytest.approx(np.zeros((2, 2)), abs=1e-9)
    assert abs(float(directions[0] @ directions[1])) < 1e-9
    # Softmax weights of one half: x_j and x_0 score alike.
    score = score_vectors(setting)[0]
    for query in data.queries:
        assert score @ query[:, 0] == pytest.approx(score @ query[:, 1])
        half = value_maps(layer)[0] @ query.sum(axis=1) / 2
        assert any(half == pytest.approx(mean, abs=1e-9) for mean in known.mean[:, 0])
    assert data.answers == pytest.approx(feed_forward(layer, setting.token + offsets))
    assert all(each.holds for each in data.assumptions)
    assert data.proved["by_the_span"]
    assert data.proved["no_prompt_of_any_length"]
    before = data.proved["largest_error_before_the_mlp_at_least"]
    assert before == pytest.approx(1 / math.sqrt(2), abs=1e-7)
    assert data.proved["largest_error_at_least"] >= 0.39 / math.sqrt(2)


@pytest.mark.parametrize(("dim", "heads"), [(4, 1), (10, 1), (9, 2), (12, 2), (16, 3)])
def test_it_stays_impossible_under_strong_optimisers_and_lora_learns_it(dim, heads):
    layer, generator = layer_of(dim, heads)
    make = unmemorizable_pair if heads == 1 else unmemorizable_set
    data = make(layer, generator)
    setting = SharedQuery(layer=layer, queries=data.queries)
    floor = data.proved["largest_error_at_least"]
    before = data.proved["largest_error_before_the_mlp_at_least"]
    assert floor > 0.1
    for length in (1, 2, 8, 64):
        found = train_prompt(setting, offsets_of(data), length, generator, starts=2, steps=60)
        assert found.largest >= before
        wrong = np.linalg.norm(answers(setting, found.prompt) - data.answers, axis=1)
        assert wrong.max() >= floor
    learnt = lora_update(layer, data, generator)
    assert learnt.error < 1e-8
    count = len(data.queries)
    counted = trained_numbers(pairs=count, dim=dim, heads=1)
    assert learnt.numbers == counted.lora_numbers == (count + 1) * dim + 2 * count


@pytest.mark.parametrize("heads", [1, 2, 3, 4])
def test_any_number_of_heads(heads):
    layer, generator = layer_of((heads + 1) ** 2, heads, head_dim=heads + 1)
    data = unmemorizable_set(layer, generator)
    assert len(data.queries) == heads + 1
    before = data.proved["largest_error_before_the_mlp_at_least"]
    assert before == pytest.approx(1 / math.sqrt(heads + 1), abs=1e-6)
    narrow, generator = layer_of((heads + 1) ** 2 - 1, heads, head_dim=(heads + 1) ** 2 - 1)
    with pytest.raises(UserError, match="width d must leave"):
        unmemorizable_set(narrow, generator)


def test_every_assumption_is_named_when_it_fails():
    layer, generator = layer_of(6, 1)
    with pytest.raises(UserError, match="one head"):
        unmemorizable_pair(layer_of(6, 2)[0], generator)
    with pytest.raises(UserError, match="at least 4"):
        unmemorizable_pair(layer_of(3, 1)[0], generator)
    with pytest.raises(UserError, match="V = W_o W_v must be regular, got rank 5 of 6"):
        unmemorizable_pair(layer_of(6, 1, head_dim=5)[0], generator)
    with pytest.raises(UserError, match="must be below 1, so that the MLP is one to one"):
        unmemorizable_pair(replace(layer, w1=10 * layer.w1), generator)
    head = layer.heads[0]
    flat = np.zeros((6, 6))
    flat[0, 1], flat[1, 0] = 1.0, -1.0
    skew = replace(layer, heads=(replace(head, query=np.eye(6), key=flat),))
    with pytest.raises(UserError, match="x_0\\^T A x_0 must not be 0"):
        unmemorizable_pair(skew, generator)


def test_what_is_proved_speaks_of_the_rounded_answers():
    layer, generator = layer_of(6, 1, hidden=0)
    data = unmemorizable_pair(layer, generator)
    assert data.proved["the_span_speaks_of"] == "answers"
    rounded = unmemorizable_pair(replace(layer, b2=np.full(6, 1e15)), generator)
    assert rounded.proved["no_prompt_of_any_length"]
    assert not rounded.proved["by_the_span"]
    assert 0.1 < rounded.proved["rounding_of_answers_at_most"] < 0.5
    # All offsets within the rounding are outside, or it is not said.
    setting = SharedQuery(layer=layer, queries=data.queries)
    first, second = offsets_of(data)
    assert is_outside(setting, first, second, Fraction(1, 10**9))
    assert not is_outside(setting, first, second, Fraction(2))
    with pytest.raises(RunFailed, match="nothing is proved"):
        unmemorizable_pair(replace(layer, b2=np.full(6, 1e17)), generator)


def test_the_least_length_speaks_of_the_rounded_answers():
    """Five pairs take three tokens of two heads; floors without rounding are .77 and .45."""
    layer, _ = layer_of(8, 2, hidden=0)
    told = []
    for bias in (0.0, 1e15, 2e15):
        moved = replace(layer, b2=np.full(8, bias))
        proved = prompt_length_data(moved, 5, np.random.default_rng(0)).proved
        assert proved["prompt_tokens_at_least_for_unrounded_answers"] == 3
        rows = proved["errors_of_shorter_prompts"]
        assert len(rows) == proved["prompt_tokens_at_least"] - 1
        assert all(row["largest_error_at_least"] > 0 for row in rows)
        told.append(proved["prompt_tokens_at_least"])
    assert told == [3, 3, 2]
    # One token, for fewer pairs than heads: the empty prompt alone is excluded, and is.
    assert (
        prompt_length_data(layer, 2, np.random.default_rng(0)).proved["prompt_tokens_at_least"] == 1
    )
    with pytest.raises(RunFailed, match="empty prompt"):
        prompt_length_data(replace(layer, b2=np.full(8, 1e17)), 2, np.random.default_rng(0))


def test_the_span_is_not_proved_where_a_pair_is_reachable():
    layer, generator = layer_of(6, 1)
    data = unmemorizable_pair(layer, generator)
    setting = SharedQuery(layer=layer, queries=data.queries)
    means = query_statistics(setting).mean[:, 0]
    first = offsets_of(data)[0]
    assert is_outside(setting, first, offsets_of(data)[1])
    assert not is_outside(setting, means[0], offsets_of(data)[1])
    assert not is_outside(setting, first, first + means[0])


@pytest.mark.parametrize("size", [1.0, 1e6])
def test_rounding_of_answers_is_limited(size):
    layer, generator = layer_of(8, 1)
    tokens, offsets = generator.standard_normal((2, 1, 8))
    # Large weights against a bias: the hidden numbers lose digits, and none of the rest does.
    bias = -size * (layer.w1 @ (tokens + offsets)[0]) + 1
    layer = replace(layer, w1=size * layer.w1, b1=bias)
    rounded, slack = answers_for(layer, tokens, offsets)
    exact = [
        [Fraction(float(a)) + Fraction(float(b)) for a, b in zip(x, t, strict=True)]
        for x, t in zip(tokens, offsets, strict=True)
    ]
    for row, point in zip(rounded, exact, strict=True):
        hidden = [
            max(
                sum(
                    (Fraction(float(w)) * p for w, p in zip(weights, point, strict=True)),
                    Fraction(float(bias)),
                ),
                Fraction(0),
            )
            for weights, bias in zip(layer.w1, layer.b1, strict=True)
        ]
        away = Fraction(0)
        for place in range(8):
            value = point[place] + Fraction(float(layer.b2[place]))
            value += sum(
                Fraction(float(w)) * x for w, x in zip(layer.w2[place], hidden, strict=True)
            )
            away += (value - Fraction(float(row[place]))) ** 2
        assert away <= slack**2
    assert slack < Fraction(1, 10**11) * int(size)


@pytest.mark.parametrize(("dim", "heads", "pairs"), [(6, 1, 3), (8, 2, 5), (16, 3, 13)])
def test_length_data(dim, heads, pairs):
    layer, generator = layer_of(dim, heads)
    data = prompt_length_data(layer, pairs, generator)
    least = -(-pairs // heads)
    assert data.proved["prompt_tokens_at_least"] == least
    assert data.proved["prompt_numbers_at_least"] == least * dim
    rows = data.proved["errors_of_shorter_prompts"]
    assert [row["prompt_tokens"] for row in rows] == list(range(1, least))
    for row in rows:
        expected = math.sqrt((pairs - heads * row["prompt_tokens"]) / pairs)
        assert row["largest_error_before_the_mlp_at_least"] == pytest.approx(expected, abs=1e-6)
        assert row["largest_error_at_least"] > 0.3 * expected
    # Every token is an exact multiple of one vector.
    base = data.queries[0][:, 1]
    for number, query in enumerate(data.queries, start=1):
        assert np.array_equal(query, np.stack([-number * base, number * base], axis=1))
    tokens = np.stack([query[:, 1] for query in data.queries])
    assert data.answers == pytest.approx(feed_forward(layer, tokens + offsets_of(data)))
    for _ in range(100):
        length = int(generator.integers(1, max(least, 2)))
        prompt = 10 ** generator.uniform(-1, 2) * generator.standard_normal((dim, length))
        outputs = outputs_behind(layer, data.queries, prompt)
        wrong = np.linalg.norm(outputs - data.answers, axis=1).max()
        assert wrong >= rows[length - 1]["largest_error_at_least"] if length < least else True
    learnt = lora_update(layer, data, generator)
    assert learnt.error < 1e-8
    counted = trained_numbers(pairs=pairs, dim=dim, heads=heads)
    assert learnt.numbers == counted.lora_numbers


def test_the_floor_for_a_length_is_attained_in_spirit():
    """A prompt whose values span one offset and whose weights are large meets that one."""
    layer, generator = layer_of(6, 1, hidden=0)
    data = prompt_length_data(layer, 2, generator)
    offsets = offsets_of(data)
    token = np.linalg.solve(value_maps(layer)[0], offsets.sum(axis=0) / 2)
    many = np.tile(token[:, None], (1, 10**5))
    wrong = np.linalg.norm(outputs_behind(layer, data.queries, many) - data.answers, axis=1)
    floor = float(length_floor(layer, data.queries[0][:, 1], offsets, 1).error)
    assert floor == pytest.approx(1 / math.sqrt(2), abs=1e-7)
    assert floor <= wrong.max() <= floor + 1e-2


def test_length_data_bad_input():
    layer, generator = layer_of(6, 2)
    with pytest.raises(UserError, match="pairs must be at most dim less heads, 4"):
        prompt_length_data(layer, 5, generator)
    with pytest.raises(UserError, match="one to one"):
        prompt_length_data(replace(layer, w1=10 * layer.w1), 2, generator)
    twice = replace(layer, heads=(layer.heads[0], layer.heads[0]))
    with pytest.raises(UserError, match="independent"):
        prompt_length_data(twice, 2, generator)


def test_lora_bad_input():
    layer, generator = layer_of(6, 1)
    data = unmemorizable_pair(layer, generator)
    narrow = replace(layer, w1=layer.w1[:1], b1=layer.b1[:1], w2=layer.w2[:, :1])
    with pytest.raises(UserError, match="hidden neurons must be at least"):
        lora_update(narrow, data, generator)
    same = replace(data, queries=(data.queries[0], data.queries[0]))
    with pytest.raises(UserError, match="distinct"):
        lora_update(layer, same, generator)
    one = replace(data, queries=data.queries[:1], answers=data.answers[:1])
    assert lora_update(layer, one, generator).error < 1e-12


def test_a_data_set_survives_json():
    layer, generator = layer_of(6, 1)
    data = unmemorizable_pair(layer, generator)
    record = json.loads(json.dumps(data.to_json(), allow_nan=False))
    again = data_set_from_json(record, dim=6)
    for one, other in zip(data.queries, again.queries, strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(data.answers, again.answers)
    assert again.proved == {}  # a file proves nothing


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ([], "queries and answers"),
        ({"queries": [], "answers": []}, "lists of queries"),
        ({"queries": [[[1, 2]]], "answers": []}, "as many answers as queries"),
        ({"queries": [[[1, 2, 3]]], "answers": [[1, 2]]}, "tokens of 2 numbers"),
        ({"queries": [[[1, 2], [3]]], "answers": [[1, 2]]}, "lists of numbers"),
        ({"queries": [[[1, 2]]], "answers": [[1, "x"]]}, "lists of numbers"),
        ({"queries": [[[1, math.nan]]], "answers": [[1, 2]]}, "finite"),
        ({"queries": [[]], "answers": [[1, 2]]}, "tokens of 2 numbers"),
        ({"queries": [[[1, 2]]], "answers": [[10**400, 2]]}, "lists of numbers"),
        ({"queries": [[["1", "2"]]], "answers": [[1, 2]]}, "lists of numbers, got '1'"),
        ({"queries": [[[1, True]]], "answers": [[1, 2]]}, "lists of numbers, got True"),
        ({"queries": [[[1, 2]]], "answers": [[1, False]]}, "lists of numbers, got False"),
        ({"queries": [[[1, 2]]], "answers": [[1, None]]}, "lists of numbers, got None"),
        ({"queries": [[[1, {"a": 2}]]], "answers": [[1, 2]]}, "lists of numbers, got an object"),
        ({"queries": json.loads("[" * 700 + "]" * 700), "answers": [[1, 2]]}, "lists of numbers"),
        ({"queries": [[[1, 1e101]]], "answers": [[1, 2]]}, "at most 1e100 in size"),
        ({"queries": [[[1, 2]]], "answers": [[-1e308, 2]]}, "at most 1e100 in size"),
    ],
)
def test_data_bad_input(record, words):
    with pytest.raises(UserError, match=words):
        data_set_from_json(record, dim=2)
