"""Exactness, lead, losses and their gradients, against what they mean."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, softplus

from promptlimits.capacity.train.config import Objective, TrainingConfig
from promptlimits.capacity.train.memory import LogitBuffer
from promptlimits.capacity.train.objective import (
    Rows,
    Run,
    fewest_logits,
    lead,
    score_rows,
)
from promptlimits.nets.decoder.linear import Linear, LinearHead
from promptlimits.nets.protocol import EncodedPair, pack
from promptlimits.nets.routes.whole_model import IdentityHead

VOCABULARY = 8
PAIRS = [
    EncodedPair(key="", value="", key_ids=(1,), value_ids=(2, 0)),
    EncodedPair(key="", value="", key_ids=(3, 4), value_ids=(5, 6, 0)),
]
PACKED = pack(PAIRS)
HEAD = IdentityHead(vocabulary=VOCABULARY)
ROOMY = 2**20


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class Asked:
    """New memory each time, and which sizes were asked for."""

    def __init__(self):
        self.sizes = []

    def __call__(self, rows, columns, like):
        self.sizes.append((rows, columns))
        return like.new_empty(rows, columns)


def linear_head(weight):
    return LinearHead(linear=Linear(weight=weight))


def rows_of(*sharpening, objective=Objective.CROSS_ENTROPY):
    """One problem for each sharpening, all with the same pairs."""
    return Rows.of(
        [
            (PACKED, TrainingConfig(prompt_tokens=1, sharpening=one, objective=objective), 5)
            for one in sharpening
        ],
        dtype=torch.float64,
        logit_deviation=1.0,
    )


def plain(logits, *, logit_bytes=ROOMY):
    return score_rows(logits, HEAD, Rows.plain(PACKED), logit_bytes=logit_bytes)


def test_reads_and_targets_are_those_of_next_token_prediction():
    assert PACKED.input_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert PACKED.lengths.tolist() == [2, 4]
    assert PACKED.read.tolist() == [0, 1, 3, 4, 5]
    assert PACKED.targets.tolist() == [2, 0, 5, 6, 0]
    assert PACKED.pair_of_read.tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("rows_at_once", [1, 2, 3, 100])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_loss_and_gradient_are_those_of_autograd(rows_at_once, scale):
    weight = scale * random(VOCABULARY, 3, seed=1)
    states = random(15, 3).requires_grad_(True)
    sharpening = (3.0, 1.0, 1.0)
    found = score_rows(
        states, linear_head(weight), rows_of(*sharpening), logit_bytes=4 * VOCABULARY * rows_at_once
    )
    nats = [
        cross_entropy(factor * (part @ weight.T), PACKED.targets, reduction="none")
        for factor, part in zip(sharpening, states.split(5), strict=True)
    ]
    (expected,) = torch.autograd.grad(sum(one.mean() for one in nats), states)
    torch.testing.assert_close(found.loss_nats, torch.cat(nats).detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.gradient, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("objective", list(Objective))
def test_sharpened_rows_are_those_of_settings_with_the_product(objective):
    states, head = random(15, 3), linear_head(random(VOCABULARY, 3, seed=1))
    factors = torch.tensor([2.0, 0.5, 1.0], dtype=torch.float64).repeat_interleave(5)[:, None]
    rows = rows_of(3.0, 3.0, 1.0, objective=objective).sharpened(factors)
    found = score_rows(states, head, rows, logit_bytes=ROOMY)
    told = rows_of(6.0, 1.5, 1.0, objective=objective)
    expected = score_rows(states, head, told, logit_bytes=ROOMY)
    for name, value in vars(expected).items():
        torch.testing.assert_close(getattr(found, name), value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("objective", list(Objective))
def test_scores_in_memory_that_is_used_again_are_those_in_new_memory(objective):
    head, scratch = linear_head(random(VOCABULARY, 3, seed=1)), LogitBuffer()
    for seed, rows_at_once in ((2, 100), (3, 2), (4, 3)):
        states, rows = random(15, 3, seed=seed), rows_of(3.0, 1.0, 1.0, objective=objective)
        room = 4 * VOCABULARY * rows_at_once
        fresh = score_rows(states, head, rows, logit_bytes=room)
        again = score_rows(states, head, rows, logit_bytes=room, memory=scratch.matrix)
        for name, value in vars(fresh).items():
            assert torch.equal(getattr(again, name), value), name


@pytest.mark.parametrize("rows_at_once", [2, 100])
def test_the_margin_loss_is_a_contest_of_the_target_and_its_best_rival(rows_at_once):
    states = random(5, VOCABULARY).requires_grad_(True)
    rows = rows_of(3.0, objective=Objective.MARGIN)
    found = score_rows(states, HEAD, rows, logit_bytes=4 * VOCABULARY * rows_at_once)
    own = states.gather(1, PACKED.targets[:, None])
    rival = states.scatter(1, PACKED.targets[:, None], -torch.inf).amax(dim=1, keepdim=True)
    nats = softplus(3.0 * (rival - own), threshold=100).squeeze(1)
    (expected,) = torch.autograd.grad(nats.mean(), states)
    torch.testing.assert_close(found.loss_nats, nats.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.gradient, expected, rtol=1e-12, atol=1e-12)


def test_a_target_that_wins_by_far_keeps_its_digits():
    # log(1 - p) of float32 is 0 from 17 nats on.
    logits = torch.zeros(5, VOCABULARY)
    logits.scatter_(1, PACKED.targets[:, None], 40.0)
    found = plain(logits)
    expected = 7 * torch.exp(torch.tensor(-40.0))
    torch.testing.assert_close(found.loss_nats, expected.expand(5), rtol=1e-5, atol=0)
    own = found.gradient.gather(1, PACKED.targets[:, None])
    torch.testing.assert_close(own, (-expected).expand(5, 1), rtol=1e-5, atol=0)


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_a_row_leads_when_its_target_is_the_argmax(seed):
    made = random(5, VOCABULARY, seed=seed)
    # Push some targets up so that wins do occur.
    made.scatter_add_(1, PACKED.targets[:, None], torch.full((5, 1), 2.0, dtype=made.dtype))
    found = plain(made)
    assert ((found.lead > 0) == (made.argmax(dim=1) == PACKED.targets)).all()
    torch.testing.assert_close(found.lead, lead(made, PACKED.targets), rtol=1e-12, atol=1e-15)


def test_lead_is_the_distance_to_the_best_other_token_in_units_of_the_largest_logit():
    row = torch.tensor([[[1.0, 4.0, -8.0, 3.0]]], dtype=torch.float64)
    assert lead(row, torch.tensor([1])).item() == pytest.approx((4 - 3) / 8)
    assert lead(row, torch.tensor([3])).item() == pytest.approx((3 - 4) / 8)
    torch.testing.assert_close(lead(5 * row, torch.tensor([1])), lead(row, torch.tensor([1])))


def test_a_tie_is_no_win():
    assert plain(torch.ones(5, VOCABULARY)).lead.tolist() == [0.0] * 5


def test_what_is_not_a_number_never_wins_and_stays_in_its_row():
    made = torch.zeros(5, VOCABULARY, dtype=torch.float64)
    made.scatter_(1, PACKED.targets[:, None], 1.0)
    made[4] = torch.nan
    made[1, 3] = torch.nan
    found = plain(made)
    assert (found.lead > 0).tolist() == [True, False, True, True, False]
    assert found.gradient.isnan().any(dim=1).tolist() == [False, True, False, False, True]


def test_states_that_are_logits_are_left_as_they_were():
    made = random(5, VOCABULARY)
    before = made.clone()
    plain(made, logit_bytes=4 * VOCABULARY * 2)
    assert torch.equal(made, before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("logit_bytes", "chunks"),
    [
        (4 * VOCABULARY * 3, [3, 2]),
        (4 * VOCABULARY * 3 - 1, [2, 2, 1]),
        (4 * VOCABULARY * 5, [5]),
        # One row at a time is the least there is.
        (1, [1] * 5),
    ],
)
def test_a_chunk_has_as_many_rows_as_fit_in_single_precision(logit_bytes, chunks, dtype):
    asked = []

    class Counting(LinearHead):
        def logits(self, states, *memory):
            asked.append(len(states))
            return super().logits(states, *memory)

    head = Counting(linear=Linear(weight=random(VOCABULARY, 3, seed=1).to(dtype)))
    score_rows(random(5, 3).to(dtype), head, Rows.plain(PACKED), logit_bytes=logit_bytes)
    assert asked == chunks


@pytest.mark.parametrize(
    ("rows", "logit_bytes", "expected"),
    [
        # A CPU's cache is the limit, ...
        (2, 2**30, [(2, 2000)] * 10),
        # ... also where fewer tokens would let all rows be in a block: rather rows apart.
        (5, 4 * 3 * 2048, [(3, 2000)] * 10 + [(2, 2000)] * 10),
    ],
)
def test_a_block_on_a_cpu_is_as_wide_as_its_cache_likes(rows, logit_bytes, expected):
    memory = Asked()
    head = linear_head(random(20_000, 3, seed=1))
    pairs = pack([EncodedPair(key="", value="", key_ids=(1,), value_ids=(19_000,))] * rows)
    states = random(rows, 3)
    found = score_rows(states, head, Rows.plain(pairs), logit_bytes=logit_bytes, memory=memory)
    assert memory.sizes == expected
    nats = cross_entropy(head.logits(states), pairs.targets, reduction="none")
    torch.testing.assert_close(found.loss_nats, nats, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("rows", "logit_bytes", "expected"),
    [
        # As many tokens as let all rows be in a block, ...
        (5, 4 * 5 * 5000, [(5, 5000)] * 4),
        # ... but not below 2,048: rather rows apart.
        (5, 4 * 3 * 2048, [(3, 2000)] * 10 + [(2, 2000)] * 10),
    ],
)
def test_a_block_off_a_cpu_has_all_rows_where_that_leaves_tokens_enough(
    rows, logit_bytes, expected
):
    memory = Asked()
    # Tensors without numbers, on a device that is no CPU.
    head = linear_head(torch.empty(20_000, 3, device="meta"))
    scored = Rows(
        targets=torch.empty(rows, 1, dtype=torch.long, device="meta"),
        weights=torch.empty(rows, 1, device="meta"),
        sharpenings=torch.empty(rows, 1, device="meta"),
        runs=(Run(rows=rows, objective=Objective.CROSS_ENTROPY),),
    )
    states = torch.empty(rows, 3, device="meta")
    score_rows(states, head, scored, logit_bytes=logit_bytes, memory=memory)
    assert memory.sizes == expected


@pytest.mark.parametrize("vocabulary", [20_000, 2049, 2048, 10])
def test_the_fewest_logits_of_a_row_are_what_it_takes_at_the_least_budget(vocabulary):
    memory = Asked()
    head = linear_head(random(vocabulary, 3, seed=1))
    pairs = pack([EncodedPair(key="", value="", key_ids=(1,), value_ids=(2,))] * 2)
    score_rows(random(2, 3), head, Rows.plain(pairs), logit_bytes=1, memory=memory)
    assert max(width for _, width in memory.sizes) == fewest_logits(head)
    assert {height for height, _ in memory.sizes} == {1}


def test_half_precision_states_are_scored_in_single_precision():
    weight = random(VOCABULARY, 3, seed=1).to(torch.bfloat16)
    states = random(5, 3).to(torch.bfloat16)
    found = score_rows(states, linear_head(weight), rows_of(4.0), logit_bytes=ROOMY)
    exact = score_rows(
        linear_head(weight).logits(states).double(), HEAD, rows_of(4.0), logit_bytes=ROOMY
    )
    assert found.gradient.dtype == torch.bfloat16
    torch.testing.assert_close(found.loss_nats.double(), exact.loss_nats, rtol=1e-5, atol=1e-6)
    expected = exact.gradient @ weight.double()
    torch.testing.assert_close(found.gradient.double(), expected, rtol=0.05, atol=0.02)


def test_without_a_gradient_the_rest_is_the_same():
    made = random(5, VOCABULARY)
    bare = score_rows(made, HEAD, Rows.plain(PACKED), logit_bytes=ROOMY, differentiate=False)
    assert torch.equal(bare.loss_nats, plain(made).loss_nats)
    assert bare.gradient.numel() == 0
