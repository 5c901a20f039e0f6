"""No prompt goes below the floor; the floor is the closed form; and it is attained.

Answers go back to what attention must give, or it is said that they cannot.
"""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from flint import arb, arb_mat
from tests.reference.layers import attention_only, rotated
from tests.reference.layers import draw as drawn
from tests.reference.one_layer_floor import floor_by_hand, orthogonal_floor

from promptlimits.base.errors import UserError
from promptlimits.base.exact import working_precision
from promptlimits.lab.errata.single_layer import orthogonal_targets
from promptlimits.lab.one_layer.error_floor import best_weights, contraction, error_floor, preimages
from promptlimits.lab.one_layer.realise import train_prompt
from promptlimits.lab.one_layer.setting import (
    Front,
    SharedQuery,
    attend,
    feed_forward,
    proved_means,
    query_statistics,
    score_vectors,
    shared_query,
)
from promptlimits.nets.paper.transformer import to_weights
from promptlimits.nets.paper.weights import random_weights

CASES = [(4, 1, 4, 2), (6, 1, 3, 3), (8, 2, 4, 3), (9, 2, 2, 4), (12, 3, 4, 4), (16, 3, 16, 4)]


def draw(dim, heads, head_dim, queries, seed=0, scale=1.0):
    given = {"hidden": 2 * dim, "scale": scale, "biases": True}
    setting, targets, generator = drawn(dim, heads, head_dim, queries, seed, **given)
    return setting, 2 * targets, generator


def floors(setting, targets):
    best = error_floor(setting, targets)
    plain = error_floor(setting, targets, weights=[1] * len(targets))
    return float(best.error), float(plain.squared) * len(targets)


@pytest.mark.parametrize(("dim", "heads", "head_dim", "queries"), CASES)
def test_it_is_the_closed_form(dim, heads, head_dim, queries):
    setting, targets, generator = draw(dim, heads, head_dim, queries)
    for weights in (np.ones(queries), generator.uniform(0.1, 1, queries)):
        found = error_floor(setting, targets, weights=[Fraction(float(w)) for w in weights])
        assert sum(found.weights) == 1
        exact = np.array([float(weight) for weight in found.weights])
        slow = floor_by_hand(setting, targets, exact)
        assert float(found.squared) == pytest.approx(slow, rel=1e-6, abs=1e-9)
        assert float(found.squared) <= slow + 1e-12
        assert float(found.error) == pytest.approx(math.sqrt(found.squared))


@pytest.mark.parametrize(("dim", "heads", "head_dim", "queries"), CASES)
def test_no_random_prompt_goes_below(dim, heads, head_dim, queries):
    """500 prompts in each of six layers."""
    setting, targets, generator = draw(dim, heads, head_dim, queries)
    best, squares = floors(setting, targets)
    inside = float(error_floor(setting, targets).output_error)
    layer, wanted = setting.layer, feed_forward(setting.layer, setting.token + targets)
    for _ in range(500):
        size = 10.0 ** generator.uniform(-2, 2)
        prompt = size * generator.standard_normal((dim, int(generator.integers(0, 6))))
        reached = attend(setting, prompt)
        errors = np.linalg.norm(reached - targets, axis=1)
        assert errors.max() >= best
        assert (errors**2).sum() >= squares
        outputs = feed_forward(layer, setting.token + reached)
        assert np.linalg.norm(outputs - wanted, axis=1).max() >= inside


@pytest.mark.parametrize(("dim", "heads", "head_dim", "queries"), CASES)
def test_no_trained_prompt_goes_below(dim, heads, head_dim, queries):
    setting, targets, generator = draw(dim, heads, head_dim, queries)
    best, squares = floors(setting, targets)
    for length in (1, 3):
        found = train_prompt(setting, targets, length, generator, starts=2, steps=60)
        assert found.squares >= squares
        assert found.largest >= best
        errors = np.linalg.norm(attend(setting, found.prompt) - targets, axis=1)
        assert found.squares == pytest.approx((errors**2).sum())
        assert found.largest == pytest.approx(errors.max())


@pytest.mark.parametrize(
    ("heads", "expected"),
    [(1, 0.707107), (2, 0.57735), (3, 0.5), (4, 0.447214), (5, 0.408248), (6, 0.377964)],
)
def test_the_constant_is_optimal(heads, expected):
    """The exact counterexample: a prompt attains 1/sqrt(h+1), and no prompt goes below it."""
    built = orthogonal_targets(heads, seed=heads)
    queries = tuple(query.numpy() for query in built.queries)
    setting = SharedQuery(layer=to_weights(built.model).layers[0], queries=queries)
    offsets = built.offsets.numpy()
    floor = float(error_floor(setting, offsets).error)
    errors = np.linalg.norm(attend(setting, built.prompt.numpy()) - offsets, axis=1)
    assert floor == pytest.approx(1 / math.sqrt(heads + 1), abs=1e-6)
    assert errors == pytest.approx(np.full(heads + 1, expected), abs=1e-6)
    assert floor <= errors.max() + 1e-9
    assert orthogonal_floor([1] * (heads + 1), heads) == Fraction(1, heads + 1)


