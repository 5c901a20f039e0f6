"""The largest Jacobian norm that a search finds: how far a Lipschitz bound may be from true.

A Lipschitz constant L of a map on a convex set is the supremum of the norm of its Jacobian
there. A bound says L is at most something; the search exhibits a point X and a direction eta of
norm 1 with |J(X) eta| = value, so L is at least about that. Both on one domain (every token in
the ball of one radius, any number of them fixed or not perturbed) and in one norm, or the
comparison says nothing.

The value is found, not proved: it is evaluated in floating point, and where the map has a kink
(ReLU at 0) the derivative that is used is one of those next to it, as long as the point is not
exactly on the kink. No `LogBound` is ever made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from promptlimits.base.errors import RunFailed, UserError, require_positive, require_positive_int
from promptlimits.lipschitz.ascent import (
    Domain,
    Forward,
    Norm,
    search,
    starting_points,
    towards_outputs,
    turn,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class JacobianEstimate:
    """A point and a direction at which the Jacobian is large. Found, not proved.

    Attributes:
        value: |J(point) direction|, the largest that was found.
        norm: "token" or "frobenius", for the direction and for the change of the outputs.
        point: Shape (D, tokens), every token in the ball.
        direction: Shape (D, tokens), of norm 1, zero on columns that are not perturbed.
        history: The best value over all starts after each step; the last one is `value`.
    """

    value: float
    norm: Norm
    point: Tensor
    direction: Tensor
    history: tuple[float, ...]


def states_behind(model: Any, input_ids: Tensor) -> Forward:
    """The map from soft prompts to the hidden states of one input behind them.

    Args:
        model: A causal language model of `transformers`, with any attention implementation.
        input_ids: Its tokens after the prompt, shape (m,).

    Returns:
        A map from prompts in the place of embeddings, (B, D, m_p), to the states of the m tokens
        behind the final norm, (B, D', m).
    """
    behind = model.get_input_embeddings()(input_ids).detach()

    def states(prompts: Tensor) -> Tensor:
        tokens = torch.cat([prompts.mT, behind.expand(len(prompts), -1, -1)], dim=1)
        hidden = model.base_model(inputs_embeds=tokens, use_cache=False).last_hidden_state
        read: Tensor = hidden[:, -len(input_ids) :].mT
        return read

    return states


def _columns(columns: slice | None, tokens: int, device: torch.device) -> Tensor:
    """The chosen columns as booleans."""
    chosen = torch.zeros(tokens, dtype=torch.bool, device=device)
    chosen[slice(None) if columns is None else columns] = True
    return chosen


def _require_domain(norm: str, perturbed: Tensor, radius: float, fixed: Tensor | None) -> None:
    """Raise unless the domain is one that can be searched."""
    if norm not in ("token", "frobenius"):
        raise UserError("norm", "be 'token' or 'frobenius'", got=norm, remedy="choose one")
    if not bool(perturbed.any()):
        raise UserError(
            "perturbed",
            "select at least one token",
            got="none",
            remedy="give a slice that meets the columns",
        )
    if fixed is None:
        return
    kept = int((~perturbed).sum())
    if fixed.ndim != 2 or fixed.shape[1] != kept:
        raise UserError(
            "fixed",
            f"have the {kept} columns that are not perturbed",
            got=tuple(fixed.shape),
            remedy="give one column for each of them",
        )
    if bool((fixed.norm(dim=0) > radius).any()):
        raise UserError(
            "fixed",
            f"hold tokens of norm at most {radius:g}",
            got=f"{float(fixed.norm(dim=0).max()):g}",
            remedy="raise the radius",
        )


def largest_jacobian_norm(
    forward: Forward,
    *,
    dim: int,
    tokens: int,
    radius: float,
    norm: Norm,
    generator: torch.Generator,
    perturbed: slice | None = None,
    read: slice | None = None,
    fixed: Tensor | None = None,
    aligned: Tensor | None = None,
    starts: int = 28,
    steps: int = 120,
    dtype: torch.dtype = torch.float64,
) -> JacobianEstimate:
    """Search the token balls for the largest Jacobian norm of a map.

    Cost: `steps` + 18 forward passes of the batch of starts, and 20 of 4 directions for each
    token, each with a forward-mode tangent and a backward pass through both.

    Args:
        forward: Map from (B, D, tokens) to (B, D', columns), each member of the batch by itself,
            differentiable twice over (the second time almost everywhere).
        dim: Width D of a token.
        tokens: Tokens of a point, all columns.
        radius: Radius of the ball that holds each token.
        norm: Norm of directions and of changes: "token" or "frobenius".
        generator: Source of randomness; its device is where the search runs.
        perturbed: Columns that directions move; all unless given. A prompt is
            `slice(0, prompt_tokens)`: the constant is then one of the outputs as a function of
            the prompt, the largest over all inputs in the ball.
        read: Columns of the output that are compared; all unless given.
        fixed: Values of the columns that are not perturbed, shape (D, their number), where the
            inputs are known. Without it they are searched, too.
        aligned: Directions for starts, shape (D, any), such as `ascent.singular_directions`.
        starts: Points the search begins with.
        steps: Steps, all rounds of the search together.
        dtype: Type of the numbers.

    Returns:
        The best point and direction over all starts.

    Raises:
        UserError: A size is not positive, the norm is unknown, or `fixed` does not fit.
        RunFailed: The map has a derivative that is not finite.
    """
    require_positive_int("dim", dim)
    require_positive_int("tokens", tokens)
    require_positive_int("starts", starts)
    require_positive_int("steps", steps)
    require_positive("radius", radius)
    perturbs = _columns(perturbed, tokens, generator.device)
    _require_domain(norm, perturbs, radius, fixed)
    points = starting_points(
        dim=dim,
        tokens=tokens,
        radius=radius,
        count=starts,
        generator=generator,
        dtype=dtype,
        aligned=aligned,
    )
    if fixed is not None:
        points[:, :, ~perturbs] = fixed.to(points)

    def compared(batch: Tensor) -> Tensor:
        outputs = forward(batch)
        return outputs if read is None else outputs[..., read]

    moving = perturbs if fixed is not None else torch.ones_like(perturbs)
    domain = Domain(radius=radius, norm=norm, moving=moving, perturbed=perturbs)
    directions = towards_outputs(compared, points, domain=domain, generator=generator)
    reached = search(compared, points, directions, domain=domain, steps=steps, generator=generator)
    if not bool(reached.values.isfinite().all()):
        raise RunFailed(
            "the search met a derivative that is not finite", remedy="check the weights"
        )
    best = int(reached.values.argmax())
    turned = turn(
        compared,
        reached.points[best],
        reached.directions[best],
        domain=domain,
        generator=generator,
    )
    last = int(turned.values.argmax())
    return JacobianEstimate(
        value=float(turned.values[last]),
        norm=norm,
        point=turned.points[last],
        direction=turned.directions[last],
        history=(*reached.history[:, 0].tolist(), float(turned.values[last])),
    )
