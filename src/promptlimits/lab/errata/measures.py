"""E9, E10 and E17: what distances between measures of tokens do not see, and see too well.

**E17, what holds.** Masked mean-field attention of one head is Lipschitz for
D = ess sup_s W_2(mu^s, nu^s), the largest distance over positions, with constant
||V|| (1 + 2 beta) e^beta, beta = ||A|| r^2, which the published ||V|| (1 + 3 beta) e^(2 beta)
exceeds. *Proof.* Couple mu^s and nu^s optimally for each s. A token (s, x) attends to the mixture
of the mu^t, t <= s, and the same mixture of couplings, pi, has E_pi |y - y'|^2 <= D^2. Move
along x_u = x + u (x' - x) and y_u, in the ball. The weights P have a density of at most
e^(2 beta) with respect to pi. The derivative of the output has the covariance term, at most
||V|| beta |x' - x|, and, with e = y' - y, m the mean of y_u under P,
||V|| E_P (|e| + ||A|| r |y_u - m| |e|) <= ||V|| (1 + beta) (E_P |e|^2)^(1/2)
<= ||V|| (1 + beta) e^beta D, as E_P |y_u - m|^2 <= r^2. In L^2 of the coupling at position s, by
Minkowski: at most ||V|| (beta + (1 + beta) e^beta) D. [] Without the supremum the second step
fails: the distances at earlier positions count more than once.
"""

from __future__ import annotations

import itertools
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from promptlimits.base.typing import JsonValue
from promptlimits.lab.errata.run import Counterexample
from promptlimits.nets.paper.layers import PaperHead, PaperLayer
from promptlimits.nets.paper.mean_field import gamma, token_measure
from promptlimits.nets.paper.transformer import from_weights
from promptlimits.nets.paper.transport import position_distance, wasserstein_distance
from promptlimits.nets.paper.weights import random_weights

_ORDER: Final = 2
_PATTERNS: Final = 5
_LENGTHS: Final = (2, 8, 32, 128)


def prompt_written_twice(seed: int = 0) -> Counterexample:
    """E9: P and [P, P] at distance W_2 = 0, and what a random layer makes of them."""
    generator = np.random.default_rng(seed)
    tau = from_weights(
        random_weights(dim=4, heads=2, head_dim=2, hidden=8, generator=generator, scale=2.0)
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
    """r_number on `length` positions: false and true in turn, each for 2^-number of them."""
    return [(place * 2**number // length) % 2 == 1 for place in range(length)]


def rademacher_prompts() -> Counterexample:
    """E10: masked prompts of two tokens, pairwise |a - b| 2^(-1/q) apart in d^m.

    Five prompts of 32 tokens; N prompts of 2^N tokens do the same for every N.
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


def running_mean() -> Counterexample:
    """E17: how far masked attention with A = 0, V = I moves measures apart in d^m.

    One measure has all its tokens at 0, the other's tokens are those that running means enlarge
    most for p = 2 (a singular vector), and a first token alone for p = 1.
    """
    rows: list[JsonValue] = []
    twos: list[float] = []
    ones: list[float] = []
    for length in _LENGTHS:
        means = np.tril(np.ones((length, length))) / np.arange(1, length + 1)[:, None]
        worst = np.abs(np.linalg.svd(means)[2][0])
        for found, tokens, order in ((twos, worst, 2), (ones, np.eye(length)[0], 1)):
            averaged, largest = _expansion(tokens, order)
            found.append(averaged)
            rows.append(
                {"tokens": length, "order": order, "averaged": averaged, "largest": largest}
            )
    return Counterexample(
        key="E17",
        refutes=twos[0] > 1.1 and twos == sorted(twos) and ones[-1] > 5,
        measured=f"A = 0, V = I, published constant 1: two measures of {_LENGTHS[0]} tokens are "
        f"{twos[0]:.4f} times as far apart after attention for p = 2, of {_LENGTHS[-1]} tokens "
        f"{twos[-1]:.4f} times, and {ones[-1]:.4f} times for p = 1; by the largest distance over "
        "positions never more than 1 time",
        numbers={"published": 1.0, "rows": rows},
    )


def linear_attention() -> PaperLayer:
    """One head with A = 0 and V = 1 on numbers: attention is the mean of what is seen."""
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    return PaperLayer.without_mlp(PaperHead(query=zero, key=zero, value=one, output=one))


def _expansion(tokens: NDArray[np.float64], order: int) -> tuple[float, float]:
    """Distances after attention over those before, from all zeros: d^m, and the largest one."""
    layer = linear_attention()
    moved = token_measure(torch.tensor(tokens)[None], timed=True)
    still = token_measure(torch.zeros(1, len(tokens), dtype=torch.float64), timed=True)
    before = (moved.points, still.points)
    after = tuple(gamma(layer, each, each.points, each.times) for each in (moved, still))
    (far, most), (farther, more) = (
        (
            position_distance(
                one, other, first_times=moved.times, second_times=still.times, order=order
            ),
            float((one - other).abs().max()),
        )
        for one, other in (before, after)
    )
    return farther / far, more / most
