"""The weights of the papers' transformer as exact numbers, and random ones for experiments.

Symbols as in Definitions 2.1 to 2.3 of [@meyer2025]: d the width, h the heads, s the head size,
s' the size of a value, f the hidden width of the MLP. Every array is float64, hence a matrix of
exact dyadic numbers: a bound computed from it speaks about these numbers and no others.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from promptlimits.base.errors import UserError, require_positive_int

Array: TypeAlias = NDArray[np.float64]

HEAD_PARTS: Final = ("query", "key", "value", "output")
MLP_PARTS: Final = ("w1", "b1", "w2", "b2")


def head_shapes(head: Any, dim: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a head's matrices at width d, by its own sizes s and s'."""
    size, inner = _rows(head.query), _rows(head.value)
    return {"query": (size, dim), "key": (size, dim), "value": (inner, dim), "output": (dim, inner)}


def mlp_shapes(layer: Any, dim: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a layer's MLP at width d, by its own hidden width f."""
    hidden = _rows(layer.w1)
    return {"w1": (hidden, dim), "b1": (hidden,), "w2": (dim, hidden), "b2": (dim,)}


def _rows(matrix: Any) -> int:
    shape = np.shape(matrix)
    return int(shape[0]) if shape else 0


def exact_array(name: str, array: object, shape: tuple[int, ...]) -> Array:
    """Return a read-only float64 copy of an array, checked."""
    given = np.asarray(array)
    if given.dtype.kind not in "fiu" or given.dtype.itemsize > 8:
        raise UserError(
            name, "hold real numbers of at most 64 bits", got=str(given.dtype), remedy="convert it"
        )
    exact = given.astype(np.float64)
    if exact.shape != shape:
        raise UserError(name, f"have the shape {shape}", got=exact.shape, remedy="transpose it?")
    if not np.isfinite(exact).all():
        raise UserError(name, "hold finite numbers", got="NaN or infinity", remedy="mend the file")
    exact.setflags(write=False)
    return exact


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadWeights:
    """One attention head; the factor 1/sqrt(s) is absorbed in the keys.

    Attributes:
        query: W_q, (s, d).
        key: W_k, (s, d).
        value: W_v, (s', d).
        output: W_o, (d, s').

    Raises:
        UserError: Shapes do not fit, or a number is not finite.
    """

    query: Array
    key: Array
    value: Array
    output: Array

    def __post_init__(self) -> None:
        shape = np.shape(self.query)
        if len(shape) != 2:
            raise UserError("W_q", "be a matrix (s, d)", got=shape, remedy="give two axes")
        for name, wanted in head_shapes(self, shape[1]).items():
            object.__setattr__(self, name, exact_array(f"W_{name}", getattr(self, name), wanted))

    @property
    def dim(self) -> int:
        """Width d."""
        return int(self.query.shape[1])


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerWeights:
    """One layer x -> MLP(x + Att(x)), MLP(y) = y + W_2 ReLU(W_1 y + b_1) + b_2.

    Attributes:
        heads: At least one head.
        w1: W_1, (f, d); f = 0 stands for no hidden neuron.
        b1: b_1, (f,).
        w2: W_2, (d, f).
        b2: b_2, (d,).

    Raises:
        UserError: Shapes do not fit, or a number is not finite.
    """

    heads: tuple[HeadWeights, ...]
    w1: Array
    b1: Array
    w2: Array
    b2: Array

    def __post_init__(self) -> None:
        require_positive_int("the number of heads", len(self.heads))
        dim = self.heads[0].dim
        if any(head.dim != dim for head in self.heads):
            raise UserError("the heads", "share one width", got="several", remedy="see W_q's shape")
        for name, wanted in mlp_shapes(self, dim).items():
            object.__setattr__(self, name, exact_array(name, getattr(self, name), wanted))

    @property
    def dim(self) -> int:
        """Width d."""
        return self.heads[0].dim

    @property
    def hidden(self) -> int:
        """Hidden width f of the MLP."""
        return int(self.w1.shape[0])


def silent_head(dim: int) -> HeadWeights:
    """A head that writes nothing."""
    none = np.zeros((1, dim))
    return HeadWeights(query=none, key=none, value=none, output=none.T)


def partial_layer(dim: int, *heads: HeadWeights, **mlp: Array) -> LayerWeights:
    """A layer of given parts; without heads attention writes nothing, without w1 no MLP acts."""
    empty = {"w1": np.zeros((0, dim)), "w2": np.zeros((dim, 0)), "b2": np.zeros(dim)}
    empty["b1"] = np.zeros(len(mlp.get("w1", ())))
    return LayerWeights(heads=heads or (silent_head(dim),), **(empty | mlp))


@dataclass(frozen=True, kw_only=True, eq=False)
class TransformerWeights:
    """A stack of layers without normalisation; the first layer is applied first.

    Attributes:
        layers: At least one layer, all of one width.
        masked: Whether a token sees only itself and those before it (Definition 2.14).

    Raises:
        UserError: There is no layer, or they differ in width.
    """

    layers: tuple[LayerWeights, ...]
    masked: bool

    def __post_init__(self) -> None:
        require_positive_int("the number of layers", len(self.layers))
        if len({layer.dim for layer in self.layers}) != 1:
            raise UserError("the layers", "share one width", got="several", remedy="check them")

    @property
    def dim(self) -> int:
        """Width d."""
        return self.layers[0].dim

    def arrays(self) -> Iterator[tuple[str, Array]]:
        """Every array under a name of its own, in a fixed order."""
        for place, layer in enumerate(self.layers):
            for number, head in enumerate(layer.heads):
                for name in HEAD_PARTS:
                    yield f"layers.{place}.heads.{number}.{name}", getattr(head, name)
            for name in MLP_PARTS:
                yield f"layers.{place}.{name}", getattr(layer, name)

    def sha256(self) -> str:
        """SHA-256 over the mask and, for each array, its name, shape and little-endian bytes."""
        digest = hashlib.sha256(b"masked" if self.masked else b"unmasked")
        for name, array in self.arrays():
            shape = struct.pack(f"<{array.ndim + 1}q", array.ndim, *array.shape)
            digest.update(name.encode("ascii") + shape + array.astype("<f8").tobytes())
        return digest.hexdigest()


def random_weights(
    *,
    dim: int,
    heads: int,
    head_dim: int,
    hidden: int = 0,
    layers: int = 1,
    generator: np.random.Generator,
    masked: bool = False,
    scale: float = 1.0,
    biases: bool = False,
) -> TransformerWeights:
    """Draw Gaussian weights of standard deviation scale / sqrt(fan-in).

    Args:
        dim: d.
        heads: h.
        head_dim: s = s'.
        hidden: f; 0 for no MLP.
        layers: Number of layers.
        generator: Source of randomness.
        masked: Whether attention is causal.
        scale: Factor on every weight.
        biases: Whether b_1 and b_2 are drawn too, with deviation `scale` / sqrt(d); else zero.

    Returns:
        The weights.
    """

    def draw(rows: int, columns: int) -> Array:
        return np.asarray(
            generator.standard_normal((rows, columns)) * (scale / max(columns, 1) ** 0.5)
        )

    def bias(size: int) -> Array:
        return generator.standard_normal(size) * (scale / dim**0.5) if biases else np.zeros(size)

    def head() -> HeadWeights:
        return HeadWeights(
            query=draw(head_dim, dim),
            key=draw(head_dim, dim) / head_dim**0.5,
            value=draw(head_dim, dim),
            output=draw(dim, head_dim) / heads**0.5,
        )

    return TransformerWeights(
        layers=tuple(
            LayerWeights(
                heads=tuple(head() for _ in range(heads)),
                w1=draw(hidden, dim),
                b1=bias(hidden),
                w2=draw(dim, hidden),
                b2=bias(dim),
            )
            for _ in range(layers)
        ),
        masked=masked,
    )
