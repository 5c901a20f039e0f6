"""Trained prompts reach the oracle from above and never pass what is proved."""

import json
from fractions import Fraction

import numpy as np
import pytest
from tests.lab.one_layer.oracle_cases import counterexample
from tests.reference.layers import attention_only, draw
from tests.reference.train_prompt import train_prompt

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.lab.one_layer.oracle.certificate import certify_oracle
from promptlimits.lab.one_layer.oracle.length import best_of_length
from promptlimits.lab.one_layer.oracle.problem import oracle_problem
from promptlimits.lab.one_layer.oracle.search import least_sum
from promptlimits.lab.one_layer.oracle.value import certify_value, oracle_value
from promptlimits.lab.one_layer.realise import rank_condition
from promptlimits.lab.one_layer.setting import (
    Front,
    SharedQuery,
    attend,
    shared_query,
)
from promptlimits.nets.paper.weights import HeadWeights

# (d, h, s, k), a mask being immaterial: the shared token stands last and sees everything.
LOW_RANK = [
    (4, 1, 2, 2), (6, 1, 3, 2), (6, 1, 3, 3), (8, 1, 2, 4), (16, 1, 4, 3),
    (6, 2, 2, 2), (6, 2, 2, 3), (6, 2, 3, 3), (8, 2, 4, 3), (12, 2, 4, 4),
    (6, 3, 2, 2), (8, 3, 2, 3), (12, 3, 3, 3), (16, 3, 4, 4), (10, 2, 3, 2),
]  # fmt: skip
FULL_RANK = [(4, 1, 4, 2), (6, 1, 6, 3), (4, 2, 4, 3), (6, 2, 4, 3), (4, 3, 4, 4)]


def value_and_limit(setting, targets, generator, most_boxes=600):
    value = oracle_value(setting, targets, generator=generator)
    proof = certify_value(setting, targets, value, tolerance=1e-3, most_boxes=most_boxes)
    assert proof.lower <= Fraction(value.found) * (1 + Fraction(1, 10**12))
    return value, proof.lower


# 150 layers, each with several trainings of up to 100 steps: 45 s in all.
@pytest.mark.slow
@pytest.mark.parametrize("shape", LOW_RANK)
def test_training_reaches_the_oracle_of_free_heads(shape):
    close = exact = 0
    for seed in range(10):
        setting, targets, generator = draw(*shape, seed)
        assert rank_condition(setting)
        value, limit = value_and_limit(setting, targets, generator, most_boxes=20_000)
        assert limit > Fraction(value.found) * (1 - Fraction(1, 100))
        trained, _ = train_prompt(
            setting, targets, tokens=shape[1], generator=generator, starts=6, steps=100
        )
        assert Fraction(trained) >= limit * (1 - Fraction(1, 10**12))
        assert value.attained
        assert value.found == pytest.approx(value.relaxation, rel=1e-6)
        assert Fraction(value.found) >= limit * (1 - Fraction(1, 10**12))
        close += trained <= value.found * (1 + 1e-4)
        exact += trained <= value.found * (1 + 1e-6)
    assert close >= 5
    assert exact >= 3


# 50 layers whose statistics are not free, trained as long: 20 s in all.
@pytest.mark.slow
@pytest.mark.parametrize("shape", FULL_RANK)
def test_training_never_passes_the_limit_of_full_heads(shape):
    for seed in range(10):
        setting, targets, generator = draw(*shape, seed)
        value, limit = value_and_limit(setting, targets, generator)
        for tokens in (shape[1], 4):
            trained, _ = train_prompt(
                setting, targets, tokens=tokens, generator=generator, starts=2, steps=60
            )
            assert Fraction(trained) >= limit * (1 - Fraction(1, 10**12))
            assert trained >= value.relaxation * (1 - 1e-9)
        errors = attend(setting, value.prompt) - targets
        assert value.found == pytest.approx((errors**2).sum(), rel=1e-12)
        if not rank_condition(setting) and not value.attained:
            assert "perhaps no" in value.why


@pytest.mark.parametrize("shape", [(4, 1, 2, 2), (6, 1, 6, 3), (16, 1, 4, 4)])
def test_one_head_is_certified_to_a_millionth_at_once(shape):
    for seed in range(8):
        setting, targets, generator = draw(*shape, seed)
        found = least_sum(oracle_problem(setting, targets), generator).value
        proof = certify_oracle(setting, targets, found=found)
        assert proof.arithmetic == "arb"
        assert proof.optimal_within == 1e-6
        assert proof.boxes < 500


def test_arb_and_doubles_prove_the_same_of_one_head():
    setting, targets, generator = draw(6, 1, 3, 3, 1)
    idle = setting.layer.heads[0]
    silent = HeadWeights(
        query=idle.query, key=idle.key, value=idle.value[:1], output=np.zeros((6, 1))
    )
    twin = SharedQuery(layer=attention_only(idle, silent), queries=setting.queries)
    found = least_sum(oracle_problem(setting, targets), generator).value
    one = certify_oracle(setting, targets, found=found)
    two = certify_oracle(twin, targets, found=found, tolerance=1e-5)
    assert two.arithmetic != "arb"
    assert float(two.lower) == pytest.approx(float(one.lower), rel=2e-5)


