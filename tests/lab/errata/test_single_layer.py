"""E13, E14, E15: one layer, run on the prompt."""

import math
from dataclasses import replace

import pytest
import torch

from promptlimits.lab.errata.single_layer import (
    OrthogonalTargets,
    codimension,
    floor_of_errors,
    offset_of_targets,
    orthogonal_targets,
)
from promptlimits.lab.errata.statements import run
from promptlimits.nets.paper.layers import PaperHead, PaperLayer
from promptlimits.nets.paper.transformer import PaperTransformer

EXPECTED = {1: 0.707107, 2: 0.57735, 3: 0.5, 4: 0.447214, 5: 0.408248, 6: 0.377964}


@pytest.mark.parametrize("heads", EXPECTED)
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_the_errors_are_all_one_over_the_root_of_h_plus_one(heads, seed):
    found = floor_of_errors(heads, seed).to_json()
    errors = found["errors"]
    assert len(errors) == heads + 1
    # exp(log Z) with Z = 10^6 loses some 14 units of the last place.
    assert errors == pytest.approx([1 / math.sqrt(heads + 1)] * (heads + 1), abs=1e-11)
    assert errors[0] == pytest.approx(EXPECTED[heads], abs=5e-7)
    assert (found["heads"], found["published_floor"]) == (heads, 0.5)
    assert found["refutes"] is (heads >= 4)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("seed", [None, 2])
def test_the_hypotheses_of_the_theorem_hold(heads, seed):
    built = orthogonal_targets(heads, seed)
    assert built.model.dim - heads**2 - 2 * heads > 0
    one = torch.eye(heads + 1, dtype=torch.float64)
    torch.testing.assert_close(built.offsets @ built.offsets.T, one, rtol=0, atol=1e-12)
    # What attention gives on the queries alone, whose span E the targets must avoid: nothing.
    alone = built.model(built.queries)[..., -1] - built.queries[..., -1]
    assert float((alone @ built.offsets.T).abs().max()) < 1e-11
    assert built.prompt.shape == (built.model.dim, heads)
    # All queries end with the same token.
    assert float(built.queries[..., -1].std(dim=0).max()) < 1e-15


def test_no_prompt_of_the_construction_goes_below_the_corrected_floor():
    """Theorem 5 holds for every prompt: random ones near the best, and of other lengths."""
    built = orthogonal_targets(4)
    draws = torch.Generator().manual_seed(0)
    for length in (1, 4, 7):
        for size in (0.01, 1.0):
            base = built.prompt[:, torch.arange(length) % 4]
            noise = torch.randn(base.shape, generator=draws, dtype=torch.float64)
            moved = replace(built, prompt=base + size * noise)
            assert max(moved.errors()) >= 1 / math.sqrt(5) - 1e-11


def test_offsets_in_the_span_of_the_queries_outputs_have_no_floor():
    """Why E13 asks for more than offsets orthogonal to each other: both errors are 0 here."""
    one = torch.eye(4, dtype=torch.float64)
    value = torch.diag(torch.tensor([0.0, 1, 1, 1], dtype=torch.float64))
    head = PaperHead(query=one, key=one, value=value, output=one)
    model = PaperTransformer(layers=(PaperLayer.without_mlp(head),))
    queries = torch.stack([torch.stack([3 * one[0] + one[j], one[0]], dim=1) for j in (1, 2)])
    offsets = model(queries)[..., -1] - queries[..., -1]
    assert abs(float(offsets[0] @ offsets[1])) < 1e-15
    assert float(offsets.norm(dim=1).min()) > 0.8
    built = OrthogonalTargets(
        model=model, prompt=-50 * one[:, :1], queries=queries, offsets=offsets
    )
    assert max(built.errors()) < 1e-15


def test_the_offset_of_the_targets_is_no_error():
    found = offset_of_targets().to_json()
    assert found["errors"] == [1.0, 1.0]
    assert found["published_floor"] == pytest.approx(math.sqrt(100**2 + 1) / 2)
    assert found["corrected_floor"] == pytest.approx(1 / math.sqrt(2))


@pytest.mark.parametrize("heads", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_codimension_is_d_minus_h(heads, seed):
    found = codimension(heads, seed).to_json()
    assert found["rank"] == 3 * heads + heads
    assert found["codimension"] == found["corrected_codimension"] == 2 * heads


def test_the_command_gives_what_is_promised():
    found = run("E13")
    assert {"heads": 4, "published_floor": 0.5}.items() <= found.to_json().items()


@pytest.mark.parametrize("heads", [2, 5])
def test_the_outputs_are_the_columns_of_the_projection(heads):
    """Errors alone would not see it: they are stationary at the best prompt."""
    built = orthogonal_targets(heads, 1)
    outputs = built.model.with_prompt(built.prompt, built.queries)[..., -1]
    signs = torch.ones(heads + 1, dtype=torch.float64)
    signs[-1] = -1
    projection = torch.eye(heads + 1).double() - torch.outer(signs, signs) / (heads + 1)
    expected = projection @ built.offsets + built.queries[..., -1]
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-11)
