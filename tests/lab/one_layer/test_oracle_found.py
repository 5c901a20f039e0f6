"""What is found is a prompt's: its words, its ranks, its faces, and searches that end."""

from fractions import Fraction

import numpy as np
import pytest
from tests.reference.layers import attention_only, draw

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.lab.one_layer.oracle.certificate import certify_oracle
from promptlimits.lab.one_layer.oracle.inputs import (
    distance_from_ranges,
    equal_queries,
    exact_inputs,
    merged,
)
from promptlimits.lab.one_layer.oracle.length import best_of_length
from promptlimits.lab.one_layer.oracle.problem import local_model, oracle_problem
from promptlimits.lab.one_layer.oracle.search import _reduced, least_largest, least_sum
from promptlimits.lab.one_layer.oracle.value import certify_value, oracle_value
from promptlimits.lab.one_layer.realise import rank_condition, realise
from promptlimits.lab.one_layer.setting import (
    SharedQuery,
    Statistics,
    attend,
    shared_query,
)
from promptlimits.nets.paper.weights import HeadWeights


def nearly_singular():
    """V = diag(1, 1, 1e-11, 0), and targets along the direction that V barely writes."""
    generator = np.random.default_rng(0)
    key = generator.standard_normal((2, 4))
    key[:, 2] = 0
    head = HeadWeights(
        query=generator.standard_normal((2, 4)),
        key=key,
        value=np.diag([1, 1, 1e-11, 0]),
        output=np.eye(4),
    )
    tokens = generator.standard_normal((3, 4))
    targets = np.array([[0, 0, 1.0, 0], [0, 0, 2.0, 0]])
    return shared_query(attention_only(head), tokens[0], list(tokens[1:])), targets


@pytest.mark.parametrize("shape", [(4, 1, 4, 3), (4, 2, 4, 3), (6, 2, 2, 3)])
@pytest.mark.parametrize("objective", ["sum of squares", "largest error"])
def test_found_is_the_error_of_the_prompt(shape, objective):
    setting, targets, generator = draw(*shape, 2)
    largest = objective == "largest error"
    value = oracle_value(
        setting,
        targets,
        objective="largest error" if largest else "sum of squares",
        generator=generator,
    )
    errors = np.linalg.norm(attend(setting, value.prompt) - targets, axis=1)
    assert value.errors == pytest.approx(errors, rel=1e-12)
    assert value.found == pytest.approx(errors.max() if largest else (errors**2).sum(), rel=1e-12)
    assert value.relaxation <= value.found
    proof = certify_value(setting, targets, value)
    assert float(proof.lower) <= value.relaxation * (1 + 1e-9)
    if not rank_condition(setting):
        assert value.found > value.relaxation * 1.01
        assert proof.optimal_within is None


def test_one_bound_head_is_shown_with_its_best_length():
    setting, targets, generator = draw(4, 1, 4, 3, 2)
    value = oracle_value(setting, targets, generator=generator)
    best = min(
        best_of_length(setting, targets, tokens=tokens).achieved or np.inf for tokens in (1, 8, 64)
    )
    assert value.found <= best * (1 + 1e-12)
    assert value.found >= best_of_length(setting, targets).found * (1 - 1e-9)


def test_weights_move_the_best_of_a_length():
    setting, targets, generator = draw(4, 1, 4, 3, 1)
    scale = generator.uniform(0.2, 2.0, 3)
    best = best_of_length(setting, targets, tokens=4, scale=scale)
    plain_best = best_of_length(setting, targets, tokens=4)
    assert best.prompt is not None
    assert plain_best.prompt is not None

    def weighted(prompt):
        return float(((scale[:, None] * (attend(setting, prompt) - targets)) ** 2).sum())

    assert best.achieved == pytest.approx(weighted(best.prompt), rel=1e-12)
    assert weighted(best.prompt) <= weighted(plain_best.prompt) * (1 + 1e-9)


def test_directions_that_values_barely_write_are_used():
    setting, targets = nearly_singular()
    assert rank_condition(setting)
    value = oracle_value(setting, targets, generator=np.random.default_rng(0))
    assert value.found == pytest.approx(0.4994682066, rel=1e-6)
    assert certify_value(setting, targets, value).gap < 1e-5
    assert not value.attained  # doubles see rank 2 of 3: nothing more is claimed
    assert "rank" in value.why


def test_tokens_reach_small_values():
    setting, _ = nearly_singular()
    wanted = Statistics(mean=np.array([[0.3, -0.2, 1.5, 0.0]]), log_weight=np.array([0.7]))
    assert realise(setting, wanted).error < 1e-9


def test_dependent_scores_are_dependent_whatever_their_rounding():
    generator = np.random.default_rng(3)
    value = generator.standard_normal((3, 6))
    head = HeadWeights(
        query=generator.standard_normal((3, 6)),
        key=value,
        value=value,
        output=generator.standard_normal((6, 3)),
    )
    tokens = generator.standard_normal((3, 6))
    assert not rank_condition(shared_query(attention_only(head), tokens[0], list(tokens[1:])))


def test_the_empty_prompt_is_no_optimum_at_infinity():
    setting, _, generator = draw(8, 1, 4, 2, 0)
    head = setting.layer.heads[0]
    beside = np.linalg.svd(head.output @ head.value)[0][:, 4:]
    away = 0.3 * generator.standard_normal((2, 4)) @ beside.T
    targets = attend(setting, np.zeros((8, 0))) + away
    value = oracle_value(setting, targets, generator=generator)
    assert value.prompt.shape == (8, 0)
    assert value.found == pytest.approx((away**2).sum(), rel=1e-9)
    assert not value.on_face
    assert value.attained
    assert "no tokens" in value.why


