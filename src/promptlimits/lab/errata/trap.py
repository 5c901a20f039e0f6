"""W4: contracting blocks, depth 4, and outputs behind a prompt that do not depend on the input.

d = 2, uniform attention (A = 0), V = R - I with R the rotation by 45 degrees, no MLP, four
equal layers, one prompt token p, one input token x. Every block has the Lipschitz constant
||V|| = 2 sin(22.5 deg) = 0.765 < 1, so [p, x] -> [p', y] is one-to-one: Theorem 4 of wang2023.
A layer adds V mu to both tokens, mu their mean: it turns the mean by 45 degrees and keeps both
differences from it. After four layers the mean is -mu, so y = x - 2 mu = -p whatever x is, and
p' = -x carries the input away.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final

import torch
from torch import Tensor

from promptlimits.lab.errata.run import Counterexample
from promptlimits.lipschitz.paper.invertibility import certify_invertible
from promptlimits.nets.paper.layers import PaperHead, PaperLayer
from promptlimits.nets.paper.transformer import PaperTransformer, to_weights

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