def test_weights_are_the_best_for_orthogonal_offsets():
    lengths = np.array([1.0, 2.0, 3.0, 5.0])
    matrix = np.diag(lengths)
    for rank in (1, 2, 3):
        weights = best_weights(matrix, rank)
        tail = (np.sort(np.linalg.svd(matrix * np.sqrt(weights))[1]) ** 2)[: 4 - rank].sum()
        closed = float(orthogonal_floor([1, 4, 9, 25], rank))
        assert tail == pytest.approx(closed, rel=1e-3)
        assert tail <= closed + 1e-9


def test_optimised_weights_are_near_the_best_of_a_grid():
    generator = np.random.default_rng(3)
    for _ in range(5):
        matrix = generator.standard_normal((6, 3)) * [1, 2, 4]
        grid = [
            np.array([a, b, 1 - a - b])
            for a in np.linspace(0, 1, 41)
            for b in np.linspace(0, 1 - a, 41)
        ]

        def tail(weights, of=matrix):
            return float((np.linalg.svd(of * np.sqrt(np.abs(weights)))[1][1:] ** 2).sum())

        assert tail(best_weights(matrix, 1)) >= 0.99 * max(map(tail, grid))


def test_more_orthogonal_offsets_than_heads_and_one():
    # All of one length: (k - h)/k r^2. A tiny one does not spoil the others.
    assert orthogonal_floor([4] * 5, 2) == Fraction(4 * 3, 5)
    assert orthogonal_floor([4, 4, Fraction(1, 10**9)], 1) == 2
    assert orthogonal_floor([4, 4], 2) == 0


def test_it_scales_and_turns():
    setting, targets, generator = draw(8, 2, 4, 3)
    floor = error_floor(setting, targets, weights=[1, 1, 1])
    tripled = error_floor(setting, 4 * targets, weights=[1, 1, 1])
    assert float(tripled.error) == pytest.approx(4 * float(floor.error), rel=1e-7)
    turn = np.linalg.qr(generator.standard_normal((8, 8)))[0]
    contexts = [turn @ query[:, 0] for query in setting.queries]
    other = shared_query(rotated(setting.layer, turn), turn @ setting.token, contexts)
    again = error_floor(other, targets @ turn.T, weights=[1, 1, 1])
    assert float(again.error) == pytest.approx(float(floor.error), rel=1e-6)


def test_no_floor_for_few_queries_and_none_without_room():
    setting, targets, _ = draw(4, 2, 4, 2)
    assert error_floor(setting, targets).squared == 0
    assert error_floor(setting, targets).bound() is None
    full, offsets, _ = draw(3, 1, 3, 3)
    assert error_floor(full, offsets).error == 0  # E is everything


def test_contraction_is_proved():
    setting, _, _ = draw(6, 1, 6, 2, scale=0.5)
    layer = setting.layer
    published = 1 - np.linalg.norm(layer.w1, 2) * np.linalg.norm(layer.w2, 2)
    assert published - 1e-9 <= float(contraction(layer)) < 1
    wide, _, _ = draw(6, 1, 6, 2, scale=3.0)
    assert contraction(wide.layer) == 0
    assert contraction(attention_only(*layer.heads)) == 1


def test_a_bound_is_a_lower_limit_on_a_logarithm():
    setting, targets, _ = draw(8, 1, 4, 3)
    floor = error_floor(setting, targets)
    bound = floor.bound()
    assert bound.direction == "lower"
    assert bound.lower_nats() == pytest.approx(math.log(floor.error))


@pytest.mark.parametrize("centred", [True, False])
def test_means_are_enclosed_with_a_normalisation_in_front(centred):
    setting, _, generator = draw(6, 2, 3, 2)
    front = Front(
        gamma=generator.standard_normal(6),
        beta=generator.standard_normal(6),
        eps=1e-5,
        centred=centred,
    )
    normalised = SharedQuery(layer=setting.layer, queries=setting.queries, front=front)
    for one in (setting, normalised):
        known = query_statistics(one)
        for j, query in enumerate(one.queries):
            for i, each in enumerate(proved_means(one, query)):
                away = np.linalg.norm(each.center[:, 0] - known.mean[j, i])
                assert away <= each.radius + 1e-14
                assert each.radius < 1e-11


