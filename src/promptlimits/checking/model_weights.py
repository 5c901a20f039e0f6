"""Prove the norms in a checkpoint's certificate again from its weights, in ball arithmetic.

A block's matrices are multiplied by the gain of the norm in front of them, and its bias added to
theirs, in balls as well: no figure rests on what floats are rounded to. numpy holds the numbers
of the files, and guesses the factorisations that `matrices` then judges in balls.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from flint import arb, arb_mat

from promptlimits.checking.matrices import (
    ball_precision,
    balls,
    proves_norm_at_most,
    proves_product_norm_at_most,
    row_norms,
    times_columns,
)
from promptlimits.checking.model_facts import ModelClaim
from promptlimits.checking.model_files import Array, unusable
from promptlimits.checking.model_tensors import (
    BlockTensors,
    Gain,
    TensorFiles,
    block_count,
    block_tensors,
    model_width,
    outer_norms,
)
from promptlimits.checking.record import refuted, require_same


def prove_norms(
    model: ModelClaim, weights: Path, *, digest: str, on_progress: Callable[[str], None]
) -> None:
    """Prove every norm of a certificate from the checkpoint that it names."""
    try:
        _prove(model, TensorFiles(weights), digest, on_progress)
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError) as bad:
        rule = "be the checkpoint of a model as config.json describes it"
        raise unusable(rule, f"{weights} ({type(bad).__name__}: {bad})") from bad


def _prove(
    model: ModelClaim, files: TensorFiles, digest: str, on_progress: Callable[[str], None]
) -> None:
    require_same(files.sha256(), digest, "the hash of the weights")
    require_same(model.family, files.family, "the family")
    require_same(model.dim, model_width(files), "the width")
    require_same(len(model.blocks), block_count(files), "the number of blocks")
    entry, final = outer_norms(files)
    _norm(model.entry_norm, entry, "the norm in front of the blocks")
    _norm(model.final_norm, final, "the norm behind the blocks")
    before = entry
    for place, block in enumerate(model.blocks):
        on_progress(f"proving the norms of block {place + 1} of {len(model.blocks)}")
        tensors = block_tensors(files, place)
        with ball_precision():
            _Prover(block, tensors, before, place + 1).prove()
        if tensors.arrangement == "post":
            before = tensors.norms["feed_forward_norm"]


def _gains(norm: Gain) -> list[arb]:
    return [arb(value) + norm.plus for value in norm.stored.tolist()]


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
            raise unusable("have two norms a block", "fewer")
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

    def _prove_head(self, recorded: dict[str, Any], head: int, group: int, size: int) -> None:
        """The norms of one head."""
        tensors = self._tensors
        own, shared = (slice(at * size, (at + 1) * size) for at in (head, group))
        query, key = tensors.query[own], tensors.key[shared]
        for name, matrix in {"value": tensors.value[shared], "query": query, "key": key}.items():
            limit = recorded[name]
            if limit is not None:
                proved = proves_norm_at_most(_folded(matrix, self._first), limit)
                self._require(proved, f"{name} of head {head + 1}")
        offsets = {
            "query_bias": (query, _rows(tensors.query_bias, own)),
            "key_bias": (key, _rows(tensors.key_bias, shared)),
        }
        for name, (matrix, bias) in offsets.items():
            limit = recorded[name]
            if limit is not None:
                proved = proves_norm_at_most(_offset(matrix, bias, self._first), limit)
                self._require(proved, f"{name} of head {head + 1}")
        if recorded["logit"] is not None:
            left = _folded(key, self._first).transpose()
            for name, right in (
                ("logit", _folded(query, self._first)),
                ("logit_bias", _offset(query, _rows(tensors.query_bias, own), self._first)),
            ):
                proved = proves_product_norm_at_most([left, right], recorded[name])
                self._require(proved, f"{name} of head {head + 1}")

    def _prove_feed_forward(self, recorded: dict[str, Any]) -> None:
        tensors, norm = self._tensors, self._second
        require_same(recorded["gate"] is None, tensors.gate is None, self._named("gate"))
        up = _folded(tensors.up, norm)
        self._require(proves_norm_at_most(up, recorded["up"]), "up")
        if tensors.gate is None:
            self._require(proves_norm_at_most(tensors.down, recorded["down"]), "down")
            return
        gate = _folded(tensors.gate, norm)
        self._require(proves_norm_at_most(gate, recorded["gate"]), "gate")
        for name, folded, offset in (
            ("down_up", up, _offset(tensors.up, tensors.up_bias, norm)),
            ("down_gate", gate, _offset(tensors.gate, tensors.gate_bias, norm)),
        ):
            product = times_columns(tensors.down, _largest(folded, offset))
            self._require(proves_norm_at_most(product, recorded[name]), name)

    def _named(self, what: str) -> str:
        return f"{what} of block {self._number}"

    def _require(self, proved: bool, what: str) -> None:
        if not proved:
            raise refuted(f"the norm of {self._named(what)} is not proved from the weights")


def _rows(bias: Array | None, rows: slice) -> Array | None:
    return None if bias is None else bias[rows]


def _folded(matrix: Array, norm: Gain) -> arb_mat:
    """Balls around W diag(gain)."""
    return times_columns(matrix, _gains(norm))


def _offset(matrix: Array, bias: Array | None, norm: Gain) -> arb_mat:
    """Balls around the column W beta + b."""
    column = arb_mat(len(matrix), 1) if bias is None else balls(bias[:, None])
    if norm.bias is None or not norm.bias.any():
        return column
    return column + balls(matrix) * balls(norm.bias[:, None])


def _largest(folded: arb_mat, offset: arb_mat) -> list[arb]:
    """Balls around sqrt(D) |row i of W diag(g)| + |(W beta + b)_i|."""
    width = arb(folded.ncols()).sqrt()
    return [
        width * length + abs(rest)
        for length, rest in zip(row_norms(folded), offset.entries(), strict=True)
    ]
