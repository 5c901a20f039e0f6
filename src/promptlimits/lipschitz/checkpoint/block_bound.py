"""Sensitivity of one block's outputs to the prompt, from the norms of its matrices.

**Setting.** Token norm throughout: a perturbation of the prompt's tokens is as large as its
largest token. Between blocks, prompt rows move by at most p and the other rows by at most q,
with q <= p, per unit by which the prompt moved; q = 0 at the start, since the rest of the input
is fixed. Any mask is allowed. D is the width, R = sqrt(D).

**Norms.** N(x) = c(x) / s(x) with c(x) = x (RMSNorm) or x less its mean (LayerNorm) and
s(x)^2 = |c(x)|^2 / D + eps. Then |N(x)| <= R and N is Lipschitz with 1 / s_min where
s_min = sqrt(eps), for its derivative at x is (1/s)(I - c c^T / (D s^2)) c, of norm at most 1/s.

*Trust region.* Let s_min = sqrt(eps + S0^2) and N~(x) = c(x) / max(s(x), s_min). Wherever s(x) >=
s_min the derivative is as above, elsewhere N~ is linear with factor 1/s_min; so N~ is Lipschitz
with 1/s_min on the whole space (no convexity of the region is needed), |N~| <= R still, and N~ = N
where the vector's deviation |c(x)|/sqrt(D) is at least S0. With every N replaced by N~ the model is
another one, whose constant is proved; both agree for the prompts that keep all deviations at
S0 or more on every input, and of these a capacity bound for the replaced model speaks.

**Attention.** z = N(x), logits sigma q_i . k_j (turned by positions under RoPE), P_j the softmax
weights of a row, v_j = W_v z_j + b_v. Let all z_j move by eta_j, the row's own by eta. For a unit
u and w = W_v^T W_o^T u, the head's part of the output moves along u by

    E[w.eta_j] + E[s_j dlogit_j],   s_j = w.(z_j - E z),   E s_j^2 <= |w|^2 R^2.

*No RoPE* (b_k adds the same number to all logits of a row): with kap >= sigma |W_k^T q| for
q = W_q z + b_q, the keys' part is at most

    E[(w + s_j sigma W_k^T q).eta_j] <= |w| sqrt(1 + kap^2 R^2) max |eta_j|,

as the cross term 2 (w . W_k^T q) E s_j is zero; the query's part is

    sigma E[s_j (W_k z_j).(W_q eta)] = sigma w^T Cov(z) W_k^T W_q eta <= |w| R^2 sigma ||A|| |eta|,

A = W_k^T W_q. So

    a = sqrt(1 + kap^2 R^2),   b = sigma ||A|| R^2,   kap = sigma (||A|| R + |W_k^T b_q|).

*RoPE*: the turned W_k^T q depends on j, so the cross term survives and b_k no longer cancels:

    a = 1 + sigma R lip_k q_bar,   b = sigma R lip_q k_bar,

with |q| <= q_bar = ||W_q|| R + |b_q| and lip_q = ||W_q||, and so for keys; where queries are
normalised per head (gain g, width s), q_bar = sqrt(s) max|g| and lip_q = ||W_q|| max|g| / s_min.

*Heads.* Head h moves by at most |w_h| (a_h p~ + b_h q~), p~ and q~ being what z moves by. Summed
over heads, for c = a and c = b each, with |w_h| <= ||W_v,h|| |W_o,h^T u| and Cauchy-Schwarz,

    Att(c) = ||W_o|| sqrt(sum_h (||W_v,h|| c_h)^2),   W_o = [W_o,1 .. W_o,H] side by side.

**Feed-forward.** M = ||W_2|| g' ||W_1||, or the gated form of `block_norms`, g' = sup |act'|.

**Blocks.** With s1, s2 the s_min of N1 and N2, t = max|gain| / s_min of a norm behind a sublayer
(or 1), and Att = Att(a) + Att(b):

    pre       p' = p (1 + t1 Att / s1),  q' = q + t1 (Att(a) p + Att(b) q) / s1,
              then both times 1 + t2 M / s2
    parallel  p' = p (1 + Att / s1 + M / s2),
              q' = q (1 + M / s2) + (Att(a) p + Att(b) q) / s1
    post      in the coordinates z behind a norm, g its largest gain:
              p' = p (g0 + Att) / s1,  q' = (g0 q + Att(a) p + Att(b) q) / s1,
              then both times (g1 + M) / s2.

q <= p stays true, so that no row moves z by more than p~.

**Source.** Proved here; the attention step sharpens [@castin2024] and [@kim2021] (no growth with
the number of tokens). **Tightness**: one sublayer is within a small factor of what a search finds;
eps, and products over layers, are not: a whole model's constant is usually vacuous.

**Cost.** Nothing beside the norms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Final

from flint import arb

from promptlimits.base.exact import ball
from promptlimits.lipschitz.checkpoint.block_norms import (
    AttentionFacts,
    BlockFacts,
    FeedForwardFacts,
    HeadFacts,
    NormFacts,
)
from promptlimits.nets.block import Activation

LARGEST_SLOPE: Final[dict[Activation, Fraction]] = {
    "gelu": Fraction(113, 100),
    "gelu_tanh": Fraction(113, 100),
    "silu": Fraction(11, 10),
    "relu": Fraction(1),
}
"""Upper limits on |act'|: 1.1290, 1.1291 and 1.0998 to four digits, and 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sensitivity:
    """How far rows move, at most, per unit by which the prompt moves."""

    prompt: arb  # rows of the prompt
    query: arb  # all other rows
    gain: arb  # largest gain of the norm that rows have passed ("post"), else 1


