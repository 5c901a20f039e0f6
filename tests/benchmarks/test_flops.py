"""The closed form of a step's operations, against its twin and against what runs."""

from dataclasses import replace

import pytest
import torch
from benchmarks.engine_parts.cases import Case, random_packed, random_pairs
from benchmarks.engine_parts.engine_side import EngineSteps
from benchmarks.engine_parts.flops import LlamaShape, exact_flops, executed_flops
from benchmarks.engine_parts.models import small_model
from benchmarks.engine_parts.peft_loop import PeftLoop, padded
from benchmarks.engine_parts.steps import executed_over_exact, start

SHAPE = LlamaShape(dim=128, layers=4, heads=4, kv_heads=2, head_dim=32, mlp=352, vocabulary=1024)


def by_products(shape, case):
    """The same count, product after product: (rows, inner, columns) of each."""
    k, p, t, r = case.pairs, case.prompt_tokens, case.input_tokens, case.reads
    wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    products = []
    for layer in range(shape.layers):
        first, last = layer == 0, layer == shape.layers - 1
        asking = ([] if last else [p]) + [r if last else t]
        fixed = [False] * (len(asking) - 1) + [first]
        for rows, is_fixed in zip(asking, fixed, strict=True):
            moving = [] if is_fixed else [(rows, shape.dim, wide)]
            moving += [(rows, wide, shape.dim), *[(rows, shape.dim, shape.mlp)] * 3]
            products += [product for product in moving for _ in ("forward", "backward")]
        for rows in [p] if first else [p, t]:
            products += [(rows, shape.dim, narrow)] * 4
        for _ in range(shape.heads):
            scores = [] if last else [(1, shape.head_dim, seen) for seen in range(1, p + 1)]
            products += scores * 6
            products += [(r if last else t, shape.head_dim, p)] * (5 if first else 6)
            places = case.places_read if last else range(1, case.inputs + 1)
            own = [(k, shape.head_dim, seen) for seen in places]
            products += own * (2 if first else 6)
    products += [(r, shape.dim, shape.vocabulary)] * 2
    return sum(2 * rows * inner * columns for rows, inner, columns in products)


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize(
    "case", [Case.halves(3, 2, 5), Case.halves(64, 8, 8), Case.texts(2, 1, 16)]
)
def test_the_closed_form_is_the_sum_over_products(layers, case):
    shape = replace(SHAPE, layers=layers)
    assert exact_flops(shape, case) == by_products(shape, case)


def test_a_value_token_is_read_at_the_place_before_it():
    assert list(Case.halves(1, 1, 8).places_read) == [4, 5, 6, 7]
    assert list(Case.texts(1, 1, 4).places_read) == [1, 2, 3]
    packed = random_packed(Case.halves(2, 1, 8), vocabulary=1024)
    assert (packed.read + 1).tolist() == [4, 5, 6, 7, 11, 12, 13, 14]


def test_a_batch_for_peft_is_padded_at_the_end_and_scored_on_values_only():
    first, second = random_pairs(Case.halves(2, 1, 4), vocabulary=1024)
    short = replace(second, value_ids=second.value_ids[:1])
    ids, mask, labels = padded([first, short])
    assert ids[1].tolist() == [*short.key_ids, *short.value_ids, 0]
    assert mask.tolist() == [[1] * 4, [1, 1, 1, 0]]
    assert labels[0].tolist() == [-100, -100, *first.value_ids]
    assert labels[1].tolist() == [-100, -100, *short.value_ids, -100]


def test_products_added_in_place_are_counted():
    left, right = torch.zeros(3, 2, 5), torch.zeros(3, 5, 7)
    into = torch.zeros(3, 2, 7)
    assert executed_flops(lambda: into.baddbmm_(left, right)) == 3 * 2 * 2 * 5 * 7
    assert executed_flops(lambda: into[0].addmm_(left[0], right[0])) == 2 * 2 * 5 * 7


@pytest.fixture(scope="module")
def small():
    with small_model(layers=2) as model:
        return model


@pytest.fixture(scope="module")
def four_layers():
    with small_model() as model:
        return model


def test_a_peft_step_is_counted_whole(small):
    case = Case.halves(3, 2, 4)
    loop = PeftLoop(small.stock, random_pairs(case, vocabulary=1024), start(small, case))
    found = executed_flops(loop.step)
    shape, rows, seen = small.shape, 3 * 6, 6
    linear = shape.key_value_flops + 2 * shape.query_flops + shape.mlp_flops
    logits = 2 * shape.dim * shape.vocabulary
    # Every product once more in the backward pass; attention 2 products and 5.
    attention = 7 * shape.score_flops * rows * seen
    assert found == rows * (2 * shape.layers * linear + 2 * logits) + shape.layers * attention


def test_both_sides_have_one_gradient(small):
    case = Case.halves(5, 3, 6)
    prompt = start(small, case)
    loop = PeftLoop(small.stock, random_pairs(case, vocabulary=1024), prompt)
    loop.step()
    side = EngineSteps(small.engine, [random_packed(case, vocabulary=1024)], [prompt])
    gap = (side.step() - loop.gradient).norm() / loop.gradient.norm()
    # float32 sums of some hundred terms in another order.
    assert gap < 1e-4


@pytest.mark.parametrize(
    "case", [Case.halves(64, 8, 8), Case.halves(64, 64, 8), Case.halves(256, 128, 4)]
)
def test_a_step_runs_few_operations_that_the_task_does_not_need(four_layers, case):
    # No step can run fewer; what it may add is the empty half of its causal parts.
    assert 1.0 <= executed_over_exact(four_layers, case) < 1.1
