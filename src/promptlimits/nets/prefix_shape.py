"""How the numbers of a KV prefix are laid out, as stock PEFT's PREFIX_TUNING lays them out.

A row of a prefix is what one cached token holds: for layer 0 its keys, head after head, then its
values; then the same for layer 1, and so on. PEFT 0.21 reads its one matrix (P, 2 layers token_dim)
by `view(P, 2 layers, heads, head_dim)`, the first axis after P alternating between keys and values
(`PeftModel.get_prompt`); with grouped heads its `heads` are those of the keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
from pydantic import ConfigDict, PositiveInt
from torch import Tensor, nn

from promptlimits.base.errors import UserError

KeysAndValues: TypeAlias = tuple[tuple[Tensor, Tensor], ...]
"""For each layer keys and values, (B, heads_kv, P, head_dim) each."""


@dataclass(frozen=True, kw_only=True)
class PrefixShape:
    """Keys and values that one token leaves in the cache; a witness holds it as it stands."""

    __pydantic_config__: ClassVar = ConfigDict(strict=True, extra="forbid")

    layers: PositiveInt  # that keep them
    kv_heads: PositiveInt  # of keys and values, fewer than those of queries where they are grouped
    head_dim: PositiveInt  # width of a head

    @property
    def token_dim(self) -> int:
        """Numbers in the keys of one layer, which PEFT calls `token_dim`."""
        return self.kv_heads * self.head_dim

    @property
    def width(self) -> int:
        """W, numbers in a row of a prefix."""
        return 2 * self.layers * self.token_dim

    @classmethod
    @torch.no_grad()
    def of(cls, network: nn.Module) -> PrefixShape:
        """Ask the network: one token is run, and what its cache holds is the shape."""
        config: Any = network.config
        family = str(config.model_type)
        token = torch.zeros(1, 1, dtype=torch.long, device=next(network.parameters()).device)
        cache: Any = getattr(network(input_ids=token, use_cache=True), "past_key_values", None)
        held = [
            getattr(layer, name, None)
            for layer in getattr(cache, "layers", ())
            for name in ("keys", "values")
        ]
        shapes = {tuple(one.shape) if isinstance(one, Tensor) else () for one in held}
        if len(shapes) != 1 or len(shape := shapes.pop()) != 4:
            # PEFT splits a prefix into equal parts, one for the keys or values of each layer.
            raise not_replayable(family, "its layers do not all cache keys and values of one shape")
        return cls(layers=len(held) // 2, kv_heads=shape[1], head_dim=shape[3])

    def to_layers(self, prefixes: Tensor) -> KeysAndValues:
        """Keys and values, layer by layer: views of prefixes (B, P, W)."""
        batch, tokens, _ = prefixes.shape
        split = prefixes.view(batch, tokens, 2 * self.layers, self.kv_heads, self.head_dim)
        each = split.permute(2, 0, 3, 1, 4).unbind()
        return tuple(zip(each[::2], each[1::2], strict=True))

    def from_layers(self, cached: KeysAndValues) -> Tensor:
        """Prefixes (B, P, W) of keys and values: the inverse of `to_layers`."""
        each = torch.stack([part for layer in cached for part in layer])
        return each.permute(1, 3, 0, 2, 4).flatten(2)


def not_replayable(family: str, reason: str) -> UserError:
    """The error for a model whose prefixes stock PEFT cannot replay; raise it."""
    return UserError(
        "prompts of the kind prefix",
        "be asked of a family that PEFT can replay a prefix of",
        got=f"{family} ({reason})",
        remedy="choose --kind soft, or another model",
    )
