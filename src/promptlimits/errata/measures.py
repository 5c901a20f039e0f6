"""E9 and E10: what distances between measures of tokens do not see, and see too well."""

from __future__ import annotations

import itertools
from typing import Final

import numpy as np
import torch

from promptlimits.errata.counterexample import Counterexample
from promptlimits.lipschitz.weights import random_weights
from promptlimits.models.transformer import from_weights
from promptlimits.models.transport import position_distance, wasserstein_distance

_ORDER: Final = 2
_PATTERNS: Final = 5


def prompt_written_twice(seed: int = 0) -> Counterexample:
    """E9: P and [P, P] at distance W_2 = 0, and what a random layer makes of them.

    Args:
        seed: Seed of the layer (d = 4, two heads, ReLU MLP), the prompt and the query.

    Returns:
        The counterexample.
    """
    generator = np.random.default_rng(seed)
    tau = from_weights(
        random_weights(
            dim=4,
            heads=2,
            head_dim=2,
            hidden=8,
            layers=1,
            generator=generator,
            masked=False,
            scale=2.0,
        )
    )
    prompt = torch.tensor(generator.standard_normal((4, 3)))
    query = torch.tensor(generator.standard_normal((4, 2)))
    twice = torch.cat([prompt, prompt], dim=1)
    once_out = tau(torch.cat([prompt, query], dim=1))
    twice_out = tau(torch.cat([twice, query], dim=1))
    prompts = wasserstein_distance(prompt.T, twice.T, order=_ORDER)
    outputs = wasserstein_distance(once_out.T, twice_out.T, order=_ORDER)
    last = float((once_out[:, -1] - twice_out[:, -1]).norm())
    return Counterexample(
        key="E9",
        refutes=prompts == 0 and outputs > 1e-6,
        measured=f"W_2(M(P), M([P, P])) = {prompts:g}, and the measures of the outputs are "
        f"{outputs:.4g} apart, the last tokens {last:.4g}",
        numbers={
            "order": _ORDER,
            "prompt_distance": prompts,
            "output_distance": outputs,
            "last_token_distance": last,
            "seed": seed,
        },
    )


def rademacher_pattern(number: int, length: int) -> list[bool]:
    """r_number on `length` positions: false on the first 2^-number of them, then true, and so on.

    Args:
        number: 1 or more.
        length: A multiple of 2^number.

    Returns:
        One truth value for each position.
    """
    return [(place * 2**number // length) % 2 == 1 for place in range(length)]


def rademacher_prompts() -> Counterexample:
    """E10: masked prompts of two tokens, pairwise |a - b| 2^(-1/q) apart in d^m.

    Five prompts of 32 tokens; N prompts of 2^N tokens do the same for every N.

    Returns:
        The counterexample.
    """
    length = 2**_PATTERNS
    a, b = np.array([0.0, 0.0]), np.array([3.0, 4.0])
    times = np.arange(1, length + 1) / length
    prompts = [
        np.array([b if second else a for second in rademacher_pattern(number, length)])
        for number in range(1, _PATTERNS + 1)
    ]
    found = [
        position_distance(one, other, first_times=times, second_times=times, order=_ORDER)
        for one, other in itertools.combinations(prompts, 2)
    ]
    expected = float(np.linalg.norm(a - b)) * 2 ** (-1 / _ORDER)
    return Counterexample(
        key="E10",
        refutes=min(found) >= expected * (1 - 1e-12),
        measured=f"{_PATTERNS} prompts of {length} tokens, each a or b with |a - b| = 5, are "
        f"pairwise {min(found):.6g} to {max(found):.6g} apart, as 5 * 2^(-1/2) = "
        f"{expected:.6g}; N of 2^N tokens are too, so no finite cover exists",
        numbers={
            "order": _ORDER,
            "patterns": _PATTERNS,
            "length": length,
            "distances": list(found),
            "expected": expected,
        },
    )
