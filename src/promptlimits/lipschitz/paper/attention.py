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
(Lemma L) and ||W||(n^(1/2) + beta (1 + n^(1/2))). With rotary positions b depends on j, so the
cross term survives: use beta = ||W_k|| ||W_q|| r^2, 1 + beta for c_h and sum_h ||W_h|| beta_h for
kappa. *Cost:* that of `head_norms`, and one norm of a d x hd matrix for M. Source: proved here.

**As published**, both quoted by [@meyer2025] for one head with value matrix V; here V = W_o W_v
and the heads' constants are added. The paper keeps one radius for all layers, which is not proved:
tokens leave the ball. `compose` has both, labelled.

*Castin, Ablin and Peyré 2024* (Propositions 2.11 and 2.15 there): with n tokens in the ball, in
the Frobenius norm, masked or not, at most sqrt(3) ||V|| ( ||A||^2 r^4 (4 n + 1) + n )^(1/2). It
holds: from Theorem B with N = n, as beta + (n (1 + beta^2))^(1/2) <=
beta + n^(1/2) + n^(1/2) beta <= sqrt(3) (beta^2 + n + n beta^2)^(1/2). Growth like n^(1/2) is
attained while n <= 1 + exp(2 r^2 gamma).

*Geshkovski et al. 2023* (Propositions 2.12 and 2.16 there): on measures, at most
||V|| (1 + 3 beta) exp(2 beta), for W_2 (2.12) and, masked, for the position-aware distance d^m
(2.16). 2.12 holds, for every W_q, and is never below the mean-field form above. By Remark 2.13,
for n tokens, the Frobenius constant of unmasked attention is at most the W_2 constant. 2.16 does
not hold if d^m is the mean over positions of W_2 between the tokens of a position: A = 0 and V = I
make attention the running mean, whose norm for n = 2 is 1.144, and tends to 2 (Hardy) as n grows,
while the formula gives 1. It is stated as published, its assumption marked as false, and never
composed into a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, TypeAlias

from flint import arb

from promptlimits.base.bound import PRECISION_BITS, Assumption, Exact, LogBound, Source
from promptlimits.base.errors import UserError, require_positive_int
from promptlimits.base.exact import working_precision
from promptlimits.lipschitz.balls.matrix import DOUBLE_ARITHMETIC
from promptlimits.lipschitz.balls.rounding import ball, require_radius, total, upper_log_bound
from promptlimits.lipschitz.paper.head_norms import HeadNorms, head_norms
from promptlimits.nets.paper.weights import LayerWeights

Norm: TypeAlias = Literal["token", "frobenius", "W_q"]

TOKENS_IN_BALL: Final = Assumption(
    text="Every token of the input, prompt and query alike, has Euclidean norm at most the "
    "radius, with what positional encodings add.",
    holds=None,
)
MATRIX_IN_BALL: Final = Assumption(
    text="The matrix of all tokens has spectral norm at most the radius."
)
REAL_ARITHMETIC: Final = Assumption(
    text="The transformer is evaluated in real arithmetic; its own rounding is not counted.",
    holds=None,
)
MASKED_AS_CONTRACTION: Final = Assumption(
    text="Running means over positions do not expand the position-aware distance d^m (they do: "
    "A = 0, V = I, two tokens).",
    holds=False,
)
ASSUMPTIONS: Final = (TOKENS_IN_BALL, REAL_ARITHMETIC, DOUBLE_ARITHMETIC)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a constant is asked for."""

    radius: Exact  # r of the ball, exact and above 0
    # N, columns of the input; None where the theorem does not depend on it.
    tokens: int | None = None
    queries: int | None = None  # columns that are read; all if None
    order: Exact = 2  # q of W_q
    masked: bool = False  # whether attention is causal

    @property
    def rows(self) -> int:
        """N, the columns that are read."""
        return self.queries or self.tokens or 1


@dataclass(frozen=True, kw_only=True)
class Theorem:
    """A Lipschitz constant of attention, without residual, from the norms of the heads."""

    norm: Norm  # in which it is meant
    limit: Callable[[HeadNorms, Inputs], arb]  # the constant, at the current precision
    statement: str  # its name, or its number in [@meyer2025] if it is published
    reference: str = "promptlimits"  # who states it
    assumptions: tuple[Assumption, ...] = ASSUMPTIONS  # what it rests on
    composes: bool = True  # whether the outputs of a layer are again inputs that it speaks of

    @property
    def published(self) -> bool:
        """Whether it is somebody else's, as published."""
        return self.reference != "promptlimits"

    @property
    def source(self) -> Source:
        """Where it comes from."""
        form = "as published" if self.published else "proved here"
        return Source(reference=self.reference, statement=self.statement, form=form)

    def require(self, inputs: Inputs) -> None:
        """Raise `UserError` unless the theorem speaks of such inputs."""
        require_radius(inputs.radius)
        if self.norm == "frobenius":
            require_positive_int(
                "tokens", inputs.tokens, remedy="give the columns of prompt and query"
            )
        if inputs.queries is not None:
            require_positive_int("queries", inputs.queries)
            if inputs.tokens is not None and inputs.queries > inputs.tokens:
                raise UserError(
                    "queries",
                    f"be at most {inputs.tokens}",
                    got=inputs.queries,
                    remedy="give fewer",
                )
        if self.norm == "W_q":
            _require_order(inputs.order)


def covariance_limit(norms: HeadNorms, radius: Exact) -> arb:
    """kappa, the limit on the covariance terms, at the current precision."""
    return ball(radius) ** 2 * ball(norms.spread)


