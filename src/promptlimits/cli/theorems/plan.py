"""`promptlimits plan`: what k pairs need at the least."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptlimits.base.errors import UserError
from promptlimits.cli import options
from promptlimits.cli.numbers import positive, rounded
from promptlimits.cli.output_file import show
from promptlimits.cli.theorems.ceiling import Storage, Vocabulary, plan_of

if TYPE_CHECKING:
    from promptlimits.base.typing import JsonObject
    from promptlimits.bounds.prompt_plan import Plan


def plan(
    pairs: Annotated[str, typer.Option("--pairs", metavar="N", help="Pairs to be held.")],
    prompt_tokens: Annotated[
        str | None,
        typer.Option(
            "--prompt-tokens", metavar="N", help="Tokens of the prompt; the shortest if not given."
        ),
    ] = None,
    storage: Storage = "float32",
    vocabulary: Vocabulary = None,
    share: Annotated[
        str, typer.Option("--share", help="Share of lists that must be in reach; 1: all.")
    ] = "1",
    as_json: options.AsJson = False,
    **typed: str,
) -> None:
    """The shortest prompt and least error that are not excluded.

    And the longest answers, by the corrected Theorem 4.7 and the counting cap. What is not excluded
    may still be impossible; what is excluded is proved to be.

    Example: promptlimits plan --pairs 64 --dim 768 --lipschitz 10 --radius 1 --eps 0.1
    """
    from dataclasses import replace

    asked = positive("--share", share)
    if asked > 1:
        raise UserError("--share", "be above 0 and at most 1", got=share, remedy="write 1 or 1e-6")
    sizes = {**typed, "pairs": pairs, "prompt_tokens": prompt_tokens or "1"}
    case = replace(plan_of(sizes, storage, vocabulary), share=asked)
    record = plan_record(case, length_given=prompt_tokens is not None)
    show(record, _sentences(record), as_json=as_json)


def plan_record(case: Plan, *, length_given: bool) -> JsonObject:
    """The answers as plain JSON."""
    from promptlimits.base.exact import recorded
    from promptlimits.bounds.prompt_plan import tokens_for_exact_access

    shortest = case.shortest_prompt()
    sized = case if length_given else case.at(prompt_tokens=shortest or 1)
    excluded, not_excluded = sized.error_floor()
    return {
        "pairs": case.net.pairs,
        "share": str(case.share),
        "shortest_prompt": shortest,
        "exact_access_prompt": tokens_for_exact_access(
            pairs=case.net.pairs, tokens=case.net.tokens
        ),
        "at_prompt_tokens": sized.net.prompt_tokens,
        "excluded_by": sized.excluded_by(),
        "largest_error_excluded": None if excluded is None else recorded(excluded, up=False),
        "error_not_excluded": recorded(not_excluded, up=True),
        "longest_answers": sized.longest_answers(),
        "most_pairs": sized.most_pairs(),
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
        f"Without error, fewer than {record['exact_access_prompt']:,} prompt tokens answer only a "
        "set of lists of measure 0."
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
