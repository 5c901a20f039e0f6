"""Options of the commands about the capacity of prompts, and the case that they describe."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from promptlimits.base.errors import UserError
from promptlimits.cli.numbers import count, positive, positive_of_any_size

if TYPE_CHECKING:
    from promptlimits.theory.prompt_setting import Norm, PromptSetting
    from promptlimits.theory.vector_counting import PromptValues

Dim = Annotated[str, typer.Option("--dim", metavar="D", help="Numbers per token.")]
Lipschitz = Annotated[
    str,
    typer.Option("--lipschitz", metavar="L", help="Of outputs in the prompt; 10, 1e1000, 10/3."),
]
Radius = Annotated[str, typer.Option("--radius", metavar="R", help="Of the ball of targets.")]
Eps = Annotated[str, typer.Option("--eps", metavar="E", help="The error allowed, below R.")]
PromptRadius = Annotated[
    str | None,
    typer.Option("--prompt-radius", metavar="R", help="Of the ball of prompts; R if not given."),
]
PromptTokens = Annotated[
    str, typer.Option("--prompt-tokens", metavar="N", help="Tokens of the prompt.")
]
Tokens = Annotated[str, typer.Option("--tokens", metavar="N", help="Tokens of each answer.")]
NormName = Annotated[
    str,
    typer.Option(
        "--norm",
        help="token: radii and L for the longest token; frobenius: tokens in balls, L for the "
        "Frobenius norm; matrix: radii for whole matrices as well.",
    ),
]
Storage = Annotated[
    str, typer.Option("--storage", help="Format that prompts are kept in: the counting cap.")
]
Vocabulary = Annotated[
    str | None, typer.Option("--vocabulary", metavar="V", help="Count hard prompts as well.")
]
OutFile = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the winner's certificate.")
]


@dataclass(frozen=True, kw_only=True)
class Typed:
    """A case as the user typed it.

    Attributes:
        dim: --dim.
        lipschitz: --lipschitz.
        radius: --radius.
        eps: --eps.
        prompt_radius: --prompt-radius.
        prompt_tokens: --prompt-tokens.
        tokens: --tokens.
        norm: --norm.
    """

    dim: str
    lipschitz: str
    radius: str
    eps: str
    prompt_radius: str | None
    prompt_tokens: str
    tokens: str
    norm: str


def setting_of(typed: Typed) -> PromptSetting:
    """The case that the options describe."""
    from promptlimits.theory.prompt_setting import NORMS, PromptSetting

    radius, eps = positive("--radius", typed.radius), positive("--eps", typed.eps)
    if eps >= radius:
        raise UserError(
            "--eps",
            "be below --radius",
            got=f"{typed.eps} with a radius of {typed.radius}",
            remedy="an error as large as the targets is met by answering 0",
        )
    if typed.norm not in NORMS:
        raise UserError(
            "--norm", f"be one of {', '.join(NORMS)}", got=typed.norm, remedy="use token"
        )
    return PromptSetting(
        dim=count("--dim", typed.dim),
        prompt_tokens=count("--prompt-tokens", typed.prompt_tokens),
        tokens=count("--tokens", typed.tokens),
        lipschitz=positive_of_any_size("--lipschitz", typed.lipschitz),
        radius=radius,
        eps=eps,
        prompt_radius=None
        if typed.prompt_radius is None
        else positive("--prompt-radius", typed.prompt_radius),
        norm=cast("Norm", typed.norm),
    )


def prompts_of(storage: str, vocabulary: str | None) -> tuple[PromptValues, ...]:
    """The counts of prompts that the options describe."""
    from promptlimits.theory.number_formats import number_format
    from promptlimits.theory.vector_counting import hard, stored

    try:
        counts = (stored(number_format(storage)),)
    except UserError as error:
        raise UserError("--storage", error.rule, got=storage, remedy=error.remedy) from error
    if vocabulary is None:
        return counts
    size = count("--vocabulary", vocabulary)
    if size < 2:
        raise UserError("--vocabulary", "be at least 2", got=vocabulary, remedy="count its tokens")
    return (*counts, hard(size))


def share_of(text: str) -> Fraction:
    """A share of lists, above 0 and at most 1."""
    share = positive("--share", text)
    if share > 1:
        raise UserError("--share", "be above 0 and at most 1", got=text, remedy="write 1 or 1e-6")
    return share
