"""E4: with tokens in balls and L in the Frobenius norm the published share is false."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import torch

from promptlimits.lab.errata.counterexample import Counterexample
from promptlimits.nets.paper.layers import PaperHead, PaperLayer
from promptlimits.nets.paper.transformer import PaperTransformer

_PROMPT_TOKENS: Final = 49
_VALUE: Final = Fraction(50, 210)
_EPS: Final = Fraction(1, 10)
_TARGETS: Final = 3001


def mean_of_the_prompt() -> PaperTransformer:
    """One head on numbers, A = 0 and V = 50/210, no MLP.

    Behind 49 prompt tokens the output at the query token 0 is the prompt's sum over 210.
    """
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    head = PaperHead(query=zero, key=zero, value=float(_VALUE) * one, output=one)
    layer = PaperLayer(heads=(head,), w1=one[:0], b1=one[0, :0], w2=one[:, :0], b2=zero[0])
    return PaperTransformer(layers=(layer,))


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
    places = torch.arange(_TARGETS, dtype=torch.float64) * 2 + 1
    targets = places / _TARGETS - 1
    largest = float(outputs(torch.ones_like(anywhere)))
    level = (targets / largest).clamp(-1, 1)
    made = outputs(level[:, None, None].expand(-1, 1, _PROMPT_TOKENS))
    met = float(((made - targets).abs() <= float(_EPS)).double().mean())
    published = (3 * lipschitz / float(_EPS)) ** _PROMPT_TOKENS * 3 * float(_EPS)
    true = Fraction(7, 30) + _EPS
    return Counterexample(
        key="E4",
        refutes=met > published + 0.01,
        measured=f"{_PROMPT_TOKENS} prompt tokens in [-1, 1], L = {lipschitz:.7g}, outputs up to "
        f"{largest:.7g}: {met:.6g} of {_TARGETS} targets spread over [-1, 1] are met within 0.1 "
        f"(exactly {true}), published at most {published:.6g}",
        numbers={
            "prompt_tokens": _PROMPT_TOKENS,
            "lipschitz": lipschitz,
            "eps": float(_EPS),
            "largest_output": largest,
            "true_share": float(true),
            "share_met": met,
            "published": published,
            "targets": _TARGETS,
        },
    )
