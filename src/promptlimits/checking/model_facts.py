"""The norms of a checkpoint as a certificate records them: every field there, none to spare."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from promptlimits.checking.record import exact_fraction, exactly, listed, text, whole

_BLOCK: Final = {
    "arrangement",
    "attention",
    "feed_forward",
    "attention_norm",
    "feed_forward_norm",
    "attention_post_norm",
    "feed_forward_post_norm",
}
_ATTENTION: Final = {
    "heads",
    "output",
    "head_dim",
    "scale_squared",
    "rotary",
    "query_norm",
    "key_norm",
}
_HEAD: Final = {"value", "query", "key", "query_bias", "key_bias", "logit", "logit_bias"}
_FEED_FORWARD: Final = {"activation", "up", "down", "gate", "down_up", "down_gate"}
_ACTIVATIONS: Final = ("gelu", "gelu_tanh", "silu", "relu")


@dataclass(frozen=True, kw_only=True)
class ModelClaim:
    """The norms of a checkpoint, as recorded.

    Attributes:
        family: Its model_type.
        dim: Width.
        entry_norm: eps and gain of the norm in front, or None.
        final_norm: Of the norm behind, or None.
        blocks: Nested records with exact numbers, fields as `lipschitz.block_norms` names them.
    """

    family: str
    dim: int
    entry_norm: dict[str, Any] | None
    final_norm: dict[str, Any] | None
    blocks: tuple[dict[str, Any], ...]


def read_model(record: Any) -> ModelClaim:
    """Read the norms of a checkpoint. Use in `record.reading`."""
    exactly(record, {"family", "dim", "entry_norm", "final_norm", "blocks"}, "facts")
    blocks = tuple(_block(item) for item in listed(record["blocks"]))
    post = {block["arrangement"] == "post" for block in blocks}
    entry, final = record["entry_norm"], record["final_norm"]
    if len(post) != 1 or post.pop() != (entry is not None) or (entry is None) == (final is None):
        raise ValueError("the blocks do not fit the norms around them")
    return ModelClaim(
        family=text(record["family"]),
        dim=whole(record["dim"], 1),
        entry_norm=_norm(entry, gain=True),
        final_norm=_norm(final, gain=True),
        blocks=blocks,
    )


def _norm(record: Any, *, gain: bool) -> dict[str, Any] | None:
    """A norm's eps, and its gain where it is one that is used."""
    if record is None:
        return None
    exactly(record, {"eps", "gain"}, "norm")
    return {
        "eps": exact_fraction(record["eps"], above=0),
        "gain": _present(record["gain"], wanted=gain),
    }


def _present(value: Any, *, wanted: bool) -> Fraction | None:
    """A number of at least 0 where one belongs, nothing where none does."""
    if wanted:
        return exact_fraction(value, least=0)
    if value is not None:
        raise ValueError("a norm that nothing is computed from")
    return None


def _block(record: Any) -> dict[str, Any]:
    exactly(record, _BLOCK, "block")
    arrangement = text(record["arrangement"])
    if arrangement not in ("pre", "parallel", "post"):
        raise ValueError(f"no blocks are arranged as {arrangement!r}")
    post = arrangement == "post"
    behind = {
        key: _norm(record[key], gain=True)
        for key in ("attention_post_norm", "feed_forward_post_norm")
    }
    if arrangement != "pre" and any(norm is not None for norm in behind.values()):
        raise ValueError("norms behind sublayers belong to blocks with norms in front")
    before = {key: _norm(record[key], gain=post) for key in ("attention_norm", "feed_forward_norm")}
    if None in before.values():
        raise ValueError("a block has two norms")
    return {
        "arrangement": arrangement,
        "attention": _attention(record["attention"]),
        "feed_forward": _feed_forward(record["feed_forward"]),
        **before,
        **behind,
    }


def _attention(record: Any) -> dict[str, Any]:
    exactly(record, _ATTENTION, "attention")
    rotary = record["rotary"]
    if not isinstance(rotary, bool):
        raise TypeError(f"{rotary!r} is neither true nor false")
    norms = {key: _norm(record[key], gain=True) for key in ("query_norm", "key_norm")}
    if not rotary and any(norm is not None for norm in norms.values()):
        raise ValueError("norms over queries belong to rotary positions")
    wanted = {
        "value": True,
        "query": rotary,
        "key": rotary,
        "query_bias": rotary and norms["query_norm"] is None,
        "key_bias": rotary and norms["key_norm"] is None,
        "logit": not rotary,
        "logit_bias": not rotary,
    }
    heads = [exactly(head, _HEAD, "head") for head in listed(record["heads"])]
    if not heads:
        raise ValueError("there are no heads")
    return {
        "heads": [
            {key: _present(head[key], wanted=there) for key, there in wanted.items()}
            for head in heads
        ],
        "output": exact_fraction(record["output"], least=0),
        "head_dim": _head_dim(record["head_dim"], norms),
        "scale_squared": exact_fraction(record["scale_squared"], above=0),
        "rotary": rotary,
        **norms,
    }


def _head_dim(value: Any, norms: dict[str, Any]) -> int | None:
    """The width of a head, which matters where queries and keys are normalised."""
    if (norms["query_norm"] is None) != (norms["key_norm"] is None):
        raise ValueError("queries and keys are normalised both or not at all")
    if norms["query_norm"] is not None:
        return whole(value, 1)
    if value is not None:
        raise ValueError("a width that nothing is computed from")
    return None


def _feed_forward(record: Any) -> dict[str, Any]:
    exactly(record, _FEED_FORWARD, "feed-forward layer")
    activation = text(record["activation"])
    if activation not in _ACTIVATIONS:
        raise ValueError(f"no slope is known of {activation!r}")
    gated = record["gate"] is not None
    return {
        "activation": activation,
        "up": exact_fraction(record["up"], least=0),
        "down": _present(record["down"], wanted=not gated),
        **{key: _present(record[key], wanted=gated) for key in ("gate", "down_up", "down_gate")},
    }
