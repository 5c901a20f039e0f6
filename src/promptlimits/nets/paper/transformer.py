"""The transformer of the papers: any heads, layers and mask; differentiable and batched.

Definitions 2.1 to 2.3 and 2.14 of meyer2025 in their corrected reading (E16): tau is the last
layer after ... after the first, and what is kept of tau([P, X]) are the last m columns.
Remark 2.4's positional encodings and the normalisations that the papers leave out are options.

Where another form is needed the same function is computed again: on measures (`mean_field`), for
many small prompts with slopes (`lab.regression.regression_network`), in balls
(`lipschitz.balls.forward`) and in numpy for one layer (`lab.one_layer.setting`). One test holds all
of them to the definitions, token by token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from promptlimits.base.errors import UserError
from promptlimits.nets.paper.layers import (
    Activation,
    NormPlace,
    PaperHead,
    PaperLayer,
    PaperNorm,
    causal_bias,
    changed,
    self_layer,
)
from promptlimits.nets.paper.weights import (
    HEAD_PARTS,
    MLP_PARTS,
    HeadWeights,
    LayerWeights,
    TransformerWeights,
    head_shapes,
    mlp_shapes,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class PaperTransformer:
    """A transformer tau on matrices whose columns are tokens.

    Calling it maps (..., d, n) to (..., d, n); any leading axes are a batch. It is
    differentiable in its input, safe under `torch.func`, and changes no tensor in place.

    Attributes:
        layers: The layers, first to last; at least one.
        masked: Whether token i attends only to tokens 1 to i (Definition 2.14).
        norm_place: "pre", "post", or None where the layers have no normalisation.
        positions: Added to the first n columns (Remark 2.4), of shape (d, longest), or None.

    Raises:
        UserError: A shape, a dtype or a normalisation does not fit, or a weight is not finite.
    """

    layers: tuple[PaperLayer, ...]
    masked: bool = False
    norm_place: NormPlace | None = None
    positions: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.layers:
            raise UserError(
                "the transformer", "have a layer", got="none", remedy="give one layer or more"
            )
        for number, layer in enumerate(self.layers):
            _require_layer(
                f"layers.{number}", layer, dim=self.dim, dtype=self.dtype, place=self.norm_place
            )
        if self.positions is not None:
            longest = self.positions.shape[-1] if self.positions.dim() == 2 else 0
            _require_tensor("positions", self.positions, (self.dim, longest), self.dtype)

    @property
    def dim(self) -> int:
        """Embedding dimension d."""
        return int(self.layers[0].b2.shape[0])

    @property
    def dtype(self) -> torch.dtype:
        """What it computes with."""
        return self.layers[0].b2.dtype

    def __call__(self, tokens: Tensor) -> Tensor:
        """tau(X).

        Args:
            tokens: Of shape (..., d, n).

        Returns:
            Of the same shape.

        Raises:
            UserError: The tokens are of another dimension, or more than the positions.
        """
        if tokens.dim() < 2 or tokens.shape[-2] != self.dim or tokens.shape[-1] < 1:
            raise UserError(
                "the tokens",
                f"be columns of {self.dim} numbers, shape (..., {self.dim}, n) with n of 1 or more",
                got=f"shape {tuple(tokens.shape)}",
                remedy="put tokens in columns",
            )
        tokens = self._placed(tokens)
        bias = causal_bias(tokens.shape[-1], tokens) if self.masked else None
        for layer in self.layers:
            tokens = self_layer(layer, tokens, self.norm_place, bias)
        return tokens

    def with_prompt(self, prompt: Tensor, queries: Tensor) -> Tensor:
        """tau([P, X^i])_{:, m_p:} for every query and every prompt (Definition 4.2, E16).

        Args:
            prompt: One prompt (d, m_p), or B of them (B, d, m_p); m_p may be 0.
            queries: One query (d, m), or k of them (k, d, m).

        Returns:
            The last m columns of each output: the prompt's leading axes, then the queries',
            then (d, m).
        """
        batch, several = prompt.shape[:-2], queries.shape[:-2]
        spread = prompt.reshape(*batch, *(1 for _ in several), *prompt.shape[-2:])
        spread = spread.expand(*batch, *several, *prompt.shape[-2:])
        together = torch.cat(
            [spread, queries.expand(*batch, *several, *queries.shape[-2:])], dim=-1
        )
        return self(together)[..., prompt.shape[-1] :]

    def to(self, dtype: torch.dtype) -> PaperTransformer:
        """The same transformer in another dtype.

        Args:
            dtype: Such as torch.float32.

        Returns:
            A transformer of its own.
        """
        cast: PaperTransformer = changed(self, lambda _, values: values.to(dtype))
        return cast

    def _placed(self, tokens: Tensor) -> Tensor:
        if self.positions is None:
            return tokens
        length, longest = tokens.shape[-1], self.positions.shape[-1]
        if length > longest:
            raise UserError(
                "the tokens",
                f"be at most {longest}, as there are positional encodings",
                got=length,
                remedy="shorten the prompt or give more positions",
            )
        return tokens + self.positions[:, :length]


def from_weights(
    weights: TransformerWeights, dtype: torch.dtype = torch.float64
) -> PaperTransformer:
    """The transformer that has given weights.

    Args:
        weights: float64 matrices.
        dtype: What the transformer computes with.

    Returns:
        The transformer, with copies of the weights.
    """

    def copied(part: Any, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: torch.tensor(getattr(part, name), dtype=dtype) for name in names}

    return PaperTransformer(
        layers=tuple(
            PaperLayer(
                heads=tuple(PaperHead(**copied(head, HEAD_PARTS)) for head in layer.heads),
                **copied(layer, MLP_PARTS),
            )
            for layer in weights.layers
        ),
        masked=weights.masked,
    )


def to_weights(model: PaperTransformer) -> TransformerWeights:
    """The weights of a transformer of ReLU without normalisation, exactly, as float64."""
    if model.norm_place is not None or model.positions is not None:
        raise UserError(
            "the transformer",
            "have neither normalisation nor positional encodings here",
            got=f"norm_place {model.norm_place!r}, positions {model.positions is not None}",
            remedy="add the positions to the tokens; a bound for normalised models is `certify`",
        )

    if any(layer.activation != "relu" for layer in model.layers):
        raise UserError(
            "the transformer",
            "have ReLU in its MLPs here, as in the papers",
            got="GELU",
            remedy="bounds from weights are for ReLU",
        )

    def plain(part: Any, names: tuple[str, ...]) -> dict[str, Any]:
        values = {name: getattr(part, name).detach() for name in names}
        return {k: v.to("cpu", torch.float64, copy=True).numpy() for k, v in values.items()}

    return TransformerWeights(
        layers=tuple(
            LayerWeights(
                heads=tuple(HeadWeights(**plain(head, HEAD_PARTS)) for head in layer.heads),
                **plain(layer, MLP_PARTS),
            )
            for layer in model.layers
        ),
        masked=model.masked,
    )


def _require_layer(
    where: str, layer: PaperLayer, *, dim: int, dtype: torch.dtype, place: NormPlace | None
) -> None:
    for name, shape in mlp_shapes(layer, dim).items():
        _require_tensor(f"{where}.{name}", getattr(layer, name), shape, dtype)
    for index, head in enumerate(layer.heads):
        for name, shape in head_shapes(head, dim).items():
            _require_tensor(f"{where}.heads.{index}.{name}", getattr(head, name), shape, dtype)
    if layer.activation not in get_args(Activation):
        raise UserError(
            f"{where}.activation", "be relu or gelu", got=layer.activation, remedy="use relu"
        )
    for name in ("attention_norm", "mlp_norm"):
        _require_norm(f"{where}.{name}", getattr(layer, name), dim=dim, dtype=dtype, place=place)


def _require_norm(
    name: str, norm: PaperNorm | None, *, dim: int, dtype: torch.dtype, place: NormPlace | None
) -> None:
    if (norm is None) != (place is None) or place not in (None, "pre", "post"):
        raise UserError(
            name,
            "be there exactly when norm_place is 'pre' or 'post'",
            got=f"norm_place {place!r} and {'no norm' if norm is None else 'a norm'}",
            remedy="give both or neither",
        )
    if norm is None:
        return
    if norm.kind not in ("layer", "rms") or (norm.kind == "rms") != (norm.bias is None):
        raise UserError(
            name,
            "be 'layer' with a bias or 'rms' without",
            got=f"kind {norm.kind!r} {'without' if norm.bias is None else 'with'} a bias",
            remedy="mend the kind or the bias",
        )
    if not 0 < norm.epsilon < float("inf"):
        raise UserError(f"{name}.epsilon", "be above 0", got=norm.epsilon, remedy="give 1e-5")
    for part, values in (("weight", norm.weight), ("bias", norm.bias)):
        if values is not None:
            _require_tensor(f"{name}.{part}", values, (dim,), dtype)


def _require_tensor(name: str, values: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(values.shape) != shape or values.dtype != dtype:
        raise UserError(
            name,
            f"have shape {shape} and dtype {dtype}",
            got=f"shape {tuple(values.shape)} and dtype {values.dtype}",
            remedy="give weights that fit together",
        )
    if not bool(torch.isfinite(values).all()):
        raise UserError(
            name, "be finite numbers", got="NaN or infinity", remedy="use weights that are finite"
        )
