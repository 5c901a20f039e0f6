"""`promptlimits invert`: whether outputs determine inputs behind a prompt, and the inputs."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import typer

from promptlimits.base.errors import UserError
from promptlimits.cli import options
from promptlimits.cli.lab.weights_options import Transformer, read_tokens
from promptlimits.cli.options import positive
from promptlimits.cli.output import require_writable, show, write_whole

if TYPE_CHECKING:
    from promptlimits.base.files import JsonObject
    from promptlimits.lipschitz.paper.invertibility import Invertibility
    from promptlimits.nets.paper.weights import TransformerWeights

Experiment: TypeAlias = Literal["threshold", "norm"]
_RANDOM_INPUTS: Final = 16
_RANDOM_COLUMNS: Final = 2
_MOST_CHECKED: Final = 16
"""Inputs whose limit is proved in ball arithmetic, which is slow: the first ones."""

_MOST_NUMBERS: Final = 2**24
"""That ball arithmetic handles in one command, at up to a microsecond each."""

_TOLERANCE: Final = 1e-10
_MOST_TOKENS: Final = 1024
_LONG: Final = 2**16
"""Layers times squared width from which the work takes seconds, and its progress is told."""

_INSIDE: Final = 0.95
"""Length of random tokens, as a share of the radius."""

_LARGEST: Final = Fraction(10) ** 60
_STATUS: Final = {
    "proved": "proved to within 1e-10",
    "converged": "converged (measured)",
    "found": "found",
    "failed": "failed",
}


def _ball(option: str, text: str) -> Fraction:
    ball = positive(option, text)
    if not 1 / _LARGEST <= ball <= _LARGEST:
        raise UserError(option, "be from 1e-60 to 1e60", got=text, remedy="write --radius 1")
    return ball


@options.with_groups
def invert(
    transformer: Transformer,
    radius: Annotated[
        Fraction | None,
        options.parsed(
            "--radius", parser=_ball, metavar="R", help="Greatest length of a token of P and X."
        ),
    ] = None,
    prompt: Annotated[
        Path | None,
        typer.Option("--prompt", metavar="FILE", help="JSON: a list of tokens."),
    ] = None,
    prompt_tokens: Annotated[
        int | None,
        typer.Option(
            "--prompt-tokens",
            metavar="N",
            min=1,
            max=_MOST_TOKENS,
            help="A random prompt of N tokens (3).",
        ),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--inputs", metavar="FILE", help="JSON: a list of inputs, each a list of tokens."
        ),
    ] = None,
    experiment: Annotated[
        Experiment | None,
        typer.Option(
            "--experiment",
            metavar="NAME",
            help="threshold: train prompts while the weights are scaled through the threshold; "
            "norm: the prompt's spectral norm in training.",
        ),
    ] = None,
    plot: options.Plot = None,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Whether the outputs behind a prompt determine the inputs.

    Y = tau([P, X]) is inverted for X, with the error. What is proved holds for every prompt with
    tokens within --radius: then no prompt there gives two inputs one answer. D* is the largest
    radius for which that is proved.

    Example: promptlimits invert --random d=4,h=1,scale=.1 --radius 1
    """
    if experiment is not None:
        given = (transformer.random, transformer.weights, radius, prompt, prompt_tokens, inputs)
        _experiment(experiment, any(each is not None for each in given), plot, seed, as_json)
        return
    if plot is not None:
        raise UserError(
            "--plot", "come with --experiment", got="none", remedy="add --experiment threshold"
        )
    if prompt is not None and prompt_tokens is not None:
        raise UserError(
            "the prompt", "be given once", got="--prompt and --prompt-tokens", remedy="drop one"
        )
    if radius is None:
        raise UserError("--radius", "be given", got="none", remedy="write --radius 1")
    record = _record(transformer.read(), radius, prompt, prompt_tokens or 3, inputs, seed)
    show(record, _lines(record), as_json=as_json)


