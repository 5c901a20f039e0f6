"""Two experiments: the threshold of invertibility, and how a prompt grows while it is trained.

**Threshold.** Weights are scaled through it, prompts trained on both sides. One random transformer,
every weight times a factor c. Two inputs X, X'. Behind prompts of the token ball, two tasks: the
outputs behind a hidden prompt of that ball (an invertible target, which some prompt meets), and one
common answer, whichever it is. The larger error of the second is ||Y - Y'||/2 at best, and by
Theorem I at least floor(c) ||X - X'||/2. Where the floor is above 0, no prompt of any length fits
the second; far above the threshold, trained prompts do.

**Growth.** The spectral norm of a prompt in training grows until the loss saturates. A prompt of
short tokens is trained by Adam to give two inputs one answer. While all tokens are within D*
(`lipschitz.paper.prompt_norm_limit`) that is proved impossible, so the prompt must leave the ball.
Recorded at each step: the loss, the larger error, ||P||_2, and the longest token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Final

import numpy as np
import torch
from torch import Tensor

from promptlimits.base.errors import UserError
from promptlimits.base.files import JsonObject
from promptlimits.lab.regression.levenberg_marquardt import LevenbergMarquardt, solve
from promptlimits.lipschitz.balls.matrix import float_down
from promptlimits.lipschitz.paper.invertibility import certify_invertible
from promptlimits.lipschitz.paper.prompt_norm_limit import prompt_norm_limit
from promptlimits.nets.paper.transformer import from_weights
from promptlimits.nets.paper.weights import TransformerWeights, random_weights

SCALES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4, 2.0)
_MET: Final = 1e-15
"""Norm of the residuals at which training ends: rounding."""
_DIM: Final = 4
_PROMPT_TOKENS: Final = 4
_RADIUS: Final = 1.0
_INSIDE: Final = 0.9
"""Inputs and the hidden prompt have tokens of this share of the radius."""


@dataclass(frozen=True, kw_only=True)
class ThresholdPoint:
    """One factor on the weights."""

    scale: float  # the factor c
    deviation: float  # lambda, an upper limit
    floor: float  # proved: ||Y - Y'|| >= floor ||X - X'||; 0 if not
    proved_least_error: float  # proved lower limit on the error at a common answer
    two_to_one_error: float  # error found at the best common answer (largest token length)
    invertible_error: float  # error found at the invertible target


def threshold(
    *, scales: Sequence[float] = SCALES, starts: int = 8, steps: int = 50, seed: int = 0
) -> tuple[ThresholdPoint, ...]:
    """Scale the weights, certify, and train."""
    inputs, hidden = _data(seed)
    points = []
    for scale in scales:
        weights = _network(scale, np.random.default_rng(seed))
        generator = torch.Generator().manual_seed(seed)
        errors = _errors(weights, inputs, hidden, starts, steps, generator)
        points.append(_point(scale, weights, inputs, *errors))
    return tuple(points)


def to_json(points: Sequence[ThresholdPoint]) -> JsonObject:
    """As plain JSON."""
    return {"experiment": "threshold", "points": [asdict(point) for point in points]}


def _network(scale: float, generator: np.random.Generator) -> TransformerWeights:
    return random_weights(
        dim=_DIM,
        heads=2,
        head_dim=_DIM,
        hidden=2 * _DIM,
        layers=2,
        generator=generator,
        scale=scale,
    )


def _data(seed: int) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(seed + 1)
    drawn = generator.standard_normal((2 + _PROMPT_TOKENS, _DIM))
    drawn *= _INSIDE * _RADIUS / np.linalg.norm(drawn, axis=1, keepdims=True)
    return torch.tensor(drawn[:2, :, None]), torch.tensor(drawn[2:].T)


def _errors(
    weights: TransformerWeights,
    inputs: Tensor,
    hidden: Tensor,
    starts: int,
    steps: int,
    generator: torch.Generator,
) -> tuple[float, float]:
    """Largest token error at the best common answer, and at the outputs behind `hidden`."""
    model = from_weights(weights)
    targets = model.with_prompt(hidden, inputs)

    def common(prompt: Tensor) -> Tensor:
        outputs = model.with_prompt(prompt, inputs)
        return (outputs[0] - outputs[1]) / 2

    def wanted(prompt: Tensor) -> Tensor:
        return model.with_prompt(prompt, inputs) - targets

    found = []
    for task in (common, wanted):
        free = torch.randn(starts, *hidden.shape, generator=generator, dtype=torch.float64)
        tokens = task(fitted_prompt(task, free, radius=_RADIUS, steps=steps))
        lengths = torch.linalg.vector_norm(tokens.reshape(-1, *inputs.shape[-2:]), dim=-2)
        found.append(float(lengths.max()))
    return found[0], found[1]


def fitted_prompt(
    task: Callable[[Tensor], Tensor], starts: Tensor, *, radius: float, steps: int
) -> Tensor:
    """The prompt (d, m_p) of smallest residuals found from starts (S, d, m_p), all at once.

    A token is r z/(1 + |z|^2)^(1/2), so z is free and the token stays within r. What is found is an
    error that some prompt attains; it proves nothing about other prompts.
    """
    problem = _Fit(task, starts.shape[1:], radius)
    settings = LevenbergMarquardt(tolerance=_MET, max_steps=steps, damping=1e-2, most_damping=1e14)
    found = solve(problem, starts.flatten(1)[None], settings)
    return problem.prompt(found.unknowns[found.errors.argmin()])


class _Fit:
    """A task on prompts as `levenberg_marquardt.LeastSquares`: one problem for each start."""

    def __init__(
        self, task: Callable[[Tensor], Tensor], shape: tuple[int, ...], radius: float
    ) -> None:
        self._task, self._shape, self._radius = task, shape, radius

    def prompt(self, unknowns: Tensor) -> Tensor:
        z = unknowns.reshape(self._shape)
        kept: Tensor = self._radius * z / (1 + z.square().sum(dim=-2, keepdim=True)).sqrt()
        return kept

    def residuals(self, unknowns: Tensor, index: Tensor) -> Tensor:
        found: Tensor = torch.func.vmap(self._flat)(unknowns)
        return found

    def jacobian(self, unknowns: Tensor, index: Tensor) -> Tensor:
        slopes: Tensor = torch.func.vmap(torch.func.jacrev(self._flat))(unknowns)
        return slopes

    def errors(self, residuals: Tensor) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(residuals, dim=-1)
        return lengths

    def _flat(self, unknowns: Tensor) -> Tensor:
        return self._task(self.prompt(unknowns)).reshape(-1)


def _point(
    scale: float,
    weights: TransformerWeights,
    inputs: Tensor,
    two_to_one: float,
    invertible: float,
) -> ThresholdPoint:
    certificate = certify_invertible(weights, radius=Fraction(_RADIUS))
    apart = float(torch.linalg.vector_norm(inputs[0] - inputs[1], dim=-2).max())
    # Three units in the last place of a sum of a few squares, rounded towards smaller claims.
    distance = Fraction(apart) * (1 - Fraction(1, 2**45))
    return ThresholdPoint(
        scale=scale,
        deviation=_finite(certificate.deviation),
        floor=float_down(certificate.floor),
        proved_least_error=float_down(certificate.least_error(distance)),
        two_to_one_error=two_to_one,
        invertible_error=invertible,
    )


def _finite(value: Fraction) -> float:
    """A float at or above, at most the largest one."""
    return float(np.nextafter(min(float(min(value, Fraction(10) ** 307)), 1e307), np.inf))


@dataclass(frozen=True, kw_only=True)
class PromptNormGrowth:
    """A training run, step by step; the first entry is before any step."""

    limit: float  # D*, rounded down: proved
    losses: tuple[float, ...]  # sum of squared errors at both inputs
    errors: tuple[float, ...]  # the larger of the two errors
    spectral_norms: tuple[float, ...]  # ||P||_2
    token_norms: tuple[float, ...]  # length of the longest prompt token

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        series = {name: values for name, values in vars(self).items() if name != "limit"}
        return {
            "experiment": "norm",
            "limit": self.limit,
            **{name: list(values) for name, values in series.items()},
        }


def norm_growth(
    *, scale: float = 0.45, steps: int = 800, learning_rate: float = 0.05, seed: int = 0
) -> PromptNormGrowth:
    """Train one prompt."""
    generator = np.random.default_rng(seed)
    weights = _network(scale, generator)
    limit = prompt_norm_limit(weights).value
    if not limit:
        raise UserError(
            "the scale of the weights",
            "leave a prompt norm below which it is proved that inputs keep apart",
            got=scale,
            remedy="give a smaller scale",
        )
    ball = float_down(min(limit, Fraction(10**6)))
    inputs = torch.tensor(_tokens(generator, (2, _DIM, 1), 0.9 * ball))
    prompt = torch.tensor(_tokens(generator, (_DIM, _PROMPT_TOKENS), 0.1 * ball))
    model = from_weights(weights)
    target = model.with_prompt(prompt, inputs).mean(dim=0)
    rows: list[tuple[float, float, float, float]] = []

    def loss(of: Tensor) -> Tensor:
        rest = model.with_prompt(of, inputs) - target
        squares = rest.square().sum(dim=(-2, -1))
        rows.append(_measured(of.detach(), squares.detach()))
        return squares.sum()

    _train(loss, prompt, steps, learning_rate)
    losses, errors, spectral, tokens = zip(*rows, strict=True)
    return PromptNormGrowth(
        limit=ball,
        losses=losses,
        errors=errors,
        spectral_norms=spectral,
        token_norms=tokens,
    )


def _measured(prompt: Tensor, squares: Tensor) -> tuple[float, float, float, float]:
    """Loss, larger error, spectral norm, longest token."""
    return (
        float(squares.sum()),
        float(squares.max().sqrt()),
        float(torch.linalg.matrix_norm(prompt, 2)),
        float(torch.linalg.vector_norm(prompt, dim=0).max()),
    )


def _train(
    loss: Callable[[Tensor], Tensor], prompt: Tensor, steps: int, learning_rate: float
) -> None:
    trained = prompt.clone().requires_grad_(True)
    adam = torch.optim.Adam([trained], lr=learning_rate)
    for step in range(steps):
        adam.param_groups[0]["lr"] = learning_rate * (1 - 0.9 * step / steps)
        adam.zero_grad()
        loss(trained).backward()
        adam.step()
    loss(trained)


def _tokens(
    generator: np.random.Generator, shape: tuple[int, ...], length: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    drawn = generator.standard_normal(shape)
    scaled: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = (
        drawn * length / np.linalg.norm(drawn, axis=-2, keepdims=True)
    )
    return scaled