@pytest.mark.parametrize("shape", [(6, 2, 2, 3), (6, 2, 4, 2), (6, 2, 4, 3), (6, 2, 6, 4)])
def test_two_heads_are_certified_to_a_percent(shape):
    for seed in range(3):
        setting, targets, generator = draw(*shape, seed)
        found = least_sum(oracle_problem(setting, targets), generator).value
        proof = certify_oracle(setting, targets, found=found, tolerance=0.01)
        assert proof.optimal_within == 0.01
        assert proof.boxes < 10_000


def test_orthogonal_ranges_decouple():
    setting, targets, generator = draw(8, 2, 3, 3, 0)
    frame = np.linalg.qr(generator.standard_normal((8, 8)))[0]
    heads = []
    for i, head in enumerate(setting.layer.heads):
        output = frame[:, 3 * i : 3 * i + 3] @ generator.standard_normal((3, 3))
        heads.append(HeadWeights(query=head.query, key=head.key, value=head.value, output=output))
    both = SharedQuery(layer=attention_only(*heads), queries=setting.queries)
    whole = least_sum(oracle_problem(both, targets), generator).value
    parts = 0.0
    for i, head in enumerate(heads):
        onto = frame[:, 3 * i : 3 * i + 3]
        alone = SharedQuery(layer=attention_only(head), queries=setting.queries)
        parts += least_sum(oracle_problem(alone, targets @ onto @ onto.T), generator).value
    beside = targets @ frame[:, 6:]
    assert whole == pytest.approx(parts + (beside**2).sum(), rel=1e-8)


@pytest.mark.parametrize("heads", [2, 3, 4, 5, 6])
def test_the_exact_counterexample_has_errors_one_over_root_h_plus_one(heads):
    setting, targets, prompt = counterexample(heads)
    errors = np.linalg.norm(attend(setting, prompt) - targets, axis=1)
    # The prompt's separation, 1e6, costs some digits.
    assert errors == pytest.approx(np.full(heads + 1, (heads + 1) ** -0.5), abs=1e-5)
    if heads < 4:
        found = least_sum(oracle_problem(setting, targets), np.random.default_rng(0))
        # The floor of Theorem 5: the sum of squares is at least 1.
        assert found.value <= (errors**2).sum() * (1 + 1e-9)
        proof = certify_oracle(setting, targets, found=found.value, tolerance=0.01, most_boxes=4000)
        assert proof.lower <= Fraction(found.value)


@pytest.mark.parametrize("shape", [(6, 1, 3, 2), (6, 2, 2, 3), (8, 2, 4, 2)])
def test_the_largest_error_has_a_prompt_and_a_limit(shape):
    for seed in range(3):
        setting, targets, generator = draw(*shape, seed)
        value = oracle_value(setting, targets, objective="largest error", generator=generator)
        proof = certify_value(setting, targets, value, tolerance=1e-4, most_boxes=2000)
        errors = np.linalg.norm(attend(setting, value.prompt) - targets, axis=1)
        assert errors.max() == pytest.approx(value.found)
        assert 0 < proof.lower <= Fraction(value.found)
        assert proof.found == value.found
        squares = certify_oracle(
            setting, targets, found=proof.found**2, scale=value.dual_scale, most_boxes=2000
        )
        # The same proof, of a weighted sum of squares.
        root = (float(squares.lower) / (value.dual_scale**2).sum()) ** 0.5
        assert float(proof.lower) == pytest.approx(root, rel=1e-3)
        # Never below what the sum of squares proves, by more than the tolerance.
        total = oracle_value(setting, targets, generator=generator).found
        assert errors.max() ** 2 >= total / shape[3] * (1 - 1e-9)


def test_the_limit_scales_with_the_layer_and_holds_for_any_weights():
    setting, targets, generator = draw(6, 2, 2, 3, 0)
    value = oracle_value(setting, targets, generator=generator)
    _, prompt = train_prompt(setting, targets, tokens=3, generator=generator, starts=2)
    squares = ((attend(setting, prompt) - targets) ** 2).sum(axis=1)
    for _ in range(3):
        scale = generator.uniform(0.1, 2, 3)
        found = least_sum(oracle_problem(setting, targets).weighted(scale), generator).value
        proof = certify_oracle(setting, targets, found=found, scale=scale, tolerance=1e-3)
        assert proof.optimal_within == 1e-3
        assert sum(
            (w * Fraction(s) for w, s in zip(proof.weights, squares, strict=True)), Fraction(0)
        ) >= proof.lower * (1 - Fraction(1, 10**12))
    doubled = certify_oracle(setting, 2 * targets, found=9e9, most_boxes=300)
    assert doubled.optimal_within is None  # nothing is called optimal beside a poor value
    assert value.found >= 0


def test_fewer_queries_than_free_heads_are_fitted():
    setting, targets, generator = draw(4, 2, 4, 2, 0)
    value = oracle_value(setting, targets, generator=generator)
    assert value.relaxation < 1e-9
    assert value.found > 1  # but no such prompt is known
    assert certify_value(setting, targets, value).lower == 0