def _record(
    tau: TransformerWeights,
    ball: Fraction,
    prompt: Path | None,
    tokens: int,
    inputs: Path | None,
    seed: int,
) -> JsonObject:
    import numpy as np

    from promptlimits.cli.live import LiveListener
    from promptlimits.lipschitz.paper.feedforward import layer_norms
    from promptlimits.lipschitz.paper.invertibility import certify_invertible
    from promptlimits.lipschitz.paper.prompt_norm_limit import (
        prompt_norm_limit,
        spectral_prompt_norm_limit,
    )

    generator = np.random.default_rng(seed)
    front = (
        _random_tokens(generator, (tau.dim, tokens), float(ball))
        if prompt is None
        else read_tokens("--prompt", prompt, dim=tau.dim, axes=2)
    )
    if front.shape[-1] > _MOST_TOKENS:
        raise UserError(
            "--prompt",
            f"be at most {_MOST_TOKENS:,} tokens here",
            got=front.shape[-1],
            remedy="give fewer",
        )
    shape = (_RANDOM_INPUTS, tau.dim, _RANDOM_COLUMNS)
    given = (
        _random_tokens(generator, shape, float(ball))
        if inputs is None
        else read_tokens("--inputs", inputs, dim=tau.dim, axes=3)
    )
    for option, values in (("--prompt", front), ("--inputs", given)):
        _require_within(option, values, ball)
    with LiveListener(quiet=len(tau.layers) * tau.dim**2 < _LONG) as listener:
        listener.stage("norms of the layers")
        norms = layer_norms(tau)
        listener.stage("constants within the radius")
        certificate = certify_invertible(tau, radius=ball, norms=norms)
        listener.stage("D*")
        limit = prompt_norm_limit(tau, norms=norms)
        listener.stage("the inverse")
        record = _certified(certificate) | {
            "prompt_norm_limit": _limit(limit.value),
            "inverse": _inverse(tau, certificate, front, given),
        }
    if len(tau.layers) == 1:
        columns = front.shape[-1] + given.shape[-1]
        closed = spectral_prompt_norm_limit(tau, tokens=columns)
        record["spectral_norm_limit"] = _limit(closed.value) | {"tokens": columns}
    return record


def _random_tokens(generator: Any, shape: tuple[int, ...], radius: float) -> Any:
    """Random tokens as columns, all of 0.95 times the radius."""
    import numpy as np

    drawn = generator.standard_normal(shape)
    lengths = np.linalg.norm(drawn, axis=-2, keepdims=True)
    return drawn / np.maximum(lengths, 1e-300) * (_INSIDE * radius)


def _require_within(option: str, values: object, ball: Fraction) -> None:
    import numpy as np

    from promptlimits.lipschitz.balls.spectral import row_norms

    columns = np.moveaxis(np.asarray(values), -2, -1)
    longest = max(row_norms(columns.reshape(-1, columns.shape[-1])))
    if longest > ball:
        raise UserError(
            option,
            f"have tokens within --radius {float(ball):g}",
            got=f"one of length {float(longest):.17g}",
            remedy="give a larger radius",
        )


def _certified(certificate: Invertibility) -> JsonObject:
    return {
        "one_to_one": certificate.one_to_one,
        "reason": certificate.reason,
        "radius": float(certificate.radius),
        "masked": certificate.masked,
        "norm": certificate.norm,
        "layers": [
            {
                "radius": _above(block.radius),
                "attention": _above(block.attention),
                "mlp_branch": _above(block.branch),
            }
            for block in certificate.blocks
        ],
        "lambda": _above(certificate.deviation),
        "floor": _below(certificate.floor),
        "whole_sequence_floor": _below(certificate.whole_floor),
        "weights_sha256": certificate.weights_sha256,
        "assumptions": [each.to_json() for each in certificate.assumptions],
    }


