"""From outputs back to inputs: X with tau([P, X])_{:, m_p:} = Y, behind a known prompt.

Each block is x -> x + G(x), with inverse the limit of x_{k+1} = y - G(x_k) [@behrmann2019].

*What is inverted.* The map X -> Y at a fixed P; the outputs P' at the prompt's columns are not
given. There are two ways:

* **block by block**, last to first, where the prompt's own trajectory follows from P alone:
  under a mask, in one layer, or without a prompt (then all outputs are given, and this is the
  inverse of the whole transformer; give [P', Y] so to use P'). Each step contracts by the
  block's constant, a_l or b_l.
* **jointly** otherwise: x_{k+1} = x_k - (tau([P, x_k])_{:, m_p:} - Y), which contracts by Lambda.
  For Lambda >= 1 nothing promises that it ends, even where X -> Y is proved one-to-one.

Iterates are pulled back into the token ball in which the constants are proved. That moves no
iterate away from a pre-image of the ball, so the contraction stays.

*A-posteriori limit.* By Theorem I (`lipschitz.invertibility`) two inputs x, x' of the ball satisfy
||x - x'|| <= ||Y(x) - Y(x')||/floor. At the x_k returned, with X the pre-image,

    ||x_k - X|| <= ||Y(x_k) - Y|| / floor,

whatever led to x_k. For one block it is ||x_{k+1} - x_k||/(1 - L), the familiar
||x_{k+1} - X|| <= L/(1-L) ||x_{k+1} - x_k|| one step before. `proved_error_limit` evaluates it
in ball arithmetic; `Inverse.error_limits` in the model's own, so `invert` proves nothing by itself.

A constant of 1 or more is an outcome with its reason, no exception: an input may still be found,
only that it is the only one is not proved.

Source: [@wang2023], Theorem 4, in the form of `lipschitz.invertibility`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Final, Literal

import torch
from torch import Tensor

from promptlimits.base.errors import UserError, require_positive, require_positive_int
from promptlimits.lipschitz.balls.forward import proved_distance
from promptlimits.lipschitz.balls.spectral import row_norms
from promptlimits.lipschitz.paper.invertibility import Invertibility
from promptlimits.nets.paper.layers import (
    PaperHead,
    PaperLayer,
    attention,
    causal_bias,
    mlp,
    self_layer,
)
from promptlimits.nets.paper.transformer import PaperTransformer, to_weights

Way = Literal["block by block", "jointly"]
Status = Literal["converged", "found", "failed"]
Map = Callable[[Tensor], Tensor]
_PATIENCE: Final = 12
"""Steps without a smaller change: what is left is rounding."""

_INSIDE: Final = 1 - 2.0**-48
"""Pulled a little further than to the radius, so that rounding leaves no token outside."""

_LONGEST: Final = 10**150


@dataclass(frozen=True, kw_only=True, eq=False)
class Inverse:
    """What the iteration found.

    Attributes:
        inputs: Found inputs, (B, d, m) or (d, m) as the outputs came.
        residuals: ||tau([P, x])_{:, m_p:} - Y|| for each, in the certificate's norm.
        error_limits: residuals / floor, at least the distance from the only pre-image of the
            ball but for rounding, which they leave out; None where uniqueness is not proved.
        steps: Iterations, over all blocks.
        way: Which of the two.
        status: "converged": error_limits are within the tolerance, as measured in floats, and
            `proved_error_limit` can prove it; "found": inputs that give the outputs, perhaps
            not the only ones; "failed": neither.
        reason: Why it is not "converged", or "".
    """

    inputs: Tensor
    residuals: Tensor
    error_limits: Tensor | None
    steps: int
    way: Way
    status: Status
    reason: str


def invert(
    model: PaperTransformer,
    outputs: Tensor,
    *,
    prompt: Tensor,
    certificate: Invertibility,
    tolerance: float = 1e-10,
    most_steps: int = 20_000,
) -> Inverse:
    """Find the inputs that give some outputs behind a prompt.

    Args:
        model: Without normalisation or positions; in float64 for pre-images to 1e-10.
        outputs: Y, (B, d, m) or (d, m).
        prompt: P, (d, m_p); m_p may be 0. Its tokens lie in the certificate's ball.
        certificate: About the same weights; proved or not.
        tolerance: Greatest error of a pre-image, or residual where none is proved; above 0.
        most_steps: Most iterations of one block, or of the joint iteration.

    Returns:
        The inputs and how sure they are.

    Raises:
        UserError: Something does not fit together, or is not finite; or the tolerance is not
            above 0.
    """
    _require_fit(model, outputs, prompt, certificate)
    require_positive_int("most_steps", most_steps)
    require_positive("the tolerance", tolerance)
    batch = outputs.reshape(-1, *outputs.shape[-2:])
    way: Way = "block by block" if _known_trajectory(model, prompt) else "jointly"
    solve = _block_by_block if way == "block by block" else _jointly
    with torch.no_grad():
        found, steps, ended = solve(model, batch, prompt, certificate, most_steps)
        distances = _norm(model.with_prompt(prompt, found) - batch, certificate.norm)
    floor = certificate.whole_floor if prompt.shape[-1] == 0 else certificate.floor
    limits = distances / float(floor) if floor > 0 else None
    status, reason = _outcome(distances, limits, certificate, tolerance, ended)
    return Inverse(
        inputs=found.reshape(outputs.shape),
        residuals=distances.reshape(outputs.shape[:-2]),
        error_limits=None if limits is None else limits.reshape(outputs.shape[:-2]),
        steps=steps,
        way=way,
        status=status,
        reason=reason,
    )


def proved_error_limit(
    model: PaperTransformer,
    outputs: Tensor,
    inputs: Tensor,
    *,
    prompt: Tensor,
    certificate: Invertibility,
) -> Fraction | None:
    """Proved upper limit on the distance of an input from the pre-image of some outputs."""
    _require_fit(model, outputs, prompt, certificate)
    _require_within("the inputs", inputs, certificate)
    floor = certificate.whole_floor if prompt.shape[-1] == 0 else certificate.floor
    if floor <= 0:
        return None
    columns = torch.cat([prompt, inputs], dim=-1).to(torch.float64)
    distance = proved_distance(
        to_weights(model),
        columns.numpy(force=True),
        outputs.to(torch.float64).numpy(force=True),
        norm=certificate.norm,
    )
    return distance / floor


def _known_trajectory(model: PaperTransformer, prompt: Tensor) -> bool:
    return model.masked or len(model.layers) == 1 or prompt.shape[-1] == 0


def _block_by_block(
    model: PaperTransformer,
    outputs: Tensor,
    prompt: Tensor,
    certificate: Invertibility,
    most_steps: int,
) -> tuple[Tensor, int, bool]:
    entering = _trajectory(model, prompt)
    found, steps, ended = outputs, 0, True
    for layer, known, block in zip(
        reversed(model.layers), reversed(entering), reversed(certificate.blocks), strict=True
    ):
        attend = partial(_attend, layer.heads, known, model.masked)
        for branch, radius in ((partial(_branch, layer), None), (attend, _float(block.radius))):
            found, used, still = _peeled(branch, found, radius, most_steps)
            steps, ended = steps + used, ended and still
    return found, steps, ended


def _jointly(
    model: PaperTransformer,
    outputs: Tensor,
    prompt: Tensor,
    certificate: Invertibility,
    most_steps: int,
) -> tuple[Tensor, int, bool]:
    def rest(x: Tensor) -> Tensor:
        return model.with_prompt(prompt, x) - x

    return _peeled(rest, outputs, _float(certificate.radius), most_steps)


def _trajectory(model: PaperTransformer, prompt: Tensor) -> list[Tensor]:
    """The prompt's columns entering each layer; exact where they see no input."""
    bias = causal_bias(prompt.shape[-1], prompt) if model.masked else None
    found = [prompt]
    for layer in model.layers[:-1]:
        found.append(self_layer(layer, found[-1], None, bias))
    return found


