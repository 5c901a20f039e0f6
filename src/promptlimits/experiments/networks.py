"""A shape of random network as part of a cell: plain values, without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptlimits.lab.regression.random_problems import NetworkShape


@dataclass(frozen=True, kw_only=True)
class Network:
    """A shape of network, as `lab.regression.random_problems.NetworkShape` takes it."""

    dim: int
    heads: int
    layers: int
    masked: bool = False
    norm: str = "none"
    activation: str = "relu"

    @property
    def in_words(self) -> str:
        """Short, for a figure."""
        words = f"d={self.dim}, {self.layers} layer{'' if self.layers == 1 else 's'}"
        words += (", masked" * self.masked) + (", GELU" * (self.activation == "gelu"))
        return words if self.norm == "none" else f"{words}, {self.norm}"

    def shape(self) -> NetworkShape:
        """The same where networks are drawn."""
        from promptlimits.lab.regression.random_problems import NetworkShape

        fields: Any = asdict(self)
        return NetworkShape(**fields, hidden=4 * self.dim)
