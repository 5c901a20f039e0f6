"""Lipschitz constants of attention on a ball: Theorems A to D, for one layer, without residual.

Setting. Tokens are the columns x_1..x_n, |x_j| <= r. Head h has W_h = W_o W_v, A_h = W_k^T W_q
(1/sqrt(s) absorbed in W_k), logits x_j^T A_h x_i, weights P_ij over the keys that query i may
see (all, or j <= i: every statement below holds for any mask), mean m_i and covariance C_i of
the tokens under P_i. Put b_i = A_h x_i, beta_h = ||A_h|| r^2. The derivative of output i along
(e_j) is, since d logit_ij = e_j^T A x_i + x_j^T A e_i and d P_ij = P_ij (dl_ij - E dl_i.),

    sum_h W_h { C_i A_h e_i  +  E_{j ~ P_i}[ e_j + (x_j - m_i)(b_i^T e_j) ] }:               (1)

a *covariance term* in the token's own change and a *mixing term* in the changes of the tokens
it reads. By `head_norms`, the covariance terms have norm at most kappa = r^2 * spread.

**Mixing.** For a unit u put w = W_h^T u, s_j = (x_j - m_i)^T w, so E s = 0 and
E[(w + b s_j)^T e_j] <= (E|w + b s_j|^2)^(1/2) (E|e_j|^2)^(1/2), where
E|w + b s_j|^2 = |w|^2 + |b|^2 w^T C w <= |w|^2 (1 + beta_h^2), for |b| <= ||A_h|| r and
w^T C w <= r^2 |w|^2. With c_h = (1 + beta_h^2)^(1/2), the mixing term of row i is at most

    max_u sum_h c_h |W_h^T u| (E_{P_i^h}|e_j|^2)^(1/2),                                      (2)

and M = an upper limit on max_u sum_h c_h |W_h^T u| (`HeadNorms.mixing`, Theorem C).

**Theorem A, C (token norm max_j |e_j|).** Lip <= kappa + M. One head, with coarser kappa:
||W|| (beta + (1 + beta^2)^(1/2)). It does not depend on the number of tokens. []

**Theorem B (Frobenius norm).** Lip <= kappa + N^(1/2) M, N = rows read. *Proof.* Covariance
terms act row by row. In (2), Cauchy-Schwarz with the w_h of M bounds row i by
M (sum_h lambda_h E_{P_i^h}|e_j|^2)^(1/2), sum_h lambda_h = 1, and
sum_i sum_h lambda_h P_ij^h <= N for each j, every weight being at most 1. []

**Theorem B' (spectral ball: ||X|| <= D, tokens need not be bounded one by one; Frobenius).**
Lip <= sum_h ||W_h|| ( a + ||A_h|| D^2 (1 + k^(1/2)/2) ), k = min(d, n), a = 1, or 2 if causal.
*Proof.* Att = W X S, columns of S the weights. d(XS) = dX S + X dS. The softmax is
1/2-Lipschitz, so ||S - U||_F <= ||X^T A X||_F/2 <= ||A|| D ||X||_F/2 <= ||A|| D^2 k^(1/2)/2 with
U the weights of zero logits (||U|| = 1; causal: averages of the first i, ||U|| <= 2 by Hardy),
and ||X dS||_F <= D (2 ||A|| D ||dX||_F)/2. []

**Theorem D (prompt to output).** Where a query token does not change, e_i = 0, the covariance
term vanishes: the first layer moves query outputs by at most M. See `compose`.

**Measures on the ball, W_q.** Along an optimal coupling (x_t, mu_t), density of the attention
weights with respect to mu at most e^{2 beta}. By (2) and Jensen, for q >= 2,
(E_P|e|^2)^(1/2) <= (E_P|e|^q)^(1/q) <= e^{2 beta/q} (E_mu|e|^q)^(1/q); for 1 <= q < 2 use
|w + b s_j| <= |w| (1 + 2 beta). Minkowski over the coupling:

    Lip_{W_q} <= kappa + M_q,  c_h = (1 + beta_h^2)^(1/2) e^{2 beta_h/q}  (q >= 2),
                               c_h = (1 + 2 beta_h) e^{2 beta_h/q}        (1 <= q < 2).

Without a mask only: averages over earlier positions are not contractions of W_q (the mean of
the first i of n numbers has norm up to 2 for q = 2, and unbounded for q = 1).

*Tightness.* At A = 0 Theorem A is ||W||, attained; at W = A = I, r = 1 tokens in two clusters
come within a factor of 1.5 (tests). Related forms follow with looser steps: ||W||(1 + 2 beta)
(Lemma L), ||W||(n^(1/2) + beta (1 + n^(1/2))), and Castin et al.'s (`castin2024`). With rotary
positions b depends on j, so the cross term survives: use beta = ||W_k|| ||W_q|| r^2, 1 + beta for
c_h and sum_h ||W_h|| beta_h for kappa. *Cost:* that of `head_norms`, and one norm of a d x hd
matrix for M.

Sources: proved here; the docs' "Lipschitz constants", Theorems A to D.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from flint import arb

from promptlimits.base.bound import (
    PRECISION_BITS,
    Assumption,
    Exact,
    LogBound,
    Source,
    working_precision,
)
from promptlimits.base.checks import require_positive_int
from promptlimits.base.errors import UserError
from promptlimits.lipschitz.balls.matrix import DOUBLE_ARITHMETIC
from promptlimits.lipschitz.balls.rounding import ball, require_radius, total, upper_log_bound
from promptlimits.lipschitz.paper.head_norms import HeadNorms, head_norms
from promptlimits.nets.paper.weights import LayerWeights

TOKENS_IN_BALL: Final = Assumption(
    text="Every token of the input, prompt and query alike, has Euclidean norm at most the "
    "radius, with what positional encodings add.",
    holds=None,
)
REAL_ARITHMETIC: Final = Assumption(
    text="The transformer is evaluated in real arithmetic; its own rounding is not counted.",
    holds=None,
)
ASSUMPTIONS: Final = (TOKENS_IN_BALL, REAL_ARITHMETIC, DOUBLE_ARITHMETIC)


def source(statement: str) -> Source:
    """The source of a theorem of this module."""
    return Source(reference="promptlimits", statement=statement, form="proved here")


def covariance_limit(norms: HeadNorms, radius: Exact) -> arb:
    """kappa, the limit on the covariance terms, at the current precision."""
    return ball(radius) ** 2 * ball(norms.spread)


def mixing_limit(norms: HeadNorms, radius: Exact) -> arb:
    """M, the limit on a row's mixing term in the token norm, at the current precision."""
    costs = [(1 + (ball(a) * ball(radius) ** 2) ** 2).sqrt() for a in norms.score_norms]
    return norms.mixing(costs)