def _branch(layer: PaperLayer, x: Tensor) -> Tensor:
    return mlp(layer, x) - x


def _attend(heads: tuple[PaperHead, ...], known: Tensor, masked: bool, x: Tensor) -> Tensor:
    context = torch.cat([known.expand(*x.shape[:-2], *known.shape), x], dim=-1)
    bias = causal_bias(context.shape[-1], x)[known.shape[-1] :] if masked else None
    return attention(heads, x, context, bias)


def _peeled(
    branch: Map, outputs: Tensor, radius: float | None, most_steps: int
) -> tuple[Tensor, int, bool]:
    """The fixed point of x = y - G(x), how many steps it took, and whether it came to rest."""
    x = _pulled(outputs, radius)
    best, still = float("inf"), 0
    for step in range(1, most_steps + 1):
        after = _pulled(outputs - branch(x), radius)
        change = float((after - x).abs().max())
        x = after
        still = 0 if change < best else still + 1
        best = min(best, change)
        if change == 0.0 or still >= _PATIENCE or change != change:
            return x, step, True
    return x, most_steps, False


def _float(radius: Fraction) -> float | None:
    """As a float; None beyond the floats whose squares are floats, where nothing is pulled back."""
    return float(radius) if radius < _LONGEST else None


def _pulled(x: Tensor, radius: float | None) -> Tensor:
    """Tokens pulled back into the ball: a projection, which moves no two points apart."""
    if radius is None:
        return x
    inside = radius * _INSIDE
    lengths: Tensor = torch.linalg.vector_norm(x, dim=-2, keepdim=True)
    return x * (inside / lengths.clamp_min(inside))


