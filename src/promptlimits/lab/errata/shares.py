"""E3, E4 and E12: what share of the targets prompts reach, and what is said of it."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Final

import numpy as np
import torch

from promptlimits.base.files import JsonValue
from promptlimits.lab.errata.statements import Counterexample, require_heads
from promptlimits.nets.paper.layers import PaperHead, PaperLayer, mlp
from promptlimits.nets.paper.transformer import PaperTransformer, from_weights
from promptlimits.nets.paper.weights import random_weights

_EPS: Final = Fraction(1, 5)
_DIM: Final = 3
_SAMPLES: Final = 200_000
_CONSTANTS: Final = (Fraction(1, 100), Fraction(1, 10_000), Fraction(1, 1_000_000))
MOST_HEADS: Final = 8

_PROMPT_TOKENS: Final = 49
_VALUE: Final = Fraction(50, 210)
_NEAR: Final = Fraction(1, 10)
_PLACES: Final = 3001


def constant_layer(*, dim: int, heads: int, seed: int) -> PaperTransformer:
    """A layer with Gaussian attention whose output is 0: W_1 = [I; -I], W_2 = [-I, I].

    x + W_2 ReLU(W_1 x) = x - ReLU(x) + ReLU(-x) = 0, exactly also in floating point.
    """
    drawn = from_weights(
        random_weights(
            dim=dim,
            heads=heads,
            head_dim=max(1, dim // heads),
            generator=np.random.default_rng(seed),
        )
    )
    one = torch.eye(dim, dtype=torch.float64)
    layer: PaperLayer = replace(
        drawn.layers[0],
        w1=torch.cat([one, -one]),
        b1=torch.zeros(2 * dim, dtype=torch.float64),
        w2=torch.cat([-one, one], dim=1),
    )
    return PaperTransformer(layers=(layer,))


def share_of_volume(seed: int = 0) -> Counterexample:
    """E3: the accessible share of the constant map, by volume, by sampling, and as published.

    d = 3, m = m_p = k = 1, r = 1, eps = 1/5. Targets are drawn uniformly from the ball.
    """
    draws = torch.Generator().manual_seed(seed)
    tau = constant_layer(dim=_DIM, heads=1, seed=seed)
    tokens = torch.randn(100, _DIM, 2, generator=draws, dtype=torch.float64)
    outputs = tau(tokens)[..., -1:]
    directions = torch.randn(_SAMPLES, _DIM, generator=draws, dtype=torch.float64)
    radii = torch.rand(_SAMPLES, 1, generator=draws, dtype=torch.float64) ** (1 / _DIM)
    targets = radii * directions / directions.norm(dim=1, keepdim=True)
    # The outputs of all prompts are one point: checked, so one is compared with each target.
    spread = float((outputs - outputs[:1]).abs().max())
    reached = (targets - outputs[0, :, 0]).norm(dim=1) <= float(_EPS)
    sampled, exact = float(reached.double().mean()), _EPS**_DIM
    published = [(3 * constant / _EPS * 3 * _EPS) ** _DIM for constant in _CONSTANTS]
    corrected = [min((_EPS + constant) ** _DIM, Fraction(1)) for constant in _CONSTANTS]
    rows: list[JsonValue] = [
        {"lipschitz": float(a), "published": float(b), "corrected": float(c)}
        for a, b, c in zip(_CONSTANTS, published, corrected, strict=True)
    ]
    error = math.sqrt(float(exact * (1 - exact)) / _SAMPLES)
    refuted = spread == 0 and sampled - 5 * error > float(min(published))
    return Counterexample(
        key="E3",
        refutes=refuted,
        measured=f"the map is constant, so L = 1e-6 is a Lipschitz constant; the share of "
        f"targets within 0.2 is 0.2^3 = {float(exact):.6g} ({sampled:.6g} of {_SAMPLES} "
        f"drawn), published at most {float(published[-1]):.3g}, corrected at most "
        f"{float(corrected[-1]):.6g}",
        numbers={
            "eps": float(_EPS),
            "dim": _DIM,
            "true_share": float(exact),
            "sampled_share": sampled,
            "standard_error": error,
            "samples": _SAMPLES,
            "spread_of_outputs": spread,
            "rows": rows,
            "seed": seed,
        },
    )


def mean_of_the_prompt() -> PaperTransformer:
    """One head on numbers, A = 0 and V = 50/210, no MLP.

    Behind 49 prompt tokens the output at the query token 0 is the prompt's sum over 210.
    """
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    head = PaperHead(query=zero, key=zero, value=float(_VALUE) * one, output=one)
    return PaperTransformer(layers=(PaperLayer.without_mlp(head),))


def share_of_an_interval() -> Counterexample:
    """E4: the share of targets in [-1, 1] within 0.1 of the output of some prompt, by running.

    Each target gets its best prompt, 49 equal tokens in [-1, 1]. The constant L is the norm of the
    derivative by the prompt, which is the same at every prompt.
    """
    tau, query = mean_of_the_prompt(), torch.zeros(1, 1, 1, dtype=torch.float64)

    def outputs(prompts: torch.Tensor) -> torch.Tensor:
        return tau(torch.cat([prompts, query.expand(len(prompts), -1, -1)], dim=-1))[:, 0, -1]

    draws = torch.Generator().manual_seed(0)
    anywhere = 2 * torch.rand(1, 1, _PROMPT_TOKENS, generator=draws, dtype=torch.float64) - 1
    lipschitz = float(torch.func.jacrev(outputs)(anywhere).norm())
    # Midpoints of equal parts of [-1, 1]: the share that is met is the share of the length.
    places = torch.arange(_PLACES, dtype=torch.float64) * 2 + 1
    targets = places / _PLACES - 1
    largest = float(outputs(torch.ones_like(anywhere)))
    level = (targets / largest).clamp(-1, 1)
    made = outputs(level[:, None, None].expand(-1, 1, _PROMPT_TOKENS))
    met = float(((made - targets).abs() <= float(_NEAR)).double().mean())
    published = (3 * lipschitz / float(_NEAR)) ** _PROMPT_TOKENS * 3 * float(_NEAR)
    true = Fraction(7, 30) + _NEAR
    return Counterexample(
        key="E4",
        refutes=met > published + 0.01,
        measured=f"{_PROMPT_TOKENS} prompt tokens in [-1, 1], L = {lipschitz:.7g}, outputs up to "
        f"{largest:.7g}: {met:.6g} of {_PLACES} targets spread over [-1, 1] are met within 0.1 "
        f"(exactly {true}), published at most {published:.6g}",
        numbers={
            "prompt_tokens": _PROMPT_TOKENS,
            "lipschitz": lipschitz,
            "eps": float(_NEAR),
            "largest_output": largest,
            "true_share": float(true),
            "share_met": met,
            "published": published,
            "targets": _PLACES,
        },
    )


def reachable_zero(heads: int = 2, seed: int = 0) -> Counterexample:
    """E12: with an MLP that is 0, the target MLP(y' + x_0) = 0 is reached by every prompt."""
    require_heads(heads, most=MOST_HEADS, usual=2)
    dim = (heads + 1) ** 2
    draws = torch.Generator().manual_seed(seed)
    tau = constant_layer(dim=dim, heads=heads, seed=seed)
    shared, firsts, offsets = (
        torch.randn(count, dim, 1, generator=draws, dtype=torch.float64)
        for count in (1, heads + 1, heads + 1)
    )
    queries = torch.cat([firsts, shared.expand(heads + 1, -1, -1)], dim=-1)
    targets = mlp(tau.layers[0], offsets + shared)[..., -1]
    errors: list[float] = []
    for length in (1, 2, 5):
        prompt = torch.randn(dim, length, generator=draws, dtype=torch.float64)
        errors += (tau.with_prompt(prompt, queries)[..., -1] - targets).norm(dim=-1).tolist()
    worst = max(errors)
    return Counterexample(
        key="E12",
        refutes=worst == 0,
        measured=f"the targets of {heads + 1} random nonzero offsets at d = {dim}, h = {heads} are "
        f"reached by random prompts of 1, 2 and 5 tokens with errors of at most {worst:g}",
        numbers={
            "heads": heads,
            "dim": dim,
            "errors": list(errors),
            "least_offset": float(offsets.norm(dim=1).min()),
            "seed": seed,
        },
    )
