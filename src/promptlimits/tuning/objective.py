"""What training minimises, and what counts as an exact answer.

The aim is exactness: at every scored position the right token must win, because greedy
decoding then reproduces the answer (by induction over its tokens). Mean cross-entropy is
only a way there, and sharpening the logits turns its pressure on tokens that do not win yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from promptlimits.models.protocol import PackedPairs


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What one forward pass says about B prompts.

    Attributes:
        loss_nats: (B,) mean sharpened cross-entropy over the read positions.
        exact: (B, K) whether every token of a pair wins with the required lead.
        tokens_right: (B,) share of read positions whose token wins with that lead.
    """

    loss_nats: Tensor
    exact: Tensor
    tokens_right: Tensor


def lead(logits: Tensor, targets: Tensor) -> Tensor:
    """How far each target's logit stands above the best other one.

    Args:
        logits: (B, R, V).
        targets: (R,).

    Returns:
        (B, R), in units of the row's largest absolute logit, so that it can be compared with
        rounding: two float32 implementations of one model differ by about 1e-5 there.
    """
    index = targets.expand(logits.shape[:-1]).unsqueeze(-1)
    own = logits.gather(-1, index).squeeze(-1)
    others = logits.scatter(-1, index, float("-inf")).amax(dim=-1)
    scale = logits.abs().amax(dim=-1).clamp_min(torch.finfo(logits.dtype).tiny)
    return (own - others) / scale


def score(logits: Tensor, pairs: PackedPairs, *, sharpening: float, relative_lead: float) -> Scores:
    """Loss, exact pairs and token accuracy of B prompts.

    Args:
        logits: (B, R, V) at the read positions of `pairs`.
        pairs: The pairs, K of them.
        sharpening: Factor on the logits inside the cross-entropy; 1 is the plain loss.
        relative_lead: Lead that a winning token must have, as a share of the row's largest
            absolute logit; a NaN never wins.

    Returns:
        The scores; only `loss_nats` carries a gradient.
    """
    batch, reads, _ = logits.shape
    targets = pairs.targets.expand(batch, reads)
    nats = cross_entropy((sharpening * logits).flatten(0, 1), targets.flatten(), reduction="none")
    right = lead(logits.detach(), pairs.targets) > relative_lead
    wrong = torch.zeros(batch, pairs.num_pairs, device=logits.device)
    wrong.index_add_(1, pairs.pair_of_read, (~right).to(wrong.dtype))
    return Scores(
        loss_nats=nats.view(batch, reads).mean(dim=1),
        exact=wrong == 0,
        tokens_right=right.to(torch.float64).mean(dim=1),
    )