def least_deviation(norm: NormFacts, deviation: Fraction) -> arb:
    """s_min = sqrt(eps + S0^2)."""
    return ball(norm.eps + deviation * deviation).sqrt()


def known(value: Fraction | int | None) -> arb:
    """A norm that the form of a sublayer calls for."""
    if value is None:
        raise ValueError("a norm that this form of layer needs is missing")
    return ball(value)


def _projection(
    norm: Fraction | None,
    bias: Fraction | None,
    behind: NormFacts | None,
    *,
    head_dim: int | None,
    radius: arb,
    deviation: Fraction,
) -> tuple[arb, arb]:
    """Largest length and Lipschitz constant of a query or key under rotary positions."""
    if behind is None:
        return known(norm) * radius + known(bias), known(norm)
    gain = known(behind.gain)
    return known(head_dim).sqrt() * gain, known(norm) * gain / least_deviation(behind, deviation)


def head_factors(
    head: HeadFacts, facts: AttentionFacts, *, radius: arb, deviation: Fraction
) -> tuple[arb, arb]:
    """The factors a and b of one head."""
    scale = ball(facts.scale_squared).sqrt()
    if facts.positions == "added":
        logit = scale * known(head.logit)
        kap = logit * radius + scale * known(head.logit_bias)
        return (1 + (kap * radius) ** 2).sqrt(), logit * radius**2
    project = partial(_projection, head_dim=facts.head_dim, radius=radius, deviation=deviation)
    largest_q, lip_q = project(head.query, head.query_bias, facts.query_norm)
    largest_k, lip_k = project(head.key, head.key_bias, facts.key_norm)
    return 1 + scale * radius * lip_k * largest_q, scale * radius * lip_q * largest_k


def attention_factors(
    facts: AttentionFacts, *, radius: arb, deviation: Fraction
) -> tuple[arb, arb]:
    """Att(a) and Att(b), per unit by which z moves."""
    pairs = [head_factors(head, facts, radius=radius, deviation=deviation) for head in facts.heads]
    return _over_heads([a for a, _ in pairs], facts), _over_heads([b for _, b in pairs], facts)


def _over_heads(factors: Sequence[arb], facts: AttentionFacts) -> arb:
    squares = arb(0)
    for factor, head in zip(factors, facts.heads, strict=True):
        squares += (ball(head.value) * factor) ** 2
    return ball(facts.output) * squares.sqrt()


def feed_forward_factor(facts: FeedForwardFacts) -> arb:
    """M, per unit by which the sublayer's input moves."""
    slope = ball(LARGEST_SLOPE[facts.activation])
    up = ball(facts.up)
    if facts.gate is None:
        return known(facts.down) * slope * up
    return known(facts.down_up) * slope * ball(facts.gate) + known(facts.down_gate) * up


def _behind(norm: NormFacts | None, deviation: Fraction) -> arb:
    """What a norm behind a sublayer multiplies by."""
    return arb(1) if norm is None else known(norm.gain) / least_deviation(norm, deviation)


def through_block(
    facts: BlockFacts, before: Sensitivity, *, dim: int, deviation: Fraction
) -> Sensitivity:
    """Sensitivities behind a block."""
    keys, own = attention_factors(facts.attention, radius=arb(dim).sqrt(), deviation=deviation)
    mlp = feed_forward_factor(facts.feed_forward)
    first = least_deviation(facts.attention_norm, deviation)
    second = least_deviation(facts.feed_forward_norm, deviation)
    p, q = before.prompt, before.query
    if facts.arrangement == "post":
        gain = known(facts.attention_norm.gain)
        after = (gain + mlp) / second
        return Sensitivity(
            prompt=p * (before.gain + keys + own) / first * after,
            query=(before.gain * q + keys * p + own * q) / first * after,
            gain=known(facts.feed_forward_norm.gain),
        )
    behind = _behind(facts.attention_post_norm, deviation) / first
    grown = behind * (keys * p + own * q)
    if facts.arrangement == "parallel":
        step = 1 + mlp / second
        return Sensitivity(
            prompt=p * (step + behind * (keys + own)), query=q * step + grown, gain=before.gain
        )
    after = 1 + _behind(facts.feed_forward_post_norm, deviation) * mlp / second
    return Sensitivity(
        prompt=p * (1 + behind * (keys + own)) * after,
        query=(q + grown) * after,
        gain=before.gain,
    )