def output_limit(norms: HeadNorms, radius: Exact) -> arb:
    """Limit on |Att(X)_i|: each head averages tokens of the ball, so it mixes with c_h = r."""
    return ball(radius) * norms.mixing([arb(1)] * len(norms.values))


def meanfield_limit(norms: HeadNorms, radius: Exact, order: Exact) -> arb:
    """The sum kappa + M_q for measures, at the current precision."""
    costs = []
    for score_norm in norms.score_norms:
        beta = ball(score_norm) * ball(radius) ** 2
        front = (1 + beta**2).sqrt() if order >= 2 else 1 + 2 * beta
        costs.append(front * (2 * beta / ball(order)).exp())
    return covariance_limit(norms, radius) + norms.mixing(costs)


def token_bound(layer: LayerWeights, radius: Exact) -> LogBound:
    """Theorems A and C: the Lipschitz constant of attention in the token norm, for any length."""
    require_radius(radius)
    norms = head_norms(layer.heads)
    with working_precision(PRECISION_BITS):
        limit = covariance_limit(norms, radius) + mixing_limit(norms, radius)
    return _bound(limit, "Theorem A/C", "token norm")


def prompt_token_bound(layer: LayerWeights, radius: Exact) -> LogBound:
    """Theorem D: from the prompt to a query's attention output, the query tokens being fixed."""
    require_radius(radius)
    norms = head_norms(layer.heads)
    with working_precision(PRECISION_BITS):
        limit = mixing_limit(norms, radius)
    return _bound(limit, "Theorem D", "token norm, prompt to query outputs")


def frobenius_bound(layer: LayerWeights, radius: Exact, *, rows: int) -> LogBound:
    """Theorem B: the Lipschitz constant of attention in the Frobenius norm, token balls."""
    require_radius(radius)
    require_positive_int("rows", rows)
    norms = head_norms(layer.heads)
    with working_precision(PRECISION_BITS):
        mixing = mixing_limit(norms, radius) * arb(rows).sqrt()
        limit = covariance_limit(norms, radius) + mixing
    return _bound(limit, "Theorem B", "Frobenius norm")


def spectral_ball_bound(
    layer: LayerWeights, radius: Exact, *, tokens: int, masked: bool
) -> LogBound:
    """Theorem B': the Frobenius Lipschitz constant where ||X|| <= D in spectral norm."""
    require_radius(radius)
    require_positive_int("tokens", tokens)
    norms = head_norms(layer.heads)
    with working_precision(PRECISION_BITS):
        reach = 1 + arb(min(layer.dim, tokens)).sqrt() / 2
        limit = total(
            ball(w) * ((2 if masked else 1) + ball(a) * ball(radius) ** 2 * reach)
            for w, a in zip(norms.value_norms, norms.score_norms, strict=True)
        )
    in_ball = Assumption(text="The matrix of all tokens has spectral norm at most the radius.")
    return upper_log_bound(
        limit,
        quantity="Lipschitz constant of attention (Frobenius norm, spectral ball)",
        source=source("Theorem B'"),
        assumptions=(in_ball, REAL_ARITHMETIC, DOUBLE_ARITHMETIC),
    )


def meanfield_bound(layer: LayerWeights, radius: Exact, *, order: Exact = 2) -> LogBound:
    """The Lipschitz constant of attention on measures of the ball, for W_q, without a mask."""
    require_radius(radius)
    require_order(order)
    norms = head_norms(layer.heads)
    with working_precision(PRECISION_BITS):
        limit = meanfield_limit(norms, radius, order)
    return _bound(limit, "Mean-field form of Theorem C", f"W_q, q = {order}")


def require_order(order: object) -> None:
    """Check the order q of a Wasserstein distance."""
    if isinstance(order, bool) or not isinstance(order, int | Fraction) or order < 1:
        raise UserError(
            "the order q of W_q",
            "be an exact number of at least 1",
            got=order,
            remedy="give 2 unless you need another",
        )


def _bound(limit: arb, statement: str, norm: str) -> LogBound:
    return upper_log_bound(
        limit,
        quantity=f"Lipschitz constant of attention ({norm})",
        source=source(statement),
        assumptions=ASSUMPTIONS,
    )