def test_ties_are_no_faces():
    for seed in range(4):
        setting, targets, generator = draw(6, 1, 2, 1, seed)
        value = oracle_value(setting, targets, generator=generator)
        assert not value.on_face
        assert value.attained


def test_the_gap_of_the_largest_error_is_that_of_a_prompt():
    for seed in range(6):
        setting, targets, generator = draw(5, 2, 2, 4, seed)
        value = oracle_value(setting, 2 * targets, objective="largest error", generator=generator)
        proof = certify_value(setting, 2 * targets, value, tolerance=1e-3)
        gap = 1 - float(proof.lower) / value.found
        assert proof.gap == pytest.approx(gap, abs=1e-12)
        assert (proof.optimal_within is None) == (gap > 1e-3)


def test_equal_queries_are_merged():
    setting, _, generator = draw(5, 2, 3, 2, 0)
    first, second = setting.queries
    extra = generator.standard_normal((5, 1))
    long = np.concatenate([extra, first], axis=1)
    turned = np.concatenate([first[:, :1], extra, first[:, 1:]], axis=1)
    whole = SharedQuery(layer=setting.layer, queries=(long, second, turned))
    assert equal_queries(whole) == [[0, 2], [1]]
    wanted = generator.standard_normal((3, 5))
    roots = np.array([0.7, 1.0, 1.9])
    few, kept, constant = merged(whole, exact_inputs(whole, wanted), roots)
    mean = (0.49 * wanted[0] + 3.61 * wanted[2]) / 4.1
    spread = 0.49 * ((wanted[0] - mean) ** 2).sum() + 3.61 * ((wanted[2] - mean) ** 2).sum()
    assert [float(x.mid()) for x in few.targets[0]] == pytest.approx(mean, rel=1e-12)
    assert kept == pytest.approx([4.1**0.5, 1.0], rel=1e-15)
    assert Fraction(kept[0]) ** 2 <= Fraction(0.7) ** 2 + Fraction(1.9) ** 2
    assert float(constant) == pytest.approx(spread, rel=1e-12)
    found = least_sum(oracle_problem(whole, wanted).weighted(roots), generator).value
    proof = certify_oracle(whole, wanted, found=found, scale=roots, tolerance=0.01)
    assert proof.optimal_within == 0.01
    assert proof.lower <= Fraction(found)


@pytest.mark.parametrize("shape", [(5, 2, 3, 2), (6, 2, 2, 2), (7, 3, 2, 3), (4, 3, 2, 2)])
def test_one_query_many_times_is_proved_to_a_millionth(shape):
    setting, targets, generator = draw(*shape, 0)
    same = SharedQuery(layer=setting.layer, queries=(setting.queries[0],) * shape[3])
    value = oracle_value(same, targets, generator=generator)
    proof = certify_value(same, targets, value)
    assert proof.optimal_within == 1e-6
    assert proof.lower <= Fraction(value.found) * (1 + Fraction(1, 10**12))


def test_the_distance_from_ranges_is_that_of_their_span():
    setting, targets, _ = draw(7, 2, 2, 1, 0)
    maps = [head.output @ head.value for head in setting.layer.heads]
    onto = np.concatenate(maps, axis=1)
    rest = targets[0] - onto @ np.linalg.pinv(onto, rcond=1e-10) @ targets[0]
    limit = distance_from_ranges(setting.layer, exact_inputs(setting, targets))
    assert float(limit) == pytest.approx(rest @ rest, rel=1e-12)


@pytest.mark.parametrize("shape", [(40, 1, 3, 3), (40, 1, 40, 3), (40, 2, 40, 3), (40, 1, 20, 4)])
def test_fewer_dimensions_have_the_same_values(shape):
    setting, targets, generator = draw(*shape, 0)
    problem = oracle_problem(setting, targets).weighted(generator.uniform(0.5, 2, shape[3]))
    small = _reduced(problem)
    assert small.targets.shape[1] < 40
    points = generator.random((5, shape[1]))
    whole, fewer = local_model(problem, points), local_model(small, points)
    assert fewer.value == pytest.approx(whole.value, rel=1e-10)
    assert fewer.slope == pytest.approx(whole.slope, rel=1e-8, abs=1e-9)


def test_searches_and_proofs_keep_to_their_budgets():
    setting, targets, generator = draw(32, 4, 8, 4, 0)
    problem = oracle_problem(setting, targets)
    best, dual = least_largest(problem, generator, most_work=0.0)
    assert best.squares.max() <= (targets**2).sum() * 4
    assert dual.value <= best.squares.max() * (1 + 1e-9)
    certify_oracle(setting, targets, found=1e9, most_boxes=1)
    reached, aims, _ = draw(8, 1, 4, 12, 0)
    prompt = generator.standard_normal((8, 2))
    exact = attend(reached, prompt)
    proof = certify_oracle(reached, exact, found=1e-29)
    assert proof.lower == 0
    assert proof.boxes < 10
    steep = certify_oracle(reached, aims, found=1e9, tolerance=1e-6, most_boxes=1)
    assert steep.boxes < 10


def test_numbers_beyond_doubles_are_one_line():
    setting, targets, generator = draw(6, 2, 2, 3, 0)
    with pytest.raises(UserError, match="targets must be at most 1e100"):
        oracle_value(setting, targets * 1e200, generator=generator)
    for factor in (1e80, 1e160):
        queries = tuple(factor * query for query in setting.queries)
        with pytest.raises((UserError, RunFailed), match=r"1e100|range of doubles|beyond"):
            oracle_value(
                SharedQuery(layer=setting.layer, queries=queries), targets, generator=generator
            )
