"""What is wrong in meyer2025, statement by statement, and the form that holds.

W4 is about a theorem of wang2023 instead: true, and easily read as more than it says.

Each entry was derived again before it was put here; those that say so have a counterexample
that a command runs. The published wording is paraphrased, not quoted.

`run` runs the counterexample of an erratum; what that needs is imported when it runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Final

from promptlimits.base.errors import UserError
from promptlimits.base.files import JsonObject


@dataclass(frozen=True, kw_only=True)
class Erratum:
    """One error.

    Attributes:
        key: "E1" to "E18", "W4".
        where: Which statement of the paper.
        status: How it fails: "false", "gap in the proof", "loose", ...
        published: What the paper says, in our words.
        wrong: Why that does not hold.
        correct: The form that holds.
        runs: Whether `promptlimits errata KEY` computes a counterexample.
    """

    key: str
    where: str
    status: str
    published: str
    wrong: str
    correct: str
    runs: bool = False

    @property
    def command(self) -> str:
        """The command that shows it, and runs its counterexample where there is one."""
        return f"promptlimits errata {self.key}"

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        return {"erratum": self.key, **{k: v for k, v in vars(self).items() if k != "key"}}


ERRATA: Final = (
    Erratum(
        key="E1",
        where="Theorems 4.7 and 4.10, proofs",
        status="gap in the proof",
        published="Codewords 3 eps apart, prompts within eps/L of a net: each ball of the net "
        "serves at most one codeword.",
        wrong="Two prompts of one such ball are up to 2 eps/L apart, so it can serve codewords "
        "4 eps apart: Phi(P) = L P with P = eps/L and -eps/L.",
        correct="4.7: count prompts by the packing number at eps/L, (1 + 2Lr/eps)^(d m_p). "
        "4.10: cover at eps/(2L), so 6Lr/eps becomes 12Lr/eps and 4Lr/eps becomes 8Lr/eps.",
    ),
    Erratum(
        key="E2",
        where="Theorem 4.7, proof",
        status="gap in the proof",
        published="The share of the codewords that are served limits the share of the volume.",
        wrong="Codewords of one packing say nothing about the targets between them.",
        correct="Count volume: accessible targets lie in a union of products of balls of radius "
        "eps + delta (Theorem 1, `promptlimits ceiling`).",
    ),
    Erratum(
        key="E3",
        where="Theorem 4.7",
        status="false for 3Lr < eps",
        published="The accessible share is at most "
        "[(3Lr/eps)^m_p / (r/(3 eps))^(mk)]^d, for every Lipschitz constant L.",
        wrong="(3Lr/eps)^(d m_p) falls below 1, yet one prompt always serves the targets within "
        "eps of its outputs. An MLP that maps all to 0 has every L > 0; the published share "
        "tends to 0 with L, the true one is (eps/r)^(dmk).",
        correct="At most (1 + 2Lr/delta)^(d m_p) ((eps + delta)/r)^(dmk) for every delta > 0, and "
        "at most ((eps + Lr)/r)^(dmk). The published share holds where 3Lr >= eps, in one norm for "
        "prompt and output (see E4); its printed threshold for k lacks the factor 1/m.",
        runs=True,
    ),
    Erratum(
        key="E4",
        where="Theorem 4.7, k in O(m_p/m)",
        status="false for tokens in balls",
        published="The number of pairs grows at most linearly with the prompt: the constant "
        "depends on the transformer and on eps.",
        wrong="The radius r is one of tokens but is used for whole matrices; prompts of tokens "
        "within r have Frobenius norm up to r sqrt(m_p). With tokens in balls and L, of the "
        "output in the prompt, in the Frobenius norm the share is false also where 3Lr >= eps: "
        "d = m = k = r = 1, no MLP, and uniform attention, V = 50/210, over 49 prompt tokens and "
        "the query token 0. The output is the prompt's sum over 210, L = 1/30, and at "
        "eps = 0.1 = 3Lr the outputs, up to 7/30, serve 1/3 of the targets; published 0.3. "
        "And L of Proposition 2.11 grows with the length: what is left is "
        "O((m_p/m) log(m_p + m)).",
        correct="Measure matrices by their largest token: L then does not depend on the length, "
        "with or without mask, and k in O(m_p/m) holds. L sqrt(m_p) serves in that norm where L "
        "is of the Frobenius norm.",
        runs=True,
    ),
    Erratum(
        key="E5",
        where="Section 2.3",
        status="loose",
        published="Propositions 2.11 and 2.12 limit the Lipschitz constant of a transformer on "
        "inputs within radius r.",
        wrong="They limit one head of one attention layer; layer l is fed tokens of another "
        "radius, and [P, X] has Frobenius norm up to sqrt(2) r.",
        correct="Give each layer its own radius, count residual and MLP, (1 + L_att) Lip(MLP), "
        "and multiply over layers.",
    ),
    Erratum(
        key="E6",
        where="Theorem 4.10, O(.)",
        status="false for C > 1",
        published="The share (C exp(-3^d/eps^d))^k is in O(exp(-k 3^d/eps^d)).",
        wrong="Their quotient is C^k, which grows with k without limit.",
        correct="It is in O(exp(-k (3^d/eps^d - log C))); and the exponent itself is wrong, see "
        "E8 and E9.",
    ),
    Erratum(
        key="E7",
        where="Theorem 4.10",
        status="ill-posed",
        published="The proportion of accessible output distributions.",
        wrong="There is no measure on distributions, so no proportion; outputs may leave the "
        "ball; and the uniform measures of finite support are no Polish space.",
        correct="State it for the share of a fixed finite family of distributions (Theorem 2a), "
        "and use the closure of the space.",
    ),
    Erratum(
        key="E8",
        where="Proposition 3.6",
        status="false or void",
        published="For every q and eps there is C with N(G, W_q, eps) >= exp(1/eps^d)/C.",
        wrong="If C may depend on eps it says nothing. If not, it is not invariant under "
        "scaling: on [-r, r] with 4 r log 2 < 1 the covering number in W_1 is at most "
        "binom(2M+2, M+1), M = 2r/eps, less than exp(1/eps)/C for small eps and every C.",
        correct="Explicit families of exp(H) measures more than Delta apart, H growing like "
        "(r/Delta)^d (Lemma C_out).",
        runs=True,
    ),
    Erratum(
        key="E9",
        where="Theorem 4.10, proof",
        status="false step",
        published="Prompts with W_q(M(P), M(P')) <= eps/L give outputs within eps, whatever their "
        "lengths; and there are exp(3^d/eps^d)/C codewords 3 eps apart.",
        wrong="P' = [P, P] is at distance 0 from P, and outputs differ: the longer prompt weighs "
        "more against the query. At separation 3 eps the exponent of 3.6 is 1/(3 eps)^d.",
        correct="Cover the weight of the query, m/(m + m_p), too (Lemma C_in).",
        runs=True,
    ),
    Erratum(
        key="E10",
        where="Remark 4.11",
        status="unproved",
        published="Theorem 4.10 extends to masked attention at once.",
        wrong="The masked distance compares equal positions only. Prompts of two tokens a, b in "
        "Rademacher patterns are pairwise |a - b| 2^(-1/q) apart, and there are infinitely "
        "many: the covering number of masked prompts of any length is infinite.",
        correct="Theorem 2c: the last m tokens, any length, by sampling trajectories.",
        runs=True,
    ),
    Erratum(
        key="E11",
        where="Theorem 5.7",
        status="false",
        published="There is a vector space of dimension (d-h^2-h)!/(d-h^2-2h-1)! of target "
        "tuples that no prompt reaches.",
        wrong="That is a product of h + 1 dimensions. It exceeds the (h+1) d dimensions that "
        "there are (h = 1: from d = 7; d = 768, h = 12: 1.5e36 > 9984), and orthogonal tuples "
        "are no vector space.",
        correct="Almost every subspace of dimension kd - R - 1 at most holds no accessible tuple "
        "of offsets before the MLP but zero, R the sum of the value ranks plus h (k = h + 1, "
        "heads of size d/h: hd - h - 1).",
        runs=True,
    ),
    Erratum(
        key="E12",
        where="Theorem 5.7",
        status="false without Assumption 5.5",
        published="No prompt reaches any tuple of MLP(E without 0).",
        wrong="The MLP need not be injective: if it maps all to 0, every such target is 0, and "
        "every prompt reaches it. Besides, x_0 is not added, {1, 2} should be [h+1], and the "
        "elimination divides by pivots that may vanish.",
        correct="For any MLP the accessible tuples have dimension at most R, so they are null "
        "where kd > R (Theorem 3); relative to pre-images, where the MLP is invertible.",
        runs=True,
    ),
    Erratum(
        key="E13",
        where="Theorem 5.8",
        status="false for h >= 4",
        published="For targets orthogonal to each other and to what attention makes of the "
        "queries alone (Lemma F.1), some error is at least (1 - |W_1||W_2|) r/2, r the least norm "
        "of a target.",
        wrong="The proof is for one head (and orders mu_1, mu_2 the wrong way round). With "
        "h heads there is a layer and a prompt of h tokens whose h + 1 errors all equal "
        "r/sqrt(h+1), which is less than r/2 from h = 4.",
        correct="For h + 1 offsets before the MLP, orthogonal to each other and to each head's "
        "output on each query alone, some error is at least (1 - |W_1||W_2|) r/sqrt(h+1), r the "
        "least norm of an offset; for every h no larger constant holds (Theorem 5). The "
        "second condition is needed: offsets that are the queries' own attention outputs are met "
        "by a prompt that gets no attention.",
        runs=True,
    ),
    Erratum(
        key="E14",
        where="Theorem 5.8",
        status="false from h = 1",
        published="r is the least norm of the targets y_i = MLP(y'_i + x_0).",
        wrong="The common x_0 makes those large for nothing: x_0 = 100 e_1, V = 0, no MLP, "
        "|y'_i| = 1 gives an error of 1 where 50 is claimed. The norm and '- y_i' are missing "
        "in the formula, too.",
        correct="r is the least norm of the offsets y'_i, under the conditions of E13.",
        runs=True,
    ),
    Erratum(
        key="E15",
        where="Abstract and Theorem 5.7",
        status="misleading",
        published="What a prompt reaches for two inputs is almost a hyperplane of the outputs.",
        wrong="A hyperplane has codimension 1; the accessible pairs have 2d - R or more.",
        correct="With heads of size d/h the codimension is at least d - h.",
        runs=True,
    ),
    Erratum(
        key="E16",
        where="Definitions",
        status="misprints",
        published="W_v x in 2.1; tau = L_1 o ... o L_l; targets in (R^d)^k; columns m_p; one "
        "mu_Y for all i; balls of R^n in R^(d x m); residual outside the MLP in Appendix A.",
        wrong="Taken literally these do not type-check, or state another map.",
        correct="W_v X; the first layer acts first; targets in (R^(d x m))^k; columns from m_p "
        "on; one mu_Y^i for each i; packing by eps-separated sets; MLP(Att + X).",
    ),
    Erratum(
        key="E17",
        where="Proposition 2.16",
        status="false if d^m averages over positions",
        published="In the position-aware distance d^m masked attention has the same Lipschitz "
        "constant as unmasked attention, |V| (1 + 3|A|r^2) exp(2|A|r^2).",
        wrong="The paper describes d^m in words only. If it is the p-th mean over positions of "
        "W_p at a position (the form of its source as recalled here, not read), then for A = 0, "
        "V = I the formula gives 1, but attention is the running mean: on two tokens its norm "
        "is 1.144 for p = 2; with their number it tends to p/(p-1), Hardy's constant, and for "
        "p = 1 it has no limit.",
        correct="The formula holds if d^m is the largest W_2 over positions "
        "(`promptlimits.lab.errata.measures` has the proof). No mean over positions enters a bound "
        "printed here.",
        runs=True,
    ),
    Erratum(
        key="E18",
        where="Remark 2.4",
        status="unproved for Theorem 4.10",
        published="Positional encodings are added to the input, so all results extend at once.",
        wrong="Where m_p is fixed they do, with L on a ball larger by the encodings. Theorem 4.10 "
        "compares prompts of all lengths before k fixed inputs: a query behind m_p tokens gets "
        "the encodings m_p + 1 to m_p + m, so the inputs change with the length, and a net for "
        "prompts alone is none for contexts.",
        correct="For encodings of norm at most s that are added: take the ball of radius r + s "
        "for tokens, e0 + ew + es = delta/L in Lemma C_in, and multiply C_in by "
        "(1 + 2s/es)^(dm), a net for the m encodings that all queries share.",
    ),
    Erratum(
        key="W4",
        where="Theorem 4 of wang2023, read carelessly",
        status="false at depth 4",
        published="Where attention and MLP branch of every layer have Lipschitz constants below "
        "1, the transformer is invertible. Easily read as: so no prompt makes two inputs share "
        "one answer.",
        wrong="[P, X] -> [P', Y] is invertible, but P' is no answer: what X loses can leave "
        "through it. With uniform attention, V = R - I, R the rotation by 45 degrees, no MLP and "
        "four layers, every block has the constant 0.766 and the output behind one prompt token "
        "p is -p for every input token.",
        correct="Let the constants hold for tokens in a ball. Where all of them are below 1, "
        "X -> Y is one-to-one in that ball behind every prompt of it at depth 1, and at any depth "
        "under a causal mask. At any depth it is so where Lambda = prod (1 + Lip_att)"
        "(1 + Lip_MLP) - 1 < 1: then |Y - Y'| >= (1 - Lambda) |X - X'| (`promptlimits invert`).",
        runs=True,
    ),
)


def erratum(key: str) -> Erratum:
    """The entry of a key.

    Args:
        key: Such as "E13"; capitals do not matter.

    Returns:
        The entry.

    Raises:
        UserError: There is none.
    """
    for entry in ERRATA:
        if entry.key == key.strip().upper():
            return entry
    raise UserError(
        "the erratum",
        f"be one of {ERRATA[0].key} to {ERRATA[-2].key} and {ERRATA[-1].key}",
        got=key,
        remedy="see `promptlimits errata`",
    )


@dataclass(frozen=True, kw_only=True)
class Counterexample:
    """The numbers of a counterexample, as computed."""

    key: str  # whose it is, such as "E13"
    refutes: bool  # whether these numbers contradict the published statement
    measured: str  # what was computed, in a sentence
    numbers: JsonObject  # the numbers, by name

    def to_json(self) -> JsonObject:
        """As plain JSON; the numbers stand at the top."""
        return {
            "erratum": self.key,
            "refutes": self.refutes,
            "measured": self.measured,
            **self.numbers,
        }


# Module, function, and which options it takes. The modules import torch.
_RUNNERS: Final[dict[str, tuple[str, str, frozenset[str]]]] = {
    "E3": ("shares", "share_of_volume", frozenset({"seed"})),
    "E4": ("shares", "share_of_an_interval", frozenset()),
    "E8": ("measures", "covering", frozenset()),
    "E9": ("measures", "prompt_written_twice", frozenset({"seed"})),
    "E10": ("measures", "rademacher_prompts", frozenset()),
    "E11": ("measures", "dimension", frozenset({"heads"})),
    "E12": ("shares", "reachable_zero", frozenset({"heads", "seed"})),
    "E13": ("single_layer", "floor_of_errors", frozenset({"heads", "seed"})),
    "E14": ("single_layer", "offset_of_targets", frozenset()),
    "E15": ("single_layer", "codimension", frozenset({"heads", "seed"})),
    "E17": ("measures", "running_mean", frozenset()),
    "W4": ("measures", "contracting_blocks", frozenset({"seed"})),
}


def run(key: str, *, heads: int | None = None, seed: int | None = None) -> Counterexample | None:
    """Run the counterexample of an erratum."""
    entry = erratum(key)
    given = {name: value for name, value in (("heads", heads), ("seed", seed)) if value is not None}
    _require_values(given)
    module, function, takes = _RUNNERS.get(entry.key, ("", "", frozenset[str]()))
    for name in given:
        if name not in takes:
            raise _superfluous(name, entry)
    if entry.key not in _RUNNERS:
        return None
    # Names from the table above, never from the user.
    runner = getattr(import_module(f"promptlimits.lab.errata.{module}"), function)
    counterexample: Counterexample = runner(**given)
    return counterexample


def _require_values(given: dict[str, int]) -> None:
    if given.get("heads", 1) < 1:
        raise UserError("--heads", "be 1 or more", got=given["heads"], remedy="give 4")
    if not 0 <= given.get("seed", 0) < 2**63:
        raise UserError("--seed", "be from 0 to 2^63 - 1", got=given["seed"], remedy="give 0")


def _superfluous(name: str, entry: Erratum) -> UserError:
    able = ", ".join(key for key, (_, _, takes) in _RUNNERS.items() if name in takes)
    return UserError(
        f"--{name}", f"come with one of {able}", got=f"it with {entry.key}", remedy="leave it out"
    )


def require_heads(heads: int, *, most: int, usual: int) -> None:
    """Refuse more heads than a counterexample can afford."""
    if not 1 <= heads <= most:
        raise UserError(
            "--heads", f"be from 1 to {most}", got=heads, remedy=f"leave it out for {usual}"
        )
