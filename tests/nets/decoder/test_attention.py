"""Softmax of scores against torch's into new memory, and the ways of attention compared."""

import pytest
import torch

from promptlimits.nets.decoder.attention import (
    WORTH_IT,
    Fused,
    Given,
    Masks,
    Streamed,
    Whole,
    softmax_back,
    softmax_of,
    way_of,
)
from promptlimits.nets.decoder.plan import visible

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


# --- the ways ---------------------------------------------------------------------------------

KV_HEADS, PROBLEMS, PAIRS, GROUP, LONGEST, WIDTH = 2, 3, 4, 3, 5, 8


def masks_of(prompt_tokens, *, window=None, ragged=False):
    """Causal masks; `ragged`: each pair asks at places of its own."""
    pairs = PROBLEMS * PAIRS if ragged else 1
    shift = torch.arange(pairs)[:, None] % 2
    slots = (torch.arange(LONGEST) - shift).clamp_min(0)
    own, front = torch.arange(LONGEST), torch.arange(prompt_tokens)

    def added(seen):
        return torch.zeros(seen.shape, dtype=torch.float64).masked_fill(~seen, -torch.inf)

    in_pair = visible(slots[..., None] - own, window)
    in_prompt = visible(prompt_tokens + slots[..., None] - front, window)
    return Masks(
        own=added(in_pair[:, None]),
        prompt=None if in_prompt.all() else added(in_prompt[:, None]),
        within=added(visible(front[:, None] - front, window)),
    )


def went(way, masks, prompt_tokens, *, fixed):
    """Outputs and gradients of a way, on the same random heads."""
    pairs, problems = KV_HEADS * PROBLEMS * PAIRS, KV_HEADS * PROBLEMS
    shape = torch.Size((KV_HEADS, PROBLEMS, PAIRS, GROUP, LONGEST, WIDTH))

    def draw(count, rows, seed):
        return normal(count, rows, WIDTH, seed=seed, dtype=torch.float64)

    query, gradient = (draw(pairs, GROUP * LONGEST, seed) for seed in (0, 1))
    prompt = draw(problems, prompt_tokens, 2), draw(problems, prompt_tokens, 3)
    own = draw(pairs, LONGEST, 4), draw(pairs, LONGEST, 5)
    with torch.inference_mode():
        given = Given(prompt=prompt, masks=masks, shape=shape)
        out, kept = way.forward(query, own, given, keeps=True)
        assert len(kept) == way.kept
        bare, nothing = way.forward(query, own, given, keeps=False)
        assert nothing == ()
        assert torch.equal(bare, out)
        d_query, d_prompt, d_own = way.backward(gradient, list(kept), given, fixed=fixed)
    found = (out, *d_prompt) if fixed else (out, *d_prompt, d_query, *d_own)
    return [one.clone() for one in found]


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize(
    ("prompt_tokens", "asked"),
    [
        (3, {}),
        (0, {}),
        (3, {"ragged": True}),
        (6, {"window": 4}),
        (6, {"window": 4, "ragged": True}),
    ],
)
def test_every_way_gives_the_same_values_and_gradients(prompt_tokens, asked, fixed):
    masks = masks_of(prompt_tokens, **asked)
    assert (masks.prompt is None) == ("window" not in asked)
    whole = went(Whole(), masks, prompt_tokens, fixed=fixed)
    # The blocked kernel of the CPU takes no mask of the prompt.
    others = [Fused()] if masks.prompt is not None else [Fused(), Streamed()]
    for way in others:
        for one, expected in zip(went(way, masks, prompt_tokens, fixed=fixed), whole, strict=False):
            torch.testing.assert_close(one, expected, rtol=1e-11, atol=1e-13)


def test_the_way_is_chosen_by_device_length_and_masks():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    chosen = {
        (device.type, long, hidden): type(way_of(device, WORTH_IT - (not long), hidden=hidden))
        for device in (cpu, cuda)
        for long in (False, True)
        for hidden in (False, True)
    }
    assert {key: way for key, way in chosen.items() if way is not Whole} == {
        ("cpu", True, False): Streamed,
        ("cuda", True, False): Fused,
        ("cuda", True, True): Fused,
    }