def _inverse(
    tau: TransformerWeights, certificate: Invertibility, front: object, given: object
) -> JsonObject:
    import torch

    from promptlimits.lab.inverse import invert as inverse_of
    from promptlimits.lab.inverse import proved_error_limit
    from promptlimits.nets.paper.transformer import from_weights

    model = from_weights(tau)
    prompt, inputs = torch.tensor(front), torch.tensor(given)
    outputs = model.with_prompt(prompt, inputs)
    record: JsonObject = {"prompt_tokens": prompt.shape[-1], "inputs": len(inputs)}
    if not bool(torch.isfinite(outputs).all()):
        return record | _overflowed()
    found = inverse_of(model, outputs, prompt=prompt, certificate=certificate, tolerance=_TOLERANCE)
    apart = torch.linalg.vector_norm(found.inputs - inputs, dim=-2).amax(dim=-1)
    checked = 0
    if bool(torch.isfinite(found.inputs).all()):
        checked = _checked(tau, prompt.shape[-1] + inputs.shape[-1])
    limits = [
        proved_error_limit(model, y, x, prompt=prompt, certificate=certificate)
        for y, x in zip(outputs[:checked], found.inputs[:checked], strict=True)
    ]
    proved = [limit for limit in limits if limit is not None]
    status, reason = _status(found.status, found.reason, proved, len(inputs))
    return record | {
        "status": status,
        "reason": reason,
        "way": found.way,
        "steps": found.steps,
        "largest_error": _finite(float(apart.max())),
        "largest_residual": _finite(float(found.residuals.max())),
        "proved_error_limit": _above(max(proved)) if proved else None,
        "inputs_with_proved_limit": len(proved),
    }


def _overflowed() -> JsonObject:
    return {
        "status": "failed",
        "reason": "the outputs at these inputs overflow: try smaller weights or a smaller radius",
        "way": "not tried",
        "steps": 0,
        "largest_error": None,
        "largest_residual": None,
        "proved_error_limit": None,
        "inputs_with_proved_limit": 0,
    }


