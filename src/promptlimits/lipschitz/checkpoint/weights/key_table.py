"""Which tensor of a checkpoint plays which part: a table for each family.

A table maps the name of a tensor, with `{}` for the number of its block, to its part, or to
None where it is dropped knowingly (embeddings, which a prompt replaces; heads; buffers). Names
that the table does not hold are refused: a tensor that nobody thought of may change the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from promptlimits.base.errors import UserError
from promptlimits.lipschitz.balls.spectral import row_norms
from promptlimits.nets.files.safetensors_file import WeightReader

_BLOCK_NUMBER: Final = re.compile(r"(?<=\.)(?:0|[1-9][0-9]*)(?=\.)")


@dataclass(frozen=True, kw_only=True)
class KeyTable:
    """The names of one family.

    Attributes:
        prefixes: What may stand in front of every name, such as "model.".
        parts: Part of each name, or None if it is dropped.
    """

    prefixes: tuple[str, ...]
    parts: Mapping[str, str | None]


class NamedWeights:
    """The tensors of a checkpoint by part and block.

    Args:
        reader: The tensors by name.
        table: The family's names.
        layers: Number of blocks.

    Raises:
        UserError: A name is not in the table, or its block number is too high.
    """

    def __init__(self, reader: WeightReader, table: KeyTable, *, layers: int) -> None:
        self._reader = reader
        self._keys: dict[tuple[str, int | None], str] = {}
        self._dropped: list[str] = []
        for key in sorted(reader.keys):
            pattern, number = _pattern(key, table)
            if pattern not in table.parts or (number is not None and number >= layers):
                raise UserError(
                    reader.name,
                    f"hold only tensors of its family, in {layers} blocks",
                    got=f"an unknown tensor {key}",
                    remedy="use a plain checkpoint without adapters or parts of other models",
                )
            part = table.parts[pattern]
            if part is None:
                self._dropped.append(key)
            elif (part, number) in self._keys:
                raise UserError(
                    reader.name,
                    "hold each tensor once",
                    got=f"{key} beside {self._keys[part, number]}",
                    remedy="save it again with save_pretrained",
                )
            else:
                self._keys[part, number] = key
        self._table = table

    def read(self, part: str, *shape: int, layer: int | None = None) -> NDArray[np.float64]:
        """The tensor of a part, exactly."""
        key = self._keys.get((part, layer)) or self._name(part, layer)
        return self._reader.read(key, shape=shape)

    def optional(
        self, part: str, *shape: int, layer: int, stated: bool
    ) -> NDArray[np.float64] | None:
        """The tensor of a part that config.json says the model has, or does without."""
        if stated:
            return self.read(part, *shape, layer=layer)
        if (part, layer) in self._keys:
            raise UserError(
                self._reader.name,
                "hold only tensors that its config.json makes use of",
                got=self._keys[part, layer],
                remedy="get the checkpoint's own config.json",
            )
        return None

    def longest_row(self, part: str, width: int) -> Fraction | None:
        """Upper limit on the length of every row of an embedding, or None if it is missing."""
        key = self._keys.get((part, None))
        if key is None:
            return None
        rows = self.read(part, *self._reader.shape(key)[:1], width)
        return max(row_norms(rows), default=Fraction(0))

    def require_dropped_finite(self) -> None:
        """Refuse numbers that are not finite in what is dropped, too."""
        for key in self._dropped:
            self._reader.require_finite(key)

    def _name(self, part: str, layer: int | None) -> str:
        """What a missing tensor would be called."""
        pattern = next(name for name, owner in self._table.parts.items() if owner == part)
        return self._table.prefixes[0] + pattern.replace("{}", str(layer))


def _pattern(key: str, table: KeyTable) -> tuple[str, int | None]:
    """A name without its prefix and with `{}` for the block's number, and that number."""
    prefix = next((p for p in table.prefixes if key.startswith(p) and p), "")
    bare = key.removeprefix(prefix)
    found = _BLOCK_NUMBER.search(bare)
    if found is None or bare in table.parts:
        return bare, None
    return _BLOCK_NUMBER.sub("{}", bare, count=1), int(found.group())
