"""Prove the norms in a checkpoint's certificate again from its weights.

The caller reads the files and hands the weights over, block by block, as arrays by name: `blocks`
of `attention` (`query` of H heads, s rows and D columns, `key` and `value` of the H or fewer heads
that share them, `output` of H, D, s, and biases), `feed_forward` (`up`, `down`, `gate` and biases)
and norms (`eps`, `gain`, `bias`, and an `offset` added to the gain). What is proved of them starts
here: a block's matrices are multiplied by the gain of the norm in front of them and its bias is
added to theirs, with exact products and proved rounding errors (`matrices`).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from promptlimits.checker.core import Refuted, inputs_of
from promptlimits.checker.matrices import (
    Array,
    Near,
    proves_norm_at_most,
    row_norms,
    scaled_columns,
)


def prove_norms(
    certificate: Any, checkpoint: Any, *, sha256: str, on_progress: Callable[[str], None]
) -> None:
    """Prove every norm of a certificate from the checkpoint that it names, or refute it.

    Args:
        certificate: Of kind "model_ceiling", which holds if its norms do.
        checkpoint: `dim`, `layers`, `entry_norm`, `final_norm` and, one at a time, `blocks`.
        sha256: Of the files that the weights were read from.
        on_progress: Told of every block.

    Raises:
        Refuted: The certificate is about another model, or a norm is not proved.
    """
    model = inputs_of(certificate)
    _require_same(model.weights_sha256, sha256, "the hash of the weights")
    _require_same(model.dim, checkpoint.dim, "the width")
    _require_same(len(model.blocks), checkpoint.layers, "the number of blocks")
    before = checkpoint.entry_norm
    outer = checkpoint.final_norm if before is None else before
    _require_norm(model.outer_norm, outer, "the norm around the blocks")
    for place, (block, tensors) in enumerate(zip(model.blocks, checkpoint.blocks, strict=True)):
        on_progress(f"proving the norms of block {place + 1} of {checkpoint.layers}")
        with np.errstate(all="ignore"):  # what overflows is not proved
            _Prover(block, tensors, before, f"of block {place + 1}").prove()
        before = tensors.feed_forward_norm


def _require_same(found: object, right: object, what: str) -> None:
    if type(found) is not type(right) or found != right:
        raise Refuted(f"{what} is not that of the model")


def _require_norm(recorded: Any, norm: Any, what: str) -> None:
    """A recorded norm has the eps of the model, and a gain that is large enough if it has one."""
    _require_same(recorded is None, norm is None, what)
    if recorded is None:
        return
    _require_same(recorded.eps, norm.eps, f"the eps of {what}")
    if hasattr(recorded, "gain"):
        largest = max(abs(norm.offset + Fraction(value)) for value in norm.gain.tolist())
        if largest > recorded.gain:
            raise Refuted(f"the gain of {what} is larger")


class _Prover:
    """Proves the norms of one block."""

    def __init__(self, block: Any, tensors: Any, before: Any, where: str) -> None:
        self._block, self._tensors, self._where = block, tensors, where
        post = tensors.arrangement == "post"
        self._first = before if post else tensors.attention_norm
        self._second = tensors.attention_norm if post else tensors.feed_forward_norm

    def prove(self) -> None:
        """Every norm of the block, or Refuted."""
        block, tensors = self._block, self._tensors
        _require_same(block.arrangement, tensors.arrangement, f"the arrangement {self._where}")
        for name in ("attention_norm", "feed_forward_norm"):
            for key in (name, name.replace("norm", "post_norm")):
                norm = getattr(tensors, key)
                _require_norm(getattr(block, key, None), norm, f"the {key} {self._where}")
        self._prove_attention(block.attention, tensors.attention)
        self._prove_feed_forward(block.feed_forward, tensors.feed_forward)

    def _prove_attention(self, recorded: Any, weights: Any) -> None:
        heads, size = weights.query.shape[:2]
        turned = "rotary" if weights.query_norm is None else "normalised"
        positions = "added" if weights.rotary is None else turned
        _require_same(recorded.positions, positions, f"the kind of positions {self._where}")
        _require_same(len(recorded.heads), heads, f"the number of heads {self._where}")
        _require_same(
            recorded.scale_squared, weights.scale_squared, f"the factor on logits {self._where}"
        )
        if positions == "normalised":
            _require_same(recorded.head_dim, size, f"the width of a head {self._where}")
            for key in ("query_norm", "key_norm"):
                norm = getattr(weights, key)
                _require_norm(getattr(recorded, key), norm, f"the {key} {self._where}")
        self._require("output", recorded.output, np.concatenate(list(weights.output), axis=1))
        shared = heads // len(weights.key)
        for head, limits in enumerate(recorded.heads):
            self._prove_head(limits, weights, head, head // shared)

    def _prove_head(self, limits: Any, weights: Any, head: int, group: int) -> None:
        """Every limit that is there; `model` has seen that all that are needed are."""
        norm, where = self._first, f"of head {head + 1}"
        query, query_bias = _behind(norm, weights, "query", head)
        key, key_bias = _behind(norm, weights, "key", group)
        matrices = {
            "value": lambda: scaled_columns(weights.value[group], norm.gain, offset=norm.offset),
            "query": lambda: query,
            "key": lambda: key,
            "query_bias": lambda: query_bias,
            "key_bias": lambda: key_bias,
            "logit": lambda: key.transposed() @ query,
            "logit_bias": lambda: key.transposed() @ query_bias,
        }
        for name, limit in vars(limits).items():
            self._require(f"{name} {where}", limit, matrices[name]())

    def _prove_feed_forward(self, recorded: Any, weights: Any) -> None:
        norm, down, gated = self._second, weights.down, weights.gate is not None
        _require_same(recorded.activation, weights.activation, f"the activation {self._where}")
        _require_same(hasattr(recorded, "gate"), gated, f"the gate {self._where}")
        for name in ("up", "gate") if gated else ("up",):
            matrix, bias = _behind(norm, weights, name)
            self._require(name, getattr(recorded, name), matrix)
            if gated:
                reached = scaled_columns(down, _largest(matrix, bias))
                self._require(f"down_{name}", getattr(recorded, f"down_{name}"), reached)
        if not gated:
            self._require("down", recorded.down, down)

    def _require(self, what: str, limit: Fraction, matrix: Near | Array) -> None:
        if not proves_norm_at_most(limit, matrix):
            raise Refuted(f"the norm {what} {self._where} is not proved from the weights")


def _behind(norm: Any, weights: Any, name: str, place: Any = ...) -> tuple[Near, Near]:
    """W diag(gain) and the column W beta + b, of the part at a place."""
    matrix, bias = getattr(weights, name)[place], getattr(weights, f"{name}_bias")
    column = Near(np.zeros((len(matrix), 1)) if bias is None else bias[place][:, None])
    if norm.bias is not None and norm.bias.any():
        column = Near(matrix) @ Near(norm.bias[:, None]) + column
    return scaled_columns(matrix, norm.gain, offset=norm.offset), column


def _largest(folded: Near, offset: Near) -> Array:
    """Upper limits on sqrt(D) |row i of W diag(g)| + |(W beta + b)_i|."""
    reached = row_norms(folded) * np.sqrt(folded.center.shape[1])
    largest: Array = (reached + np.abs(offset.center[:, 0]) + offset.radius) * (1 + 2.0**-50)
    return largest
