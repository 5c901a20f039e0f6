"""`promptlimits lipschitz`: Lipschitz constants of a transformer, proved from above and found."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from promptlimits.base.errors import UserError
from promptlimits.cli import options
from promptlimits.cli.lab.weights_options import Transformer
from promptlimits.cli.options import positive
from promptlimits.cli.output import show

if TYPE_CHECKING:
    from promptlimits.base.files import JsonObject
    from promptlimits.lipschitz.paper.attention import Inputs
    from promptlimits.nets.paper.weights import TransformerWeights

_DOMAINS: Final[tuple[tuple[Any, bool, str], ...]] = (
    ("token", False, "every token moves, every output is read, token norm"),
    ("token", True, "the prompt moves, the outputs behind it are read, token norm"),
    ("frobenius", False, "every token moves, every output is read, Frobenius norm"),
)
_STARTS_AND_STEPS: Final = {"quick": (14, 60), "full": (56, 400)}


@options.with_groups
def lipschitz(
    transformer: Transformer,
    radius: Annotated[
        Fraction,
        options.parsed(
            "--radius", parser=positive, metavar="R", help="Greatest length of a token."
        ),
    ] = Fraction(1),
    tokens: Annotated[
        int, typer.Option("--tokens", min=2, max=256, help="Tokens, those of the prompt included.")
    ] = 8,
    prompt_tokens: Annotated[
        int, typer.Option("--prompt-tokens", min=1, help="Tokens of the prompt.")
    ] = 6,
    effort: Annotated[
        Literal["quick", "full"], typer.Option("--effort", help="Of ellipsoids and search.")
    ] = "quick",
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """How far outputs can move when tokens do.

    Proved is an upper limit for all tokens within --radius; found is the largest Jacobian norm
    that a search met, at an explicit point. The constant lies between the two.

    Example: promptlimits lipschitz --random d=8,h=2,layers=2,scale=.5 --radius 1
    """
    from promptlimits.lipschitz.paper.attention import Inputs

    if prompt_tokens >= tokens:
        raise UserError(
            "--prompt-tokens",
            f"be fewer than the {tokens} of --tokens",
            got=prompt_tokens,
            remedy="leave a token of input behind the prompt",
        )
    tau = transformer.read()
    inputs = Inputs(radius=radius, tokens=tokens, masked=tau.masked)
    record = _record(tau, inputs, prompt_tokens, effort, seed)
    show(record, _lines(record), as_json=as_json)


def _record(
    tau: TransformerWeights, inputs: Inputs, front: int, effort: Any, seed: int
) -> JsonObject:
    from promptlimits.lipschitz.ellipsoid.certificate import effective_lipschitz
    from promptlimits.lipschitz.paper.attention import THEOREMS, attention_bound

    usable = [name for name in THEOREMS if not (tau.masked and THEOREMS[name].norm == "W_q")]
    covering = effective_lipschitz(tau, radius=inputs.radius, effort=effort)
    return {
        "dim": tau.dim,
        "layers": len(tau.layers),
        "masked": tau.masked,
        "radius": str(inputs.radius),
        "tokens": inputs.tokens,
        "prompt_tokens": front,
        "constants": [_bracket(tau, inputs, front, *each, effort, seed) for each in _DOMAINS],
        "measures_proved_log10": {
            name: _composed(tau, inputs, name) for name in usable if THEOREMS[name].norm == "W_q"
        },
        "covering_proved_log10": covering.bound.upper_log10(),
        "first_attention_proved_log10": {
            name: attention_bound(tau.layers[0], inputs, name).upper_log10() for name in usable
        },
        "one_radius_as_published_not_proved_log10": {
            name: _composed(tau, inputs, name, same_radius=True)
            for name in usable
            if THEOREMS[name].published
        },
    }


def _composed(tau: TransformerWeights, inputs: Inputs, method: str, **more: bool) -> float:
    from promptlimits.lipschitz.paper.compose import composed_bound

    given: dict[str, Any] = {"radius": inputs.radius, "tokens": inputs.tokens} | more
    return composed_bound(tau, method=method, **given).bound.upper_log10()


def _bracket(
    tau: TransformerWeights,
    inputs: Inputs,
    front: int,
    norm: Literal["token", "frobenius"],
    only: bool,
    domain: str,
    effort: Any,
    seed: int,
) -> JsonObject:
    """The limits proved in one norm and domain, beside what a search finds there."""
    import torch

    from promptlimits.lipschitz.ascent import singular_directions
    from promptlimits.lipschitz.ellipsoid.certificate import ellipsoid_bound
    from promptlimits.lipschitz.estimate import largest_jacobian_norm
    from promptlimits.nets.paper.transformer import from_weights

    if norm == "token":
        ellipsoid = ellipsoid_bound(tau, radius=inputs.radius, prompt_only=only, effort=effort)
        method = "token-prompt" if only else "token"
        proved = {
            method: _composed(tau, inputs, method),
            "ellipsoid": ellipsoid.bound.upper_log10(),
        }
    else:
        both = ("frobenius", "published-frobenius")
        proved = {method: _composed(tau, inputs, method) for method in both}
    starts, steps = _STARTS_AND_STEPS[effort]
    found = largest_jacobian_norm(
        from_weights(tau),
        dim=tau.dim,
        tokens=inputs.tokens or 0,
        radius=float(inputs.radius),
        norm=norm,
        perturbed=slice(0, front) if only else None,
        read=slice(front, None) if only else None,
        generator=torch.Generator().manual_seed(seed),
        aligned=singular_directions(tau),
        starts=starts,
        steps=steps,
    )
    return {
        "domain": domain,
        "norm": norm,
        "prompt_only": only,
        "proved_log10": {**proved},
        "least_proved_log10": min(proved.values()),
        "found_log10": math.log10(found.value) if found.value > 0 else None,
    }


def _lines(record: Any) -> Iterator[str]:
    yield (
        f"{record['layers']} layers of width {record['dim']}, tokens within {record['radius']}, "
        f"{record['tokens']} tokens, {record['prompt_tokens']} of them the prompt's"
    )
    for each in record["constants"]:
        method = min(each["proved_log10"], key=each["proved_log10"].get)
        found = each["found_log10"]
        yield each["domain"]
        yield f"  proved  at most 10^{each['least_proved_log10']:.3f} ({method})"
        yield f"  found   {'0' if found is None else f'10^{found:.3f}'}, at an explicit point"
    covering = record["covering_proved_log10"]
    yield f"covering prompts by ellipsoids, proved: as with a constant of 10^{covering:.3f}"
