"""A budget is kept by micro-batches that change no result, and memory is counted as it is."""

import os
import platform
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from tests.capacity.train.problems import PAIRS, problem

from promptlimits.base.errors import UserError
from promptlimits.capacity.train.batch import Batch
from promptlimits.capacity.train.engine import train_many
from promptlimits.capacity.train.memory import (
    ActivationMeter,
    LogitBuffer,
    MemoryBudget,
    bytes_of,
    default_budget,
    divide,
    is_out_of_memory,
    pairs_between,
)
from promptlimits.capacity.train.state import PackedState
from promptlimits.nets.protocol import pack

ROOMY = MemoryBudget(total_bytes=2**30)


def members(model):
    return [
        problem(model, 0, pairs=PAIRS, max_steps=6),
        problem(model, 1, prompt_tokens=1, seed=1, pairs=PAIRS * 3, max_steps=6),
        problem(model, 2, prompt_tokens=2, seed=2, pairs=PAIRS[1:], max_steps=6, sharpening=2.0),
    ]


def whole(model, problems):
    return max(bytes_of(model, one, one.pairs) for one in problems)


def budget_for(part_bytes):
    """A budget that leaves so much beside its logits."""
    return MemoryBudget(total_bytes=part_bytes + 2**14, chunk_bytes=2**14)


def test_pairs_cut_out_are_those_packed_on_their_own():
    packed = pack(PAIRS)
    for first in range(4):
        for last in range(first + 1, 5):
            cut, own = pairs_between(packed, first, last), pack(PAIRS[first:last])
            for name in ("input_ids", "lengths", "read", "targets", "pair_of_read"):
                assert torch.equal(getattr(cut, name), getattr(own, name))
    assert pairs_between(packed, 0, 4) is packed


@pytest.mark.parametrize("share", [10.0, 1.0, 0.6, 0.35])
def test_a_division_is_complete_in_order_and_within_the_budget(share, tiny):
    problems = members(tiny)
    budget = budget_for(int(share * whole(tiny, problems)))
    division = divide(tiny, problems, budget)
    assert (len(division) == 1) == (share == 10.0)
    for pieces in division:
        assert sum(piece.part_bytes for piece in pieces) <= budget.part_bytes
        indices = [piece.index for piece in pieces]
        assert indices == list(range(indices[0], indices[-1] + 1))
    for index, one in enumerate(problems):
        targets = [
            piece.pairs.targets for pieces in division for piece in pieces if piece.index == index
        ]
        assert torch.equal(torch.cat(targets), one.pairs.targets)
        assert (len(targets) > 1) == (bytes_of(tiny, one, one.pairs) > budget.part_bytes)


@pytest.mark.parametrize("share", [1.0, 0.6, 0.35])
def test_scores_and_gradients_of_pieces_are_those_of_one_pass(share, tiny):
    problems = members(tiny)
    prompts = PackedState.of([one.state for one in problems]).prompt
    right = torch.tensor([0.0, 0.5, 0.9])
    scores, gradient = Batch(tiny, problems, ROOMY).run(prompts, right)
    budget = budget_for(int(share * whole(tiny, problems)))
    assert len(divide(tiny, problems, budget)) > 1
    cut = Batch(tiny, problems, budget)
    parts, summed = cut.run(prompts, right)
    torch.testing.assert_close(summed, gradient, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(parts.loss_nats, scores.loss_nats, rtol=1e-12, atol=0)
    assert torch.equal(parts.exact, scores.exact)
    assert torch.equal(parts.tokens_right, scores.tokens_right)


def test_a_problem_cut_in_pieces_ends_as_it_does_whole(tiny):
    (one,) = members(tiny)[1:2]
    (expected,) = train_many(tiny, [one])
    tight = budget_for(int(0.35 * whole(tiny, [one]))).total_bytes
    (found,) = train_many(tiny, [one], budget_bytes=tight)
    torch.testing.assert_close(found.prompt, expected.prompt, rtol=1e-9, atol=1e-9)
    assert 0 < found.activation_bytes < expected.activation_bytes


def test_a_budget_that_cannot_hold_one_pair_is_one_line(tiny):
    for budget in (10, 10_000):
        with pytest.raises(UserError, match=r"memory budget must hold one pair .*; allow more"):
            list(train_many(tiny, members(tiny), budget_bytes=budget))
    # Enough for the pass, not for a row of logits.
    budget = MemoryBudget(total_bytes=2**30, chunk_bytes=8)
    with pytest.raises(UserError, match="one row of a block of logits"):
        divide(tiny, members(tiny), budget)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_halves_and_goes_on_with_the_same_step(error, tiny, monkeypatch):
    problems = members(tiny)
    expected = {fit.key: fit for fit in train_many(tiny, problems, slots=3)}
    plenty = Batch.run
    tried = []

    def scarce(self, prompts, most_right):
        tried.append(self.largest_bytes)
        if self.largest_bytes > 0.5 * whole(tiny, problems):
            raise error
        return plenty(self, prompts, most_right)

    monkeypatch.setattr(Batch, "run", scarce)
    steps = []
    found = list(
        train_many(tiny, problems, slots=3, on_step=lambda _, report, __: steps.append(report.step))
    )
    # What was tried shrank by half each time, whatever the budget had been.
    failed = [size for size in tried if size > 0.5 * whole(tiny, problems)]
    assert all(after <= before / 2 for before, after in zip(failed, tried[1:], strict=False))
    assert 1 <= len(failed) < 5
    assert steps == [step for step in range(1, 7) for _ in problems]
    for fit in found:
        torch.testing.assert_close(fit.prompt, expected[fit.key].prompt, rtol=1e-9, atol=1e-9)


def test_any_other_error_is_not_taken_for_a_lack_of_memory(tiny, monkeypatch):
    def faulty(self, prompts, most_right):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Batch, "run", faulty)
    with pytest.raises(RuntimeError, match="shapes"):
        list(train_many(tiny, members(tiny)))
    assert not is_out_of_memory(KeyboardInterrupt())