def _norm(x: Tensor, norm: str) -> Tensor:
    if norm == "frobenius":
        lengths: Tensor = torch.linalg.matrix_norm(x)
    else:
        lengths = torch.linalg.vector_norm(x, dim=-2).amax(dim=-1)
    return lengths


def _outcome(
    residuals: Tensor,
    limits: Tensor | None,
    certificate: Invertibility,
    tolerance: float,
    ended: bool,
) -> tuple[Status, str]:
    worst = float(residuals.max())
    if limits is not None and float(limits.max()) <= tolerance:
        return "converged", ""
    if worst <= tolerance:
        reason = certificate.reason or "the error's limit is above the tolerance"
        return "found", f"these inputs give the outputs, but {reason}"
    where = f"the iteration ended {worst:.3g} away from the outputs"
    if worst != worst:
        return "failed", "the iteration overflowed"
    if not ended:
        return "failed", f"{where}, its steps used up: more of them may help"
    if limits is not None:
        return "failed", f"{where}: perhaps no input within the radius has them"
    return "failed", f"{where}; {certificate.reason}"


def _require_fit(
    model: PaperTransformer, outputs: Tensor, prompt: Tensor, certificate: Invertibility
) -> None:
    if to_weights(model).sha256() != certificate.weights_sha256:
        raise UserError(
            "the certificate",
            "be about the weights of the transformer",
            got="one about others",
            remedy="call certify_invertible on these weights",
        )
    for name, values, axes in (("the outputs", outputs, (2, 3)), ("the prompt", prompt, (2,))):
        fits = values.dim() in axes and values.shape[-2] == model.dim
        if not fits or values.dtype != model.dtype:
            raise UserError(
                name,
                f"be columns of {model.dim} numbers of {model.dtype}",
                got=f"shape {tuple(values.shape)} of {values.dtype}",
                remedy="put tokens in columns",
            )
        if not bool(torch.isfinite(values).all()):
            raise UserError(name, "be finite", got="NaN or infinity", remedy="mend them")
    if 0 in outputs.shape:
        raise UserError("the outputs", "be there", got="none", remedy="give one column or more")
    columns = outputs.shape[-1] + prompt.shape[-1]
    if certificate.norm == "frobenius" and columns != certificate.tokens:
        raise UserError(
            "the columns of prompt and input",
            f"be {certificate.tokens}, as the certificate in the Frobenius norm says",
            got=columns,
            remedy="certify with tokens, or in the token norm",
        )
    _require_within("the prompt", prompt, certificate)


def _require_within(name: str, values: Tensor, certificate: Invertibility) -> None:
    columns = values.detach().to("cpu", torch.float64).transpose(-1, -2).numpy()
    longest = max(row_norms(columns.reshape(-1, values.shape[-2])), default=Fraction(0))
    if longest > certificate.radius:
        raise UserError(
            name,
            f"have tokens within the radius {_shown(certificate.radius)}",
            got=f"one of length {_shown(longest)}",
            remedy="certify a larger radius, or shorten it",
        )


def _shown(length: Fraction) -> str:
    return f"{float(length):.17g}" if length < 10**300 else "over 1e300"
