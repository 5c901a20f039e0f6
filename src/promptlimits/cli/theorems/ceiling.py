"""`promptlimits ceiling`: Theorem 4.7 of arXiv 2509.00421, as published and as it holds."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptlimits.base.errors import UserError
from promptlimits.cli import options
from promptlimits.cli.numbers import count, recorded
from promptlimits.cli.theorems import capacity_options
from promptlimits.cli.theorems.capacity_options import Typed, prompts_of, setting_of

if TYPE_CHECKING:
    from promptlimits.base.bound import Certificate, LogBound
    from promptlimits.base.typing import JsonObject
    from promptlimits.theory.prompt_capacity import ShareReached
    from promptlimits.theory.prompt_setting import PromptSetting
    from promptlimits.theory.vector_counting import CountedShare, PromptValues


def ceiling(
    dim: capacity_options.Dim,
    lipschitz: capacity_options.Lipschitz,
    radius: capacity_options.Radius,
    eps: capacity_options.Eps,
    prompt_tokens: capacity_options.PromptTokens,
    tokens: capacity_options.Tokens = "1",
    pairs: Annotated[
        str | None,
        typer.Option("--pairs", metavar="K", help="Share at K pairs; the threshold if not given."),
    ] = None,
    prompt_radius: capacity_options.PromptRadius = None,
    norm: capacity_options.NormName = "token",
    storage: capacity_options.Storage = "float32",
    vocabulary: capacity_options.Vocabulary = None,
    out: capacity_options.OutFile = None,
    as_json: options.AsJson = False,
) -> None:
    """What no prompt can reach: Theorem 4.7 as published, as corrected, and the counting cap.

    Closed form, no model. Targets are vectors in a ball; a list of K targets counts as reached if
    one prompt brings every output within the error. Above the threshold some lists are not.
    """
    from promptlimits.cli.theorems.ceiling_table import print_ceiling

    typed = Typed(
        dim=dim,
        lipschitz=lipschitz,
        radius=radius,
        eps=eps,
        prompt_radius=prompt_radius,
        prompt_tokens=prompt_tokens,
        tokens=tokens,
        norm=norm,
    )
    setting, prompts = setting_of(typed), prompts_of(storage, vocabulary)
    asked = None if pairs is None else count("--pairs", pairs)
    record, certificate = ceiling_record(setting, prompts, asked)
    if out is not None:
        _write(out, certificate)
    if as_json:
        typer.echo(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print_ceiling(record, typed, out)


def ceiling_record(
    setting: PromptSetting, prompts: tuple[PromptValues, ...], pairs: int | None
) -> tuple[JsonObject, Certificate]:
    """The answer as plain JSON, and the certificate of the bound that wins."""
    from promptlimits.theory.prompt_capacity import capacity_threshold, share_reached, slope
    from promptlimits.theory.prompt_capacity_published import (
        published_capacity,
        published_proportion,
    )
    from promptlimits.theory.vector_counting import (
        counted_share,
        counting_kappa,
        first_counted_pairs,
    )

    found = capacity_threshold(setting)
    firsts = [found.first_pairs, *(first_counted_pairs(setting, values) for values in prompts)]
    pairs = pairs or min(firsts)
    factor = Fraction(setting.prompt_tokens, setting.tokens)
    reached, falls = share_reached(setting, pairs), slope(setting, pairs)
    counted = [counted_share(setting, pairs, values) for values in prompts]
    said, proportion = published_capacity(setting), published_proportion(setting, pairs)
    names = ["corrected", *(values.name for values in prompts)]
    candidates: list[ShareReached | CountedShare] = [reached, *counted]
    best = min(range(len(candidates)), key=lambda place: candidates[place].bound.log)
    certificate = candidates[best].certificate
    if certificate is None:  # never: only Rogers' constant has none
        raise TypeError("the bound has no certificate")
    record: JsonObject = {
        "pairs": pairs,
        "published": {
            "kappa": _up(said.kappa),
            "threshold_pairs": _up(said.threshold_pairs),
            "printed_threshold_pairs": _up(said.printed_pairs),
            "proportion": None if proportion is None else _log10(proportion),
            "false_here": said.false_here,
            "reason": said.reason,
        },
        "corrected": {
            "kappa": _up(found.kappa.upper),
            "kappa_lower": recorded(found.kappa.lower, up=False),
            "threshold_pairs": _up(found.pairs_upper),
            "delta": recorded(found.kappa.delta, up=True),
            "one_centre": found.one_centre,
            "first_pairs_excluded": found.first_pairs,
            "slope": _log10(falls),
            "proportion": _log10(reached.bound),
            "rule": "one centre" if reached.delta is None else "net",
        },
        "counting": [
            {
                "prompts": values.name,
                "kappa": _up(counting_kappa(setting, values)),
                "threshold_pairs": _up(counting_kappa(setting, values) * factor),
                "first_pairs_excluded": first,
                "proportion": _log10(share.bound),
            }
            for values, first, share in zip(prompts, firsts[1:], counted, strict=True)
        ],
        "winner": names[best],
        "excluded": bool(candidates[best].bound.log < 0),
    }
    return record, certificate


def _log10(bound: LogBound) -> JsonObject:
    """An upper limit; it is one number on the safe side, a ball without radius."""
    return {"log10": bound.upper_log10(), "radius": 0.0}


def _up(value: Fraction | None) -> float | str | None:
    """A number that is no less; None for None."""
    if value is None:
        return None
    return recorded(value, up=True)


def _write(path: Path, certificate: Any) -> None:
    text = json.dumps(certificate.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(
            "--out",
            "be a file that can be written",
            got=f"{path} ({error.strerror or error})",
            remedy="choose another file",
        ) from error