def test_large_scores_are_enclosed_with_their_rounding():
    """Two scores near 10^6 that nearly agree: a float is off by far more than 1e-12 here."""
    for seed in range(10):
        setting, _, generator = draw(5, 1, 5, 2, seed)
        token = 1e6 * generator.standard_normal(5)
        first = generator.standard_normal(5)
        score = score_vectors(SharedQuery(layer=setting.layer, queries=(token[:, None],)))[0]
        other = generator.standard_normal(5)
        other += (score @ (first - other) - 0.3) / (score @ score) * score
        both = SharedQuery(layer=setting.layer, queries=(np.stack([first, token], axis=1),))
        tokens = np.stack([first, other], axis=1)
        (found,) = proved_means(both, tokens)
        head = setting.layer.heads[0]

        def exact(array):
            return arb_mat([[arb(float(x)) for x in row] for row in array])

        with working_precision(400):
            scores = (exact(head.key) * exact(tokens)).transpose() * (
                exact(head.query) * exact(token[:, None])
            )
            top = scores[0, 0]
            weights = [(scores[n, 0] - top).exp() for n in range(2)]
            shares = arb_mat([[weight / sum(weights, arb(0))] for weight in weights])
            mean = exact(head.output) * (exact(head.value) * (exact(tokens) * shares))
            away = [float(abs(mean[n, 0] - arb(float(found.center[n, 0])))) for n in range(5)]
        assert math.hypot(*away) <= found.radius


def test_training_finds_planted_targets():
    setting, _, generator = draw(6, 1, 6, 2)
    planted = attend(setting, generator.standard_normal((6, 3)))
    found = train_prompt(setting, planted, 3, generator, starts=4, steps=200)
    assert found.squares < 1e-12


def test_bad_input():
    setting, targets, _ = draw(6, 1, 3, 2)
    with pytest.raises(UserError, match="target offsets must have the shape"):
        error_floor(setting, targets[:1])
    with pytest.raises(UserError, match="finite"):
        error_floor(setting, targets * np.nan)
    for weights in ([1], [0, 0], [1, -1]):
        with pytest.raises(UserError, match="weights must be 2 numbers"):
            error_floor(setting, targets, weights=weights)
    turned = SharedQuery(
        layer=draw(6, 1, 4, 2)[0].layer, queries=setting.queries, rotary_base=100.0
    )
    with pytest.raises(ValueError, match="rotary"):
        error_floor(turned, targets)


def layer_of(dim, seed, product):
    generator = np.random.default_rng([dim, seed])
    layer = random_weights(
        dim=dim,
        heads=1,
        head_dim=dim,
        hidden=3 * dim,
        layers=1,
        generator=generator,
        masked=False,
        biases=True,
    ).layers[0]
    norm = np.linalg.norm(layer.w1, 2) * np.linalg.norm(layer.w2, 2)
    return replace(layer, w2=layer.w2 * (product / norm)), generator


@pytest.mark.parametrize("product", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("seed", range(5))
def test_one_to_one(product, seed):
    layer, generator = layer_of(7, seed, product)
    token, offsets = generator.standard_normal(7), 3 * generator.standard_normal((4, 7))
    found = preimages(layer, token, feed_forward(layer, token + offsets))
    assert found.offsets == pytest.approx(offsets, abs=1e-7)
    assert found.unique
    assert found.error < 1e-9


def test_not_one_to_one():
    layer, generator = layer_of(5, 0, 6.0)
    answers = feed_forward(layer, generator.standard_normal((3, 5)))
    found = preimages(layer, np.zeros(5), answers)
    assert not found.unique
    assert feed_forward(layer, found.offsets) == pytest.approx(answers, abs=1e-8)


def test_outside_the_range():
    layer, _ = layer_of(3, 0, 1.0)
    # MLP(x) = -|x| in each coordinate.
    down = replace(
        layer,
        w1=np.eye(3),
        b1=np.zeros(3),
        w2=-2 * np.eye(3),
        b2=np.zeros(3),
    )
    assert feed_forward(down, np.array([1.0, -2.0, 3.0])) == pytest.approx([-1, -2, -3])
    preimages(down, np.zeros(3), -np.ones((1, 3)))
    with pytest.raises(UserError, match="answer 1 must lie in the range of the layer's MLP"):
        preimages(down, np.zeros(3), np.array([[-1.0, -1, -1], [-1, 1, -1]]))
    with pytest.raises(UserError, match="finite"):
        preimages(down, np.zeros(3), np.full((1, 3), np.inf))