def _checked(tau: TransformerWeights, columns: int) -> int:
    """How many inputs ball arithmetic can afford; 0 above its most columns."""
    from promptlimits.lipschitz.balls.forward import MOST_COLUMNS, evaluation_size

    if columns > MOST_COLUMNS:
        return 0
    return min(_MOST_CHECKED, _MOST_NUMBERS // evaluation_size(tau, columns))


def _status(status: str, reason: str, proved: list[Fraction], inputs: int) -> tuple[str, str]:
    """Called proved where the limit of each input is proved to be within the tolerance."""
    if status != "converged":
        return status, reason
    if not proved:
        return status, "no limit on the error is proved: ball arithmetic would take too long here"
    if max(proved) > Fraction(_TOLERANCE):
        return status, f"the limit proved on the error is above the tolerance {_TOLERANCE:g}"
    if len(proved) < inputs:
        return status, f"a limit on the error is proved for {len(proved)} of {inputs} inputs"
    return "proved", ""


def _finite(number: float) -> float | None:
    import math

    return number if math.isfinite(number) else None


def _limit(value: Fraction | None) -> JsonObject:
    return {"value": None if value is None else _below(value), "unlimited": value is None}


def _above(value: Fraction) -> float | None:
    from promptlimits.lipschitz.balls.matrix import float_up

    return float_up(value) if value < 10**300 else None


def _below(value: Fraction) -> float:
    from promptlimits.lipschitz.balls.matrix import float_down

    return float_down(min(value, Fraction(10) ** 300))


def _lines(record: Any) -> list[str]:
    lines = ["Proved upper limits on Lipschitz constants (largest token norm):"]
    lines += [
        f"  layer {place}: attention {_shown(layer['attention'])}, MLP branch "
        f"{_shown(layer['mlp_branch'])}, on tokens within {_shown(layer['radius'])}"
        for place, layer in enumerate(record["layers"], 1)
    ]
    lines.append(f"  Lambda, of the whole without the identity: {_shown(record['lambda'])}")
    if record["one_to_one"]:
        lines.append(
            f"X -> Y behind a fixed prompt: proved one-to-one, "
            f"|Y - Y'| >= {record['floor']:.6g} |X - X'|"
        )
    else:
        lines.append(f"X -> Y behind a fixed prompt: not proved one-to-one: {record['reason']}")
        if record["whole_sequence_floor"] > 0:
            lines.append(
                f"[P, X] -> [P', Y], all outputs: proved one-to-one, with "
                f"{record['whole_sequence_floor']:.6g}"
            )
    lines.append(_limit_line("D*, tokens of prompt and inputs", record["prompt_norm_limit"]))
    if "spectral_norm_limit" in record:
        closed = record["spectral_norm_limit"]
        lines.append(
            _limit_line(f"D*, spectral norm of [P, X], {closed['tokens']} columns", closed)
        )
    return [*lines, *_inverse_lines(record["inverse"])]


def _limit_line(name: str, limit: Any) -> str:
    if limit["unlimited"]:
        return f"{name}: none; no prompt norm gives two inputs one answer"
    if limit["value"] == 0:
        return f"{name}: 0; nothing is proved at any norm"
    return f"{name}: {limit['value']:.6g}; below it no prompt gives two inputs one answer (proved)"


def _inverse_lines(found: Any) -> list[str]:
    first = (
        f"Inverse of {found['inputs']} inputs behind {found['prompt_tokens']} prompt tokens, "
        f"{found['way']}, {found['steps']} steps: {_STATUS[found['status']]}"
    )
    lines = [first]
    if found["largest_error"] is not None:
        lines.append(f"  largest reconstruction error: {found['largest_error']:.3g} (measured)")
    if found["proved_error_limit"] is not None:
        lines.append(
            f"  its a-posteriori limit: {found['proved_error_limit']:.3g} (proved, the first "
            f"{found['inputs_with_proved_limit']} inputs)"
        )
    return lines + ([f"  {found['reason']}"] if found["reason"] else [])


def _shown(value: float | None) -> str:
    return "over 1e300" if value is None else f"{value:.6g}"


def _experiment(name: Experiment, given: bool, plot: Path | None, seed: int, as_json: bool) -> None:
    if given:
        raise UserError(
            "--experiment",
            "come alone, or with --plot, --seed and --json",
            got="options about one transformer",
            remedy="leave them out: it draws its own",
        )
    require_writable("--plot", plot)
    run = _threshold if name == "threshold" else _growth
    record, lines, drawing = run(seed, drawn=plot is not None)
    if plot is not None:
        write_whole("--plot", plot, drawing)
    show(record, lines, as_json=as_json)


def _threshold(seed: int, *, drawn: bool) -> tuple[JsonObject, list[str], str]:
    from promptlimits.lab.experiments import threshold, to_json

    points = threshold(seed=seed)
    lines = ["scale   Lambda      error at one common answer     error at an invertible target"]
    lines += [
        f"{p.scale:<7g} {p.deviation:<11.4g} >= {p.proved_least_error:<10.4g} found "
        f"{p.two_to_one_error:<10.4g} found {p.invertible_error:.3g}"
        for p in points
    ]
    if not drawn:
        return to_json(points), lines, ""
    from promptlimits.report.figures.invertibility_threshold import InvertibilityThreshold

    drawing = InvertibilityThreshold(
        [p.scale for p in points],
        [p.proved_least_error for p in points],
        [p.two_to_one_error for p in points],
        [p.invertible_error for p in points],
    ).svg()
    return to_json(points), lines, drawing


def _growth(seed: int, *, drawn: bool) -> tuple[JsonObject, list[str], str]:
    from promptlimits.lab.experiments import norm_growth

    found = norm_growth(seed=seed)
    last = len(found.losses) - 1
    lines = [f"D* = {found.limit:.6g}: within it no prompt gives both inputs one answer (proved)"]
    lines += [
        f"step {step:>4}: loss {found.losses[step]:<11.4g} spectral norm "
        f"{found.spectral_norms[step]:<9.5g} longest token {found.token_norms[step]:.5g}"
        for step in sorted({round(last * part / 8) for part in range(9)})
    ]
    if not drawn:
        return found.to_json(), lines, ""
    from promptlimits.report.figures.prompt_norm_growth import PromptNormGrowth

    drawing = PromptNormGrowth(
        found.losses, found.spectral_norms, found.token_norms, found.limit
    ).svg()
    return found.to_json(), lines, drawing
