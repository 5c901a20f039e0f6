"""Targets against all other tokens: blocks of the vocabulary against all of it, and autograd."""

import weakref
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from promptlimits.capacity.train.config import Objective
from promptlimits.capacity.train.margins import margins
from promptlimits.capacity.train.memory import LogitBuffer
from promptlimits.nets.decoder.linear import Linear, LinearHead
from promptlimits.nets.routes.whole_model import IdentityHead

VOCABULARY, ROWS, WIDTH = 23, 40, 4
TARGETS = (torch.arange(ROWS) % VOCABULARY)[:, None]
WHOLE = 10 * VOCABULARY


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def head_of(scale=1.0, dtype=torch.float64, *, shift=0.0):
    weight, bias = scale * random(VOCABULARY, WIDTH, seed=1), shift + random(VOCABULARY, seed=2)
    return LinearHead(linear=Linear(weight=weight.to(dtype), bias=bias.to(dtype)))


def sharpenings():
    return 0.5 + random(ROWS, 1, seed=3).abs()


def held(head, states, objective, most_tokens, *, differentiate=True, new_memory=False):
    return margins(
        states,
        head,
        TARGETS,
        sharpenings(),
        objective,
        blocks=head.blocks(most_tokens),
        differentiate=differentiate,
        memory=None if new_memory else LogitBuffer().matrix,
    )


def slow_gap(logits, objective):
    """g as `objective` defines it."""
    own = logits.gather(1, TARGETS)
    rivals = logits.scatter(1, TARGETS, -torch.inf)
    if objective is Objective.MARGIN:
        return sharpenings() * (rivals.amax(dim=1, keepdim=True) - own)
    return (sharpenings() * rivals).logsumexp(dim=1, keepdim=True) - sharpenings() * own


@pytest.mark.parametrize("most_tokens", [3, 4, 5, 11, 12, 22, WHOLE])
@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (300.0, 0.0), (1.0, -1e6)])
def test_gap_and_gradient_are_those_of_autograd_for_blocks_of_any_size(
    most_tokens, objective, scale, shift
):
    head, states = head_of(scale, shift=shift), random(ROWS, WIDTH).requires_grad_(True)
    found = held(head, states.detach(), objective, most_tokens)
    logits = head.logits(states)
    gap = slow_gap(logits, objective)
    (expected,) = torch.autograd.grad((gap / sharpenings()).sum(), states)
    atol = 1e-11 if shift == 0 else 1e-8
    torch.testing.assert_close(found.gap, gap.detach(), rtol=1e-12, atol=atol)
    torch.testing.assert_close(found.gradient, expected, rtol=1e-11, atol=atol)
    rivals = logits.detach().clone()
    own = rivals.gather(1, TARGETS)
    torch.testing.assert_close(found.own, own, rtol=1e-12, atol=1e-12)
    for name, filler in (("low", torch.inf), ("others", -torch.inf)):
        others = rivals.scatter(1, TARGETS, filler)
        extreme = others.amin(dim=1) if name == "low" else others.amax(dim=1)
        torch.testing.assert_close(getattr(found, name)[:, 0], extreme, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("most_tokens", [4, WHOLE])
def test_a_row_with_what_is_not_a_number_spoils_no_other(objective, most_tokens):
    states = random(ROWS, WIDTH)
    clean = held(head_of(), states, objective, most_tokens)
    states[7, 2] = torch.nan
    found = held(head_of(), states, objective, most_tokens)
    rest = torch.arange(ROWS) != 7
    assert found.gap[7].isnan().all()
    for name, column in vars(found).items():
        assert torch.equal(column[rest], getattr(clean, name)[rest]), name


@pytest.mark.parametrize("most_tokens", [4, WHOLE])
@pytest.mark.parametrize("objective", list(Objective))
def test_without_a_gradient_the_rest_is_the_same(objective, most_tokens):
    states, head = random(ROWS, WIDTH), head_of()
    full = held(head, states, objective, most_tokens)
    bare = held(head, states, objective, most_tokens, differentiate=False, new_memory=True)
    assert bare.gradient.numel() == 0
    for name in ("own", "low", "others", "gap"):
        assert torch.equal(getattr(bare, name), getattr(full, name)), name


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("most_tokens", [4, 12])
def test_blocks_in_which_nothing_can_win_count_for_nothing(first, most_tokens):
    whole = head_of()
    bias = torch.zeros(VOCABULARY, dtype=torch.float64)
    bias[slice(12) if first else slice(12, None)] = -torch.inf
    head = LinearHead(linear=Linear(weight=whole.linear.weight, bias=bias))
    states = random(ROWS, WIDTH)
    found = held(head, states, Objective.CROSS_ENTROPY, most_tokens)
    expected = held(head, states, Objective.CROSS_ENTROPY, WHOLE)
    torch.testing.assert_close(found.gap, expected.gap, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.gradient, expected.gradient, rtol=1e-12, atol=1e-12)
    assert found.gradient.isfinite().all()


@pytest.mark.parametrize(("lower", "higher"), [(2, 20), (20, 2)])
def test_rivals_of_different_blocks_are_weighed_as_in_one(lower, higher):
    # Products of 1e7, whose rounding is half: it must be the same in both blocks.
    weight = torch.zeros(VOCABULARY, 2)
    weight[lower, 0], weight[higher, 0], weight[higher, 1] = 1e3, 1e3 + 2**-13, 1.0
    head = LinearHead(linear=Linear(weight=weight))
    target, sharpening = torch.tensor([[11]]), torch.tensor([[1e4]])
    gradients = [
        margins(
            torch.tensor([[1.0, 0.0]]),
            head,
            target,
            sharpening,
            Objective.CROSS_ENTROPY,
            blocks=head.blocks(most_tokens),
        ).gradient
        for most_tokens in (12, WHOLE)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=0)


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_block_is_alive_at_a_time(objective, dtype):
    made = []

    class Watched(LinearHead):
        def logits(self, states, memory=None):
            assert all(earlier() is None for earlier in made)
            found = super().logits(states, memory)
            # What is written to in single precision is a copy of these.
            made.append(weakref.ref(found))
            return found

        def blocks(self, most):
            return [Watched(linear=block.linear) for block in super().blocks(most)]

    head = Watched(linear=head_of(dtype=dtype).linear)
    copies = []
    floated = Tensor.float

    def watched_float(logits):
        assert all(earlier() is None for earlier in copies)
        copies.append(weakref.ref(found := floated(logits)))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "float", watched_float)
        held(head, random(ROWS, WIDTH).to(dtype), objective, 5, new_memory=True)
    assert len(made) == 5
    assert len(copies) == (5 if dtype is torch.bfloat16 else 0)


