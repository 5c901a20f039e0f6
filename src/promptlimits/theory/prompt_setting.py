"""What the prompt capacity theorem is about: sizes, radii, a precision and a Lipschitz constant.

Letters, as in the paper and in `prompt_capacity`: d `dim`, m_p `prompt_tokens`, m `tokens`,
rho `prompt_radius`, r `radius`, eps `eps`, L `lipschitz`; n = d m_p numbers in a prompt,
a = 2 L rho the *reach*: what the diameter of the prompt ball can become in the outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, TypeAlias

from flint import arb

from promptlimits.base.bound import Exact, LogBound, log_ball
from promptlimits.base.bound import require_exact_positive as require_exact_positive  # noqa: PLC0414
from promptlimits.base.bound import short as short  # noqa: PLC0414
from promptlimits.base.checks import require_positive_int
from promptlimits.base.errors import UserError

Norm: TypeAlias = Literal["token", "frobenius", "matrix"]

NORMS: Final = ("token", "frobenius", "matrix")
LARGEST_LOG: Final = 10**9
"""Beyond exp of this a Lipschitz constant is refused: ball arithmetic would lose the optimum."""


@dataclass(frozen=True, kw_only=True)
class PromptSetting:
    """One case of the theorem.

    Attributes:
        dim: d, numbers per token.
        prompt_tokens: m_p, 1 or more.
        tokens: m, output tokens of each answer.
        lipschitz: L, exact or as an upper `LogBound`, in the norm below.
        radius: r, of the ball that targets lie in.
        eps: The error allowed, 0 < eps < r.
        prompt_radius: rho, of the ball that prompts lie in; r if None.
        norm: What radii, errors and L are measured in.

            - "token": the largest Euclidean norm of a token, on both sides;
            - "frobenius": prompts and targets have tokens in balls, but L is known only from
              Frobenius norm (of the prompt) to the largest token (of the output); the prompt's
              Frobenius norm is at most rho sqrt(m_p), so L sqrt(m_p) serves in the token norm;
            - "matrix": radii and errors are Frobenius norms of whole matrices.
        least_deviation: S0 of the region of prompts that count (`prompt_capacity.trust_region`),
            on which a map with the constant L is known to be the model's; 0 for all prompts.

    Raises:
        UserError: A value is out of range.
        TypeError: A quantity is a float.
    """

    dim: int
    prompt_tokens: int
    tokens: int
    lipschitz: Exact | LogBound
    radius: Exact
    eps: Exact
    prompt_radius: Exact | None = None
    norm: Norm = "token"
    least_deviation: Exact = 0

    def __post_init__(self) -> None:
        for name in ("dim", "prompt_tokens", "tokens"):
            require_positive_int(name, getattr(self, name))
        _require_lipschitz(self.lipschitz)
        require_exact_positive("radius", self.radius)
        require_exact_positive("eps", self.eps)
        if self.prompt_radius is not None:
            require_exact_positive("prompt_radius", self.prompt_radius)
        if self.eps >= self.radius:
            raise UserError(
                "eps",
                "be below the radius of the targets",
                got=f"{short(self.eps)} with a radius of {short(self.radius)}",
                remedy="an error as large as the targets is met by answering 0",
            )
        if self.least_deviation != 0:
            require_exact_positive("least_deviation", self.least_deviation)
        if self.norm not in NORMS:
            raise UserError(
                "norm", f"be one of {', '.join(NORMS)}", got=self.norm, remedy="use token"
            )

    @property
    def rho(self) -> Fraction:
        """Radius of the ball that prompts lie in."""
        return Fraction(self.radius if self.prompt_radius is None else self.prompt_radius)

    @property
    def prompt_numbers(self) -> int:
        """n = d m_p."""
        return self.dim * self.prompt_tokens

    def target_numbers(self, pairs: int) -> int:
        """N = d m k.

        Args:
            pairs: k.

        Returns:
            The numbers in a list of k targets.
        """
        return self.dim * self.tokens * pairs

    @property
    def spread(self) -> int:
        """What L^2 is multiplied by to serve in the norm of the prompt ball: m_p or 1."""
        return self.prompt_tokens if self.norm == "frobenius" else 1

    @property
    def reach_squared(self) -> Fraction | None:
        """a^2, if L is given exactly."""
        if isinstance(self.lipschitz, LogBound):
            return None
        return (2 * self.lipschitz * self.rho) ** 2 * self.spread

    def log_reach(self) -> arb:
        """Ball around log a, a = 2 L rho (sqrt(m_p)), at the current precision."""
        constant = self.lipschitz
        log = constant.log if isinstance(constant, LogBound) else log_ball(constant)
        return log + log_ball(2 * self.rho) + log_ball(self.spread) / 2


def _require_lipschitz(value: Exact | LogBound) -> None:
    if not isinstance(value, LogBound):
        require_exact_positive("lipschitz", value)
        return
    if value.direction != "upper":
        raise UserError(
            "lipschitz",
            "be an upper limit on the Lipschitz constant",
            got=f"a {value.direction} limit",
            remedy="give the bound, not what an optimiser found",
        )
    if abs(value.log) > LARGEST_LOG:
        raise UserError(
            "lipschitz",
            f"have a natural logarithm of at most {LARGEST_LOG:,}",
            got="a larger one",
            remedy="such a constant says nothing",
        )