def test_memory_kept_for_the_backward_pass_is_counted_once_for_each_storage():
    meter = ActivationMeter()
    weight, leaf = torch.ones(8, 8), torch.ones(4, 8, requires_grad=True)
    with meter.watching():
        # tanh keeps its result, and the product keeps the weight and nothing of its own.
        hidden = (leaf @ weight).tanh()
        result = hidden * hidden
    (gradient,) = torch.autograd.grad(result.sum(), leaf)
    assert meter.freed_bytes() == 0
    del hidden, result
    assert meter.freed_bytes() == 4 * 8 * 4
    assert gradient.shape == leaf.shape


def test_activation_memory_grows_with_the_pairs(tiny):
    def kept(one):
        reports = []
        list(train_many(tiny, [one], on_step=lambda _, at, __: reports.append(at.activation_bytes)))
        assert len(set(reports)) == 1
        return reports[0]

    small, large = problem(tiny, max_steps=2), problem(tiny, max_steps=2, pairs=PAIRS * 8)
    assert 0 < 3 * kept(small) < kept(large)


def test_what_a_step_kept_is_what_its_largest_micro_batch_kept(tiny):
    def kept(problems, budget):
        assert len(divide(tiny, problems, budget)) == len(problems)
        batch = Batch(tiny, problems, budget)
        state = PackedState.of([one.state for one in problems])
        batch.run(state.prompt, state.most_right)
        assert batch.activation_bytes is not None
        return batch.activation_bytes

    # The largest in the middle: neither the first nor the last one is taken for it.
    problems = members(tiny)
    each = [kept([one], ROOMY) for one in problems]
    assert each[1] > max(each[0], each[2])
    assert kept(problems, budget_for(whole(tiny, problems))) == each[1]


@pytest.mark.parametrize(("above", "power"), [(0, 32), (-1, 31), (2**32, 32)])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_default_budget_is_half_of_what_is_free(above, power, device, monkeypatch):
    free = 2**33 + above
    sizes = {"SC_AVPHYS_PAGES": free, "SC_PAGE_SIZE": 1}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 2**40))
    assert default_budget(torch.device(device)) == 2**power


def test_the_default_budget_is_a_power_of_two_below_what_is_free():
    found = default_budget(torch.device("cpu"))
    assert found.bit_count() == 1
    assert found >= 2**20
    asked = MemoryBudget.on(torch.device("cpu"), 1000)
    assert (asked.total_bytes, asked.logit_bytes, asked.part_bytes) == (1000, 250, 750)
    assert replace(asked, total_bytes=800).halved(10**6).total_bytes == 400
    assert asked.halved(150).total_bytes == 75


def test_no_more_problems_run_at_once_than_the_budget_holds(tiny):
    problems = [problem(tiny, key, max_steps=2) for key in range(4)]
    each = whole(tiny, problems[:1])
    together = []
    fits = train_many(
        tiny,
        problems,
        # A quarter is for logits.
        budget_bytes=4 * (2 * each) // 3 + 4,
        on_step=lambda _, report, __: together.append(report.problems),
    )
    assert len(list(fits)) == 4
    assert set(together) == {2}


PLACE = """
import torch
from promptlimits.capacity.train.memory import keep_freed_memory

{prepare}
block = torch.empty(4 * 2**20, dtype=torch.uint8)
(heap,) = [line for line in open("/proc/self/maps") if line.rstrip().endswith("[heap]")]
first, last = (int(bound, 16) for bound in heap.split()[0].split("-"))
print(first <= block.data_ptr() < last)
"""


def is_on_the_heap(prepare):
    # A process of its own: glibc's limits are the process's.
    script = PLACE.format(prepare=prepare)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout.strip() == "True"


@pytest.mark.slow  # two processes that import torch
@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="another allocator has rules of its own"
)
def test_large_blocks_come_from_the_heap():
    assert not is_on_the_heap("")
    assert is_on_the_heap("keep_freed_memory(torch.device('cpu'))")


def test_the_same_memory_serves_matrices_of_any_shape_that_fits():
    scratch, like = LogitBuffer(), torch.zeros(1)
    first = scratch.matrix(4, 6, like)
    assert first.shape == (4, 6)
    assert first.is_contiguous()
    for rows, columns in ((2, 6), (8, 3), (1, 1)):
        again = scratch.matrix(rows, columns, like)
        assert again.shape == (rows, columns)
        assert again.is_contiguous()
        assert again.data_ptr() == first.data_ptr()


def test_more_room_or_another_dtype_is_other_memory():
    scratch = LogitBuffer()
    small = scratch.matrix(2, 2, torch.zeros(1))
    large = scratch.matrix(3, 2, torch.zeros(1))
    assert large.data_ptr() != small.data_ptr()
    wide = scratch.matrix(1, 2, torch.zeros(1, dtype=torch.float64))
    assert wide.dtype == torch.float64
