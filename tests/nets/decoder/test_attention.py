"""Softmax of scores, which takes their memory, against torch's into new memory."""

import pytest
import torch

from promptlimits.nets.decoder.attention import softmax_back, softmax_of

SHAPES = [(3, 5, 16), (2, 7, 71), (2, 3, 1000), (40, 8192), (1, 1, 1)]


def normal(*shape, seed, dtype):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_softmax_in_place_gives_the_bits_of_one_into_new_memory(shape, dtype):
    scores = normal(*shape, seed=0, dtype=dtype).mul_(20)
    scores[..., 1:2] = -torch.inf
    expected = torch.softmax(scores, dim=-1)
    weights = softmax_of(scores)
    assert weights.data_ptr() == scores.data_ptr()
    assert torch.equal(weights, expected)
    gradient = normal(*shape, seed=1, dtype=dtype)
    before = torch._softmax_backward_data(gradient, weights, weights.dim() - 1, dtype)
    after = softmax_back(gradient, weights)
    assert after.data_ptr() == gradient.data_ptr()
    assert torch.equal(after, before)
    assert torch.equal(weights, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_give_the_bits_of_a_softmax_in_32(dtype):
    scores = normal(3, 5, 16, seed=0, dtype=dtype)
    expected = torch.softmax(scores.float(), dim=-1).to(dtype)
    assert torch.equal(softmax_of(scores), expected)