def mixing_limit(norms: HeadNorms, radius: Exact) -> arb:
    """M, the limit on a row's mixing term in the token norm, at the current precision."""
    return norms.mixing([(1 + beta**2).sqrt() for beta in _betas(norms, radius)])


def output_limit(norms: HeadNorms, radius: Exact) -> arb:
    """Limit on |Att(X)_i|: each head averages tokens of the ball, so it mixes with c_h = r."""
    return ball(radius) * norms.mixing([arb(1)] * len(norms.values))


def _betas(norms: HeadNorms, radius: Exact) -> list[arb]:
    return [ball(score_norm) * ball(radius) ** 2 for score_norm in norms.score_norms]


def _token(norms: HeadNorms, inputs: Inputs) -> arb:
    return covariance_limit(norms, inputs.radius) + mixing_limit(norms, inputs.radius)


def _prompt(norms: HeadNorms, inputs: Inputs) -> arb:
    return mixing_limit(norms, inputs.radius)


def _frobenius(norms: HeadNorms, inputs: Inputs) -> arb:
    mixing = mixing_limit(norms, inputs.radius) * arb(inputs.rows).sqrt()
    return covariance_limit(norms, inputs.radius) + mixing


def _meanfield(norms: HeadNorms, inputs: Inputs) -> arb:
    costs: list[arb] = []
    for beta in _betas(norms, inputs.radius):
        front = (1 + beta**2).sqrt() if inputs.order >= 2 else 1 + 2 * beta
        costs.append(front * (2 * beta / ball(inputs.order)).exp())
    return covariance_limit(norms, inputs.radius) + norms.mixing(costs)


def _spectral_ball(norms: HeadNorms, inputs: Inputs) -> arb:
    dim = norms.values[0].ball.shape[0]
    reach = 1 + arb(min(dim, inputs.tokens or 1)).sqrt() / 2
    first = 2 if inputs.masked else 1
    return _added(norms, inputs, lambda w, beta: w * (first + beta * reach))


def _castin(norms: HeadNorms, inputs: Inputs) -> arb:
    tokens = inputs.tokens or 1
    return _added(
        norms,
        inputs,
        lambda w, beta: arb(3).sqrt() * w * (beta**2 * (4 * tokens + 1) + tokens).sqrt(),
    )


def _geshkovski(norms: HeadNorms, inputs: Inputs) -> arb:
    return _added(norms, inputs, lambda w, beta: w * (1 + 3 * beta) * (2 * beta).exp())


def _added(norms: HeadNorms, inputs: Inputs, term: Callable[[arb, arb], arb]) -> arb:
    """The sum over heads of a term in ||W_h|| and beta_h."""
    pairs = zip(norms.value_norms, _betas(norms, inputs.radius), strict=True)
    return total(term(ball(value), beta) for value, beta in pairs)


THEOREMS: Final[dict[str, Theorem]] = {
    "token": Theorem(norm="token", limit=_token, statement="Theorems A and C"),
    "token-prompt": Theorem(norm="token", limit=_prompt, statement="Theorem D"),
    "frobenius": Theorem(norm="frobenius", limit=_frobenius, statement="Theorem B"),
    "meanfield": Theorem(norm="W_q", limit=_meanfield, statement="Mean-field form of Theorem C"),
    "published-frobenius": Theorem(
        norm="frobenius",
        limit=_castin,
        statement="Propositions 2.11 and 2.15 of meyer2025",
        reference="castin2024",
    ),
    "published-meanfield": Theorem(
        norm="W_q",
        limit=_geshkovski,
        statement="Propositions 2.12 and 2.16 of meyer2025",
        reference="geshkovski2023",
    ),
    "spectral-ball": Theorem(
        norm="frobenius",
        limit=_spectral_ball,
        statement="Theorem B'",
        assumptions=(MATRIX_IN_BALL, REAL_ARITHMETIC, DOUBLE_ARITHMETIC),
        composes=False,
    ),
}
"""Every theorem of this module under the name of its method."""


def theorem(method: str, among: Sequence[str] = tuple(THEOREMS)) -> Theorem:
    """The theorem of a method, or a `UserError` that lists the methods."""
    if method not in among:
        names = ", ".join(among)
        raise UserError("the method", f"be one of {names}", got=method, remedy="choose one")
    return THEOREMS[method]


def attention_bound(layer: LayerWeights, inputs: Inputs, method: str) -> LogBound:
    """The Lipschitz constant of one layer's attention, without its residual, by one theorem."""
    known = theorem(method)
    known.require(inputs)
    assumptions = known.assumptions
    if inputs.masked and known.norm == "W_q":
        if not known.published:
            raise unmasked_only(method)
        assumptions = (*assumptions, MASKED_AS_CONTRACTION)
    norms = head_norms(layer.heads)
    with working_precision(PRECISION_BITS):
        limit = known.limit(norms, inputs)
    return upper_log_bound(
        limit,
        quantity=f"Lipschitz constant of attention ({known.norm} norm)",
        source=known.source,
        assumptions=assumptions,
    )


def unmasked_only(method: str) -> UserError:
    """The error of a method in W_q for a causal transformer."""
    return UserError(
        f"the method {method}",
        "meet a transformer without a mask",
        got="a masked one",
        remedy="use a token or Frobenius method: running means expand W_q",
    )


def _require_order(order: object) -> None:
    if isinstance(order, bool) or not isinstance(order, int | Fraction) or order < 1:
        raise UserError(
            "the order q of W_q",
            "be an exact number of at least 1",
            got=order,
            remedy="give 2 unless you need another",
        )