@pytest.mark.parametrize("most_tokens", [6, WHOLE])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_pulled_back_in_shares(dtype, most_tokens):
    head, states = head_of(3.0, dtype), random(ROWS, WIDTH).to(dtype)
    found = held(head, states, Objective.CROSS_ENTROPY, most_tokens)
    logits = head.logits(states).double().requires_grad_(True)
    gap = slow_gap(logits, Objective.CROSS_ENTROPY)
    (in_logits,) = torch.autograd.grad((gap / sharpenings()).sum(), logits)
    assert found.gradient.dtype == torch.float32
    torch.testing.assert_close(found.gap.double(), gap.detach(), rtol=1e-5, atol=1e-5)
    expected = in_logits @ head.linear.weight.double()
    torch.testing.assert_close(found.gradient.double(), expected, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("most", [2, 7, 8, 22, 23, 100])
def test_blocks_cover_the_vocabulary_in_order_without_a_copy(most):
    head = head_of()
    blocks = head.blocks(most)
    assert torch.cat([block.linear.weight for block in blocks]).equal(head.linear.weight)
    assert sum(block.vocabulary for block in blocks) == VOCABULARY
    sizes = [block.vocabulary for block in blocks]
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert all(first.vocabulary >= second.vocabulary for first, second in pairwise(blocks))
    storage = head.linear.weight.untyped_storage().data_ptr()
    assert {block.linear.weight.untyped_storage().data_ptr() for block in blocks} == {storage}
    states = random(ROWS, WIDTH)
    logits = torch.cat([block.logits(states) for block in blocks], dim=1)
    torch.testing.assert_close(logits, head.logits(states), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("head", [head_of(), IdentityHead(vocabulary=VOCABULARY)])
def test_one_token_pulls_back_as_a_gradient_of_one_there(head):
    only = torch.zeros(ROWS, VOCABULARY, dtype=torch.float64).scatter_(1, TARGETS, 1.0)
    whole = head.pull_back(only)
    before = random(*whole.shape)
    after = head.pull_back_tokens(TARGETS, -2.0, before.clone())
    torch.testing.assert_close(after, before - 2 * whole, rtol=1e-14, atol=1e-14)
