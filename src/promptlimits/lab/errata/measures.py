"""Counterexamples that need no search: E8, E9, E10, E11, E17 and W4.

E9, E10 and E17: what distances between measures of tokens do not see, and see too well.

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

E8 (covering numbers) and E11 (dimensions) take integers alone.

**W4**: contracting blocks, depth 4, and outputs behind a prompt that do not depend on the input.
d = 2, uniform attention (A = 0), V = R - I with R the rotation by 45 degrees, no MLP, four
equal layers, one prompt token p, one input token x. Every block has the Lipschitz constant
||V|| = 2 sin(22.5 deg) = 0.765 < 1, so [p, x] -> [p', y] is one-to-one: Theorem 4 of wang2023.
A layer adds V mu to both tokens, mu their mean: it turns the mean by 45 degrees and keeps both
differences from it. After four layers the mean is -mu, so y = x - 2 mu = -p whatever x is, and
p' = -x carries the input away.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptlimits.base.errors import UserError
from promptlimits.base.files import JsonValue
from promptlimits.lab.errata.statements import Counterexample
from promptlimits.lipschitz.paper.invertibility import certify_invertible
from promptlimits.nets.paper.layers import PaperHead, PaperLayer
from promptlimits.nets.paper.mean_field import gamma, token_measure
from promptlimits.nets.paper.transformer import PaperTransformer, from_weights, to_weights
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


HEAD_SIZE: Final = 64
"""Size of a head where only the number of heads is given, as in BERT and GPT-2."""

_RADIUS: Final = Fraction(1, 10)
_LOG_CONSTANT: Final = 100
"""log C of the E8 example; any other C fails from a smaller eps on."""


def published_dimension(dim: int, heads: int) -> int:
    """(d-h^2-h)!/(d-h^2-2h-1)!, the dimension that Theorem 5.7 claims."""
    lowest = dim - heads**2 - 2 * heads
    if heads < 1 or lowest < 1:
        raise UserError(
            "the number of heads",
            "satisfy d - h^2 - 2h > 0, as Theorem 5.7 asks",
            got=f"h = {heads} at d = {dim}",
            remedy="give fewer heads",
        )
    return math.prod(range(lowest, lowest + heads + 1))


def dimension(heads: int = 12) -> Counterexample:
    """E11: the claimed dimension against the ambient one, at d = 64 h."""
    dim = HEAD_SIZE * heads
    claimed, ambient = published_dimension(dim, heads), (heads + 1) * dim
    single = next(d for d in range(4, 100) if published_dimension(d, 1) > 2 * d)
    return Counterexample(
        key="E11",
        refutes=claimed > ambient,
        measured=f"at d = {dim}, h = {heads} the claimed subspace has dimension {claimed:.4g} in "
        f"a space of dimension {ambient}; one that holds has {heads * dim - heads - 1}; "
        f"with h = 1 the claim exceeds the space from d = {single}",
        numbers={
            "dim": dim,
            "heads": heads,
            "published_dimension": claimed,
            "ambient_dimension": ambient,
            "corrected_dimension": heads * dim - heads - 1,
            "first_dim_of_one_head": single,
        },
    )


def monotone_cover(columns: int) -> int:
    """Size of a cover of the distribution functions on [-r, r] at W_1 distance 2r/columns.

    Statement: non-decreasing step functions on M equal columns with values in {0, 1/M, ..., 1}
    are such a cover, and number binom(2M, M). Proof: W_1 is the L_1 distance of distribution
    functions; round the mean of F's values at the ends of a column; on it the error is at most
    half of F's rise plus 1/(2M), and the rises add up to 1 at most: in all
    (2r/M)(1/2 + 1/2). Each step function is that of a uniform measure on M atoms.
    """
    return math.comb(2 * columns, columns)


def covering() -> Counterexample:
    """E8: on [-1/10, 1/10] the true covering number in W_1 against exp(1/eps)/C, log C = 100."""
    columns = next(m for m in range(1, 1000) if _log_claim(m) > math.log(monotone_cover(m + 1)) + 1)
    epsilon = 2 * _RADIUS / columns
    cover, claimed = math.log(monotone_cover(columns + 1)), _log_claim(columns)
    return Counterexample(
        key="E8",
        refutes=claimed > cover,
        measured=f"measures on [-0.1, 0.1] are covered at eps = {float(epsilon):.4g} by "
        f"e^{cover:.1f} balls of W_1; with log C = {_LOG_CONSTANT} at least e^{claimed:.1f} "
        "are claimed",
        numbers={
            "radius": float(_RADIUS),
            "eps": float(epsilon),
            "log_constant": _LOG_CONSTANT,
            "log_cover": cover,
            "log_published": claimed,
        },
    )


def _log_claim(columns: int) -> float:
    """Logarithm of exp(1/eps)/C at eps = 2r/columns."""
    return float(columns / (2 * _RADIUS)) - _LOG_CONSTANT


DEPTH: Final = 4
_ROUNDING: Final = 1e-14
"""Above what some forty float operations on numbers of order 1 lose."""


def trap() -> PaperTransformer:
    """The transformer of width 2 and depth 4."""
    turn = math.sqrt(0.5)
    one = torch.eye(2, dtype=torch.float64)
    rotation = torch.tensor([[turn, -turn], [turn, turn]], dtype=torch.float64)
    nothing = torch.zeros(1, 2, dtype=torch.float64)
    head = PaperHead(query=nothing, key=nothing, value=rotation - one, output=one)
    return PaperTransformer(layers=(PaperLayer.without_mlp(head),) * DEPTH)


def contracting_blocks(seed: int = 0) -> Counterexample:
    """W4: 32 inputs behind one prompt, and their outputs."""
    model = trap()
    generator = torch.Generator().manual_seed(seed)

    def drawn(count: int) -> Tensor:
        return torch.randn(count, 2, 1, generator=generator, dtype=torch.float64)

    prompt, inputs = drawn(1)[0], drawn(32)
    outputs = model.with_prompt(prompt, inputs)
    whole = model(torch.cat([prompt.expand_as(inputs), inputs], dim=-1))
    spread = float((outputs + prompt).abs().max())
    carried = float((whole[..., :1] + inputs).abs().max())
    certificate = certify_invertible(to_weights(model), radius=Fraction(1))
    block = float(certificate.blocks[0].attention)
    distance = float((inputs[:, None] - inputs[None]).norm(dim=(-2, -1)).max())
    return Counterexample(
        key="W4",
        refutes=block < 1 and spread < _ROUNDING and certificate.whole_floor > 0,
        measured=f"each of {DEPTH} blocks has a constant of at most {block:.6f}; of 32 inputs up "
        f"to {distance:.4f} apart, all have the output -p "
        f"{'up to rounding' if spread < _ROUNDING else f'to within {spread:.3g}'}",
        numbers={
            "layers": DEPTH,
            "block_constant": block,
            "lambda": float(certificate.deviation),
            "largest_difference_of_outputs": spread,
            "largest_distance_of_inputs": distance,
            "prompt_outputs_plus_inputs": carried,
            "seed": seed,
        },
    )
