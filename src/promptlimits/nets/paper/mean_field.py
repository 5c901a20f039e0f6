"""The mean-field transformer: a map of probability measures on tokens.

Definitions 2.5 to 2.7 and section 2.4 of meyer2025. A sequence X is the measure M(X) that gives
each token the mass 1/n, and T(M(X)) = M(tau(X)) (Appendix A, where the residual belongs inside
the MLP: E16). The masked version gives each token a time in [0, 1] beside it; a token attends
to those of its own time and earlier.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from promptlimits.base.errors import UserError
from promptlimits.nets.paper.layers import PaperLayer, attention, self_layer
from promptlimits.nets.paper.transformer import PaperTransformer


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenMeasure:
    """A probability measure with finite support on R^d, or on [0, 1] x R^d.

    Attributes:
        points: Its atoms, of shape (N, d); the same point may stand there twice.
        weights: Their masses, of shape (N,); 0 or more, adding up to 1.
        times: Position of each atom in [0, 1], of shape (N,); None where there is no order.

    Raises:
        UserError: A shape does not fit, a number is not finite, or it is no probability.
    """

    points: Tensor
    weights: Tensor
    times: Tensor | None = None

    def __post_init__(self) -> None:
        atoms = self.points.shape[0] if self.points.dim() == 2 else 0
        parts = [self.weights] + ([] if self.times is None else [self.times])
        if atoms < 1 or any(tuple(part.shape) != (atoms,) for part in parts):
            raise UserError(
                "the measure",
                "have points (N, d) and a weight, and perhaps a time, for each",
                got=f"shapes {[tuple(part.shape) for part in (self.points, *parts)]}",
                remedy="put one atom in each row",
            )
        if not all(bool(torch.isfinite(part).all()) for part in (self.points, *parts)):
            raise UserError(
                "the measure", "be finite numbers", got="NaN or infinity", remedy="mend it"
            )
        # The sum of N rounded masses is off by at most N half units in the last place.
        slack = 4 * atoms * torch.finfo(self.weights.dtype).eps
        if bool((self.weights < 0).any()) or abs(float(self.weights.sum()) - 1) > slack:
            raise UserError(
                "the weights",
                "be 0 or more and add up to 1",
                got=f"a sum of {float(self.weights.sum())}",
                remedy="divide them by their sum",
            )
        if self.times is not None and bool(((self.times < 0) | (self.times > 1)).any()):
            raise UserError("the times", "lie in [0, 1]", got=self.times.tolist(), remedy="rescale")


def token_measure(tokens: Tensor, *, timed: bool = False) -> TokenMeasure:
    """M(X), the uniform measure on the columns of X.

    Args:
        tokens: X, of shape (d, n).
        timed: Whether column i of n has the time i/n, as masked transformers need.

    Returns:
        The measure.
    """
    length = tokens.shape[-1]
    weights = torch.full((length,), 1 / length, dtype=tokens.dtype, device=tokens.device)
    times = torch.arange(1, length + 1, dtype=tokens.dtype, device=tokens.device) / length
    return TokenMeasure(points=tokens.T, weights=weights, times=times if timed else None)


def mean_field(model: PaperTransformer, measure: TokenMeasure) -> TokenMeasure:
    """T(mu), the mean-field generalisation of a transformer (Definitions 2.5 to 2.7).

    Each atom moves through Delta_mu(x) = MLP(Gamma_mu(x) + x), layer after layer; masses and
    times stay.

    Args:
        model: A transformer without positional encodings.
        measure: With times exactly when the transformer is masked.

    Returns:
        The measure of the moved atoms.

    Raises:
        UserError: The transformer has positions, or the measure does not fit it.
    """
    if model.positions is not None:
        raise UserError(
            "the transformer",
            "have no positional encodings here",
            got="some",
            remedy="add them to the tokens before making the measure",
        )
    if model.masked != (measure.times is not None):
        raise UserError(
            "the measure",
            "have times exactly when the transformer is masked",
            got=f"masked {model.masked}, times {measure.times is not None}",
            remedy="use token_measure(tokens, timed=model.masked)",
        )
    bias, tokens = _bias(measure, len(measure.points), measure.times), measure.points.T
    for layer in model.layers:
        tokens = self_layer(layer, tokens, model.norm_place, bias)
    return replace(measure, points=tokens.T)


def gamma(
    layer: PaperLayer, measure: TokenMeasure, points: Tensor, times: Tensor | None = None
) -> Tensor:
    """Gamma_mu(x), attention within a measure (Definition 2.6).

    sum_i [int V_i y e^{(W_k y).(W_q x)} dmu(y)] / [int e^{(W_k y).(W_q x)} dmu(y)], and with times
    both integrals run over the atoms of time at most that of x (section 2.4).
    """
    bias = _bias(measure, points.shape[0], times)
    return attention(layer.heads, points.T, measure.points.T, bias).T


def _bias(measure: TokenMeasure, points: int, times: Tensor | None) -> Tensor:
    """Logarithms of the masses, -inf where a point does not see an atom; (points, N)."""
    if (measure.times is None) != (times is None):
        raise UserError(
            "the times",
            "be given exactly when the measure has some",
            got="one without the other",
            remedy="give times to both or to neither",
        )
    bias = torch.log(measure.weights).expand(points, -1)
    if measure.times is not None and times is not None:
        bias = bias.masked_fill(measure.times[None, :] > times[:, None], float("-inf"))
        if bool((bias == float("-inf")).all(dim=1).any()):
            raise UserError(
                "the times", "have an atom as early as each", got=times.tolist(), remedy="use later"
            )
    return bias
