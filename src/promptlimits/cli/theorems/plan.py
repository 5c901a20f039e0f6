"""`promptlimits plan`: what k pairs need at the least."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptlimits.cli import options
from promptlimits.cli.numbers import count, recorded, rounded
from promptlimits.cli.theorems import capacity_options
from promptlimits.cli.theorems.capacity_options import Typed, prompts_of, setting_of, share_of

if TYPE_CHECKING:
    from promptlimits.base.typing import JsonObject
    from promptlimits.theory.prompt_setting import PromptSetting
    from promptlimits.theory.vector_counting import PromptValues


def plan(
    pairs: Annotated[str, typer.Option("--pairs", metavar="K", help="Pairs to be held.")],
    dim: capacity_options.Dim,
    lipschitz: capacity_options.Lipschitz,
    radius: capacity_options.Radius,
    eps: capacity_options.Eps,
    prompt_tokens: Annotated[
        str | None,
        typer.Option(
            "--prompt-tokens", metavar="N", help="Tokens of the prompt; the shortest if not given."
        ),
    ] = None,
    tokens: capacity_options.Tokens = "1",
    prompt_radius: capacity_options.PromptRadius = None,
    norm: capacity_options.NormName = "token",
    storage: capacity_options.Storage = "float32",
    vocabulary: capacity_options.Vocabulary = None,
    share: Annotated[
        str, typer.Option("--share", help="Share of lists that must be in reach; 1: all.")
    ] = "1",
    as_json: options.AsJson = False,
) -> None:
    """The shortest prompt, the least error and the longest answers that are not excluded.

    By the corrected Theorem 4.7 and the counting cap. What is not excluded may still be
    impossible; what is excluded is proved to be.
    """
    asked = count("--pairs", pairs)
    typed = Typed(
        dim=dim,
        lipschitz=lipschitz,
        radius=radius,
        eps=eps,
        prompt_radius=prompt_radius,
        prompt_tokens="1" if prompt_tokens is None else prompt_tokens,
        tokens=tokens,
        norm=norm,
    )
    setting, prompts = setting_of(typed), prompts_of(storage, vocabulary)
    record = plan_record(
        setting, asked, prompts, share_of(share), length_given=prompt_tokens is not None
    )
    if as_json:
        typer.echo(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        for line in _sentences(record):
            typer.echo(line)


def plan_record(
    setting: PromptSetting,
    pairs: int,
    prompts: tuple[PromptValues, ...],
    share: Fraction,
    *,
    length_given: bool,
) -> JsonObject:
    """The answers as plain JSON."""
    from promptlimits.theory.prompt_capacity import tokens_for_exact_access
    from promptlimits.theory.prompt_plan import (
        error_floor,
        excluded_by,
        longest_answers,
        most_pairs,
        shortest_prompt,
    )

    shortest = shortest_prompt(setting, pairs, share=share, prompts=prompts)
    length = setting.prompt_tokens if length_given else shortest or 1
    sized = replace(setting, prompt_tokens=length)
    floor = error_floor(sized, pairs, share=share, prompts=prompts)
    return {
        "pairs": pairs,
        "share": str(share),
        "shortest_prompt": shortest,
        "exact_access_prompt": tokens_for_exact_access(pairs=pairs, tokens=setting.tokens),
        "at_prompt_tokens": length,
        "excluded_by": excluded_by(sized, pairs, share=share, prompts=prompts),
        "largest_error_excluded": None
        if floor.excluded is None
        else recorded(floor.excluded, up=False),
        "error_not_excluded": recorded(floor.not_excluded, up=True),
        "longest_answers": longest_answers(sized, pairs, share=share, prompts=prompts),
        "most_pairs": most_pairs(sized, share=share, prompts=prompts),
    }


def _sentences(record: Any) -> list[str]:
    pairs, length = record["pairs"], record["at_prompt_tokens"]
    shortest = record["shortest_prompt"]
    if shortest is None:
        lines = [f"{pairs:,} pairs: no length of prompt will do."]
    elif shortest == 1:
        lines = [f"{pairs:,} pairs: no length of prompt is excluded."]
    else:
        lines = [f"{pairs:,} pairs: a prompt of fewer than {shortest:,} tokens will not do."]
    lines.append(
        "Almost no list is answered without any error by fewer than "
        f"{record['exact_access_prompt']:,} prompt tokens."
    )
    verdict = record["excluded_by"]
    lines.append(
        f"With {length:,} prompt tokens: "
        + ("not excluded." if verdict is None else f"excluded ({verdict}).")
    )
    floor = record["largest_error_excluded"]
    lines.append(
        "  errors: none of r/2^4096 or more is excluded."
        if floor is None
        else f"  errors: up to {rounded(floor, up=False, digits=6)} excluded."
    )
    lines.append(f"  tokens per answer: more than {record['longest_answers']:,} excluded.")
    lines.append(f"  pairs: more than {record['most_pairs']:,} excluded.")
    return lines
