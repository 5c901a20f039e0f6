"""Floating-point operations of one training step: the fewest that the task needs, and those done.

The exact count is a closed form for Llama-style models. A product of (a, b) with (b, c) costs
2 a b c; nothing but products counts. What it holds, for K pairs of T input tokens and one prompt:

- forward once, with the prompt's P rows once for all pairs;
- backward to the inputs of each product and never to its weights;
- attention of a pair's token to the P prompt keys and to the keys of its own pair up to itself;
  the prompt's own attention likewise up to itself, so both causal parts are triangles;
- in the first layer the pairs' inputs are fixed: their queries, keys and values cost nothing,
  and of the backward only what reaches the prompt's keys and values is counted;
- in the last layer only the queries that are read, their output projection and their MLP, and
  of the prompt its keys and values;
- logits at the read positions.

The triangle is what no product of whole matrices can reach: a step that fills the rectangle does
more: 1% for the short pairs measured here, 10% for a text of 128 tokens at d = 128.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from benchmarks.engine_parts.cases import Case
from torch.utils.flop_counter import FlopCounterMode
from transformers import PretrainedConfig


@dataclass(frozen=True, kw_only=True)
class LlamaShape:
    """Sizes of a Llama-style model.

    Attributes:
        dim: D, width of the residual stream.
        layers: Blocks.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Width of a head.
        mlp: Width of the gated MLP.
        vocabulary: V.
    """

    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocabulary: int

    @classmethod
    def of(cls, config: PretrainedConfig) -> LlamaShape:
        """Read the sizes from a transformers configuration."""
        return cls(
            dim=config.hidden_size,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=getattr(config, "head_dim", None)
            or config.hidden_size // config.num_attention_heads,
            mlp=config.intermediate_size,
            vocabulary=config.vocab_size,
        )

    @property
    def query_flops(self) -> int:
        """Of one token's queries; the output projection costs the same."""
        return 2 * self.dim * self.heads * self.head_dim

    @property
    def key_value_flops(self) -> int:
        """Of one token's keys and values."""
        return 4 * self.dim * self.kv_heads * self.head_dim

    @property
    def mlp_flops(self) -> int:
        """Of one token's gate, up and down projection."""
        return 6 * self.dim * self.mlp

    @property
    def score_flops(self) -> int:
        """Of one query's score with one key in every head; weighing the value costs the same."""
        return 2 * self.heads * self.head_dim


def exact_flops(shape: LlamaShape, case: Case) -> int:
    """The fewest operations of one step, forward and backward, of one problem.

    Args:
        shape: Sizes of the model.
        case: Sizes of the problem.

    Returns:
        FLOPs of the computation described above.
    """
    layers = range(shape.layers)
    inside = sum(_layer(shape, case, first=at == 0, last=at == shape.layers - 1) for at in layers)
    head = 2 * (2 * case.reads * shape.dim * shape.vocabulary)
    return inside + head


def _layer(shape: LlamaShape, case: Case, *, first: bool, last: bool) -> int:
    """One layer's products, forward and backward."""
    prompt_rows = 0 if last else case.prompt_tokens
    rows = case.reads if last else case.input_tokens
    fixed_rows = 0 if first else rows
    fixed_keys = 0 if first else case.input_tokens
    # Every linear product has one backward product of its own size, that to its input.
    linear = 2 * (
        shape.key_value_flops * (case.prompt_tokens + fixed_keys)
        + shape.query_flops * (prompt_rows + fixed_rows)
        + (shape.query_flops + shape.mlp_flops) * (prompt_rows + rows)
    )
    triangle = prompt_rows * (case.prompt_tokens + 1) // 2
    own = case.pairs * sum(case.places_read if last else range(1, case.inputs + 1))
    # Forward 2 products, backward 4. Fixed queries, keys and values of the first layer need no
    # gradient: 3 of the 4 remain on the prompt's keys and none on the pair's own.
    attention = 6 * triangle + (2 if first else 6) * own
    attention += (5 if first else 6) * rows * case.prompt_tokens
    return linear + shape.score_flops * attention


def executed_flops(step: Callable[[], object]) -> int:
    """FLOPs of the products that a call really runs, its backward included.

    torch's counter knows neither products that are added in place nor the fused attention of
    CPUs, so their formulas are added here. Fused attention is 2 products forward and 5 backward
    (it computes the scores again), on the whole rectangle.
    """
    aten = torch.ops.aten
    counter = FlopCounterMode(
        display=False,
        custom_mapping={
            aten.addmm_: _added_product,
            aten.baddbmm_: _added_product,
            aten._scaled_dot_product_flash_attention_for_cpu: _fused_forward,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: _fused_backward,
        },
    )
    with counter:
        step()
    return int(counter.get_total_flops())


def _added_product(_into: Any, left: Any, right: Any, *_: object, **__: object) -> int:
    """Of (..., a, b) with (..., b, c)."""
    return 2 * math.prod(left) * int(right[-1])


def _fused_forward(query: Any, key: Any, *_: object, **__: object) -> int:
    batch, heads, rows, width = query
    return int(4 * batch * heads * rows * key[2] * width)


def _fused_backward(_gradient: Any, query: Any, key: Any, *_: object, **__: object) -> int:
    batch, heads, rows, width = query
    return int(10 * batch * heads * rows * key[2] * width)
