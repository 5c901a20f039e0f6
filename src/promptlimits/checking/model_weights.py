"""Prove the norms in a checkpoint's certificate again from its weights, in ball arithmetic.

A block's matrices are multiplied by the gain g of the norm in front of them. The product C of
floats differs from W diag(g) by at most 2^-52 |C| in each entry (one rounding of the product,
one of a gain 1 + w), so with E = 2^-52 ||C||_F it is enough to prove ||C|| <= limit - E.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from promptlimits.checking.matrices import (
    proves_norm_at_most,
    proves_product_norm_at_most,
    proves_vector_norm_at_most,
)
from promptlimits.checking.model_facts import ModelClaim
from promptlimits.checking.model_tensors import (
    Array,
    BlockTensors,
    Gain,
    TensorFiles,
    block_count,
    block_tensors,
    outer_norms,
)
from promptlimits.checking.record import refuted, require_same
from promptlimits.errors import UserError

_ROUNDING: Final = Fraction(1, 2**52)
_UNDERFLOW: Final = Fraction(1, 2**1000)


def prove_norms(
    model: ModelClaim, weights: Path, *, digest: str, on_progress: Callable[[str], None]
) -> None:
    """Prove every norm of a certificate from the checkpoint that it names.

    Args:
        model: The norms as recorded.
        weights: The checkpoint's directory.
        digest: SHA-256 of its weights, as recorded.
        on_progress: Told, in a line, of each block.

    Raises:
        UserError: The weights cannot be read.
        RunFailed: They are others, or a norm is not proved.
    """
    files = TensorFiles(weights)
    require_same(files.sha256(), digest, "the hash of the weights")
    require_same(model.family, str(files.config.get("model_type")), "the family")
    require_same(len(model.blocks), block_count(files), "the number of blocks")
    entry, final = outer_norms(files)
    _norm(model.entry_norm, entry, "the norm in front of the blocks")
    _norm(model.final_norm, final, "the norm behind the blocks")
    before = entry
    for place, block in enumerate(model.blocks):
        on_progress(f"proving the norms of block {place + 1} of {len(model.blocks)}")
        tensors = block_tensors(files, place)
        if tensors.query.shape[1] != model.dim:
            raise refuted("the width is another one")
        _Prover(block, tensors, before, place + 1).prove()
        if tensors.arrangement == "post":
            before = tensors.norms["feed_forward_norm"]


def _gain(norm: Gain) -> Array:
    return norm.plus + norm.stored


def _norm(recorded: dict[str, Any] | None, norm: Gain | None, what: str) -> None:
    """A recorded norm has the eps of the settings and a gain that is large enough."""
    if (recorded is None) != (norm is None):
        raise refuted(f"{what} is there in one of certificate and model only")
    if recorded is None or norm is None:
        return
    require_same(recorded["eps"], norm.eps, f"the eps of {what}")
    if recorded["gain"] is None:
        return
    largest = max(abs(norm.plus + Fraction(value)) for value in norm.stored.tolist())
    if largest > recorded["gain"]:
        raise refuted(f"{what} has a larger gain")


def _error(product: Array) -> Fraction:
    """2^-52 times the Frobenius norm, with room for its rounding, and underflow."""
    size = float(np.sqrt(np.einsum("ij,ij->", product, product)))
    return Fraction(size) * Fraction(1000001, 1000000) * _ROUNDING + _UNDERFLOW


def _rooted(value: float) -> Fraction:
    """No less than a computed square root, or what it is the root of rounded a little."""
    return Fraction(value) * Fraction(1000001, 1000000)


class _Prover:
    """Proves the norms of one block."""

    def __init__(
        self, block: dict[str, Any], tensors: BlockTensors, before: Gain | None, number: int
    ) -> None:
        self._block, self._tensors, self._number = block, tensors, number
        norms = tensors.norms
        first, second = norms["attention_norm"], norms["feed_forward_norm"]
        if tensors.arrangement == "post":
            first, second = before, first
        if first is None or second is None:
            raise UserError(
                "the weights", "have two norms a block", got="fewer", remedy="give the right model"
            )
        self._first, self._second = first, second

    def prove(self) -> None:
        """Every norm of the block, or RunFailed."""
        block, tensors = self._block, self._tensors
        attention = block["attention"]
        size = len(tensors.query) // tensors.heads
        normalised = size if "query_norm" in tensors.norms else None
        for found, expected, what in (
            (block["arrangement"], tensors.arrangement, "the arrangement"),
            (len(attention["heads"]), tensors.heads, "the number of heads"),
            (attention["head_dim"], normalised, "the width of a head"),
            (attention["scale_squared"], tensors.scale_squared, "the factor on logits"),
            (attention["rotary"], tensors.rotary, "the kind of positions"),
            (block["feed_forward"]["activation"], tensors.activation, "the activation"),
        ):
            require_same(found, expected, f"{what} of block {self._number}")
        for key in ("query_norm", "key_norm"):
            _norm(attention[key], tensors.norms.get(key), self._named(key))
        for key in (
            *("attention_norm", "feed_forward_norm"),
            *("attention_post_norm", "feed_forward_post_norm"),
        ):
            _norm(block[key], tensors.norms.get(key), self._named(key))
        self._require(proves_norm_at_most(tensors.output, attention["output"]), "the output matrix")
        shared = tensors.heads // tensors.groups
        for head, recorded in enumerate(attention["heads"]):
            self._prove_head(recorded, head, head // shared, size)
        self._prove_feed_forward(block["feed_forward"])

    def _prove_head(
        self, recorded: dict[str, Fraction | None], head: int, group: int, size: int
    ) -> None:
        """The norms of one head."""
        tensors = self._tensors
        own, shared = (slice(at * size, (at + 1) * size) for at in (head, group))
        query, key = tensors.query[own], tensors.key[shared]
        query_bias, key_bias = _rows(tensors.query_bias, own), _rows(tensors.key_bias, shared)
        for name, matrix in {"value": tensors.value[shared], "query": query, "key": key}.items():
            limit = recorded[name]
            if limit is not None:
                self._require(self._folded(matrix, limit), f"{name} of head {head + 1}")
        for name, matrix, bias in (
            ("query_bias", query, query_bias),
            ("key_bias", key, key_bias),
        ):
            limit = recorded[name]
            if limit is not None:
                right = _chain_norm([], matrix, bias, self._first, limit)
                self._require(right, f"{name} of head {head + 1}")
        if recorded["logit"] is not None:
            self._prove_logits(recorded, (query, query_bias), key, head)

    def _folded(self, matrix: Array, limit: Fraction, norm: Gain | None = None) -> bool:
        product = matrix * _gain(norm or self._first)
        return proves_norm_at_most(product, limit - _error(product))

    def _prove_logits(
        self,
        recorded: dict[str, Any],
        query: tuple[Array, Array | None],
        key: Array,
        head: int,
    ) -> None:
        matrix, bias = query
        gain = _gain(self._first)
        left, right = key * gain, matrix * gain
        sizes = [_rooted(float(np.sqrt(np.einsum("ij,ij->", one, one)))) for one in (left, right)]
        errors = [_error(left), _error(right)]
        slack = errors[0] * sizes[1] + errors[1] * sizes[0] + errors[0] * errors[1]
        self._require(
            proves_product_norm_at_most([left.T, right], recorded["logit"] - slack),
            f"logit of head {head + 1}",
        )
        offset = np.zeros(len(matrix)) if bias is None else np.abs(bias)
        if self._first.bias is not None:
            offset = offset + np.abs(matrix) @ np.abs(self._first.bias)
        slack = errors[0] * _rooted(float(np.sqrt(offset @ offset)))
        self._require(
            _chain_norm([left.T], matrix, bias, self._first, recorded["logit_bias"] - slack),
            f"logit_bias of head {head + 1}",
        )

    def _prove_feed_forward(self, recorded: dict[str, Any]) -> None:
        tensors, norm = self._tensors, self._second
        require_same(recorded["gate"] is None, tensors.gate is None, self._named("gate"))
        self._require(self._folded(tensors.up, recorded["up"], norm), "up")
        if tensors.gate is None:
            self._require(proves_norm_at_most(tensors.down, recorded["down"]), "down")
            return
        self._require(self._folded(tensors.gate, recorded["gate"], norm), "gate")
        for name, matrix, bias in (
            ("down_up", tensors.up, tensors.up_bias),
            ("down_gate", tensors.gate, tensors.gate_bias),
        ):
            product = tensors.down * _largest(matrix, bias, norm)
            self._require(proves_norm_at_most(product, recorded[name] - _error(product)), name)

    def _named(self, what: str) -> str:
        return f"{what} of block {self._number}"

    def _require(self, proved: bool, what: str) -> None:
        if not proved:
            raise refuted(f"the norm of {self._named(what)} is not proved from the weights")


def _rows(bias: Array | None, rows: slice) -> Array | None:
    return None if bias is None else bias[rows]


def _chain_norm(
    front: list[Array], matrix: Array, bias: Array | None, norm: Gain, limit: Fraction
) -> bool:
    """Whether |F (W beta + b)| <= limit: [W b] times (beta, 1), not rounded."""
    offset = np.zeros(len(matrix)) if bias is None else bias
    if norm.bias is None or not norm.bias.any():
        if not front:
            return proves_vector_norm_at_most(offset, limit)
        return proves_product_norm_at_most([*front, offset[:, None]], limit)
    wide = np.concatenate([matrix, offset[:, None]], axis=1)
    column = np.append(norm.bias, 1.0)[:, None]
    return proves_product_norm_at_most([*front, wide, column], limit)


def _largest(matrix: Array, bias: Array | None, norm: Gain) -> Array:
    """No less than sqrt(D) |row i of W diag(g)| + |(W beta + b)_i|.

    Sums of n terms of one sign are off by at most a part n 2^-52, n below 2^20 here; the whole
    is raised by a part 2^-40 for these, and a sum with both signs by 2^-30 of its terms' sizes.
    """
    rows, width = matrix * _gain(norm), matrix.shape[1]
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows)) * np.sqrt(float(width))
    offset = np.zeros(len(matrix)) if bias is None else bias
    error = np.zeros(len(matrix))
    if norm.bias is not None:
        error = (np.abs(matrix) @ np.abs(norm.bias) + np.abs(offset)) * 2.0**-40
        offset = offset + matrix @ norm.bias
    raised: Array = (lengths + np.abs(offset) + error) * (1 + width * 2.0**-50) + 2.0**-400
    return raised