def test_length_matters_where_entropy_binds():
    binding = 0
    for seed in range(6):
        setting, targets, generator = draw(4, 1, 4, 3, seed)
        value, limit = value_and_limit(setting, targets, generator)
        assert "entropy" in value.why
        before = np.inf
        for tokens in (1, 2, 4, 8):
            best = best_of_length(setting, targets, tokens=tokens)
            assert best.prompt.shape == (4, tokens)
            assert best.achieved == pytest.approx(best.found, rel=1e-6)
            trained, _ = train_prompt(
                setting, targets, tokens=tokens, generator=generator, starts=4, steps=100
            )
            assert trained >= best.found * (1 - 1e-9)
            assert trained <= best.found * (1 + 1e-2)
            assert limit <= Fraction(best.found)
            assert best.found <= before * (1 + 1e-12)
            binding += best.found < before * (1 - 1e-4) and tokens > 1
            before = best.found
        assert best_of_length(setting, targets).found <= before * (1 + 1e-12)
    assert binding >= 3


def test_results_are_json():
    setting, targets, generator = draw(6, 2, 2, 3, 0)
    value = oracle_value(setting, targets, generator=generator)
    proof = certify_value(setting, targets, value)
    record = json.loads(json.dumps([value.to_json(), proof.to_json()]))
    assert record[0]["found"] == value.found
    assert Fraction(record[1]["lower"]) == proof.lower
    assert record[0]["relaxation"] == value.relaxation
    assert np.array(record[0]["prompt"]).shape == (6, record[0]["prompt_tokens"])
    assert record[1]["optimal_within"] == 1e-6


def test_layers_without_a_construction_say_so():
    setting, targets, generator = draw(6, 2, 2, 3, 0)
    front = Front(gamma=np.ones(6), beta=np.zeros(6), eps=1e-5)
    normalised = SharedQuery(layer=setting.layer, queries=setting.queries, front=front)
    turned = SharedQuery(layer=setting.layer, queries=setting.queries, rotary_base=100.0)
    for case, word in ((normalised, "bounded"), (turned, "rotary")):
        value = oracle_value(case, targets, generator=generator)
        assert value.prompt.shape == (6, 0)
        assert not value.attained
        assert word in value.why
        proof = certify_value(case, targets, value, tolerance=1e-3)
        for _ in range(20):
            prompt = 3 * generator.standard_normal((6, 4))
            error = ((attend(case, prompt) - targets) ** 2).sum()
            assert Fraction(error) >= proof.lower


@pytest.mark.parametrize("shape", [(6, 1, 3, 3), (6, 2, 2, 3), (6, 2, 6, 3), (8, 3, 2, 3)])
def test_steep_layers_are_limited_or_refused(shape):
    for factor in (4.0, 10.0, 40.0):
        setting, targets, generator = draw(*shape, 0)
        steep = SharedQuery(
            layer=setting.layer, queries=tuple(factor * query for query in setting.queries)
        )
        try:
            value = oracle_value(steep, targets, generator=generator)
        except RunFailed as refused:
            assert "beyond doubles" in str(refused)  # noqa: PT017
            continue
        proof = certify_value(steep, targets, value, tolerance=0.01, most_boxes=1500)
        assert 0 <= proof.lower <= Fraction(value.found) * (1 + Fraction(1, 10**9))
        for _ in range(5):
            error = ((attend(steep, generator.standard_normal((shape[0], 3))) - targets) ** 2).sum()
            assert Fraction(error) >= proof.lower


def test_what_cannot_be_asked():
    setting, targets, generator = draw(6, 2, 2, 3, 0)
    with pytest.raises(UserError, match="targets must have the shape"):
        oracle_value(setting, targets[:2], generator=generator)
    with pytest.raises(UserError, match="targets must hold finite"):
        certify_oracle(setting, np.full((3, 6), np.nan), found=1.0)
    with pytest.raises(UserError, match="weights must be above 0"):
        certify_oracle(setting, targets, found=1.0, scale=np.zeros(3))
    with pytest.raises(UserError, match="tolerance"):
        certify_oracle(setting, targets, found=1.0, tolerance=0.0)
    with pytest.raises(UserError, match="one head"):
        best_of_length(setting, targets, tokens=2)
    low, aims, _ = draw(6, 1, 3, 2, 0)
    with pytest.raises(UserError, match="scores that its values determine"):
        best_of_length(low, aims, tokens=2)
    full, aims, _ = draw(4, 1, 4, 2, 0)
    with pytest.raises(UserError, match="prompt tokens"):
        best_of_length(full, aims, tokens=0)


def test_equal_queries_leave_equal_answers():
    setting, targets, generator = draw(6, 2, 2, 2, 0)
    twice = shared_query(setting.layer, setting.token, [setting.queries[0][:, 0]] * 2)
    value = oracle_value(twice, targets, generator=generator)
    proof = certify_value(twice, targets, value, tolerance=1e-3)
    assert proof.optimal_within == 1e-3
    assert value.found >= ((targets[0] - targets[1]) ** 2).sum() / 2 * (1 - 1e-12)
