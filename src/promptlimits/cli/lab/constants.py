"""The record of `promptlimits lipschitz`: constants proved and found, and the K of each.

From the prompt to the outputs behind it, in the token norm, stand side by side what is proved and
what a search found at an explicit point, each with the K of Theorem 1: beyond so many pairs some
lists of targets are out of reach. K is proved with a proved constant only; what was found is a
lower limit on the constant, and its K an estimate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, Literal

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.cli import options

if TYPE_CHECKING:
    from promptlimits.base.bound import LogBound
    from promptlimits.base.files import JsonObject
    from promptlimits.bounds.core import Exp, Norm
    from promptlimits.bounds.prompt_capacity import PromptCapacity
    from promptlimits.lipschitz.estimate import JacobianEstimate
    from promptlimits.lipschitz.paper.attention import Inputs
    from promptlimits.nets.paper.weights import TransformerWeights

_DOMAINS: Final[tuple[tuple[Literal["token", "frobenius"], bool, str], ...]] = (
    ("token", False, "every token moves, every output is read, token norm"),
    ("token", True, "the prompt moves, the outputs behind it are read, token norm"),
    ("frobenius", False, "every token moves, every output is read, Frobenius norm"),
)
_STARTS_AND_STEPS: Final = {"quick": (14, 60), "full": (56, 400)}
_OF_A_MODEL: Final = {"quick": (7, 16), "full": (28, 120)}
_SHARES_OF_RADIUS: Final = (1.0, 1 / 64)
"""A norm in front of a layer is steepest near 0, where few starts of a wide ball lie."""
_PROVED: Final = ("published", "ours", "ellipsoid")
_ROUNDING: Final = 1e-4
"""Of a logarithm: what was found is evaluated in floats."""
_NORMALISES: Final = "it is proved for transformers without normalisation"


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is asked; eps and the two radii are Theorem 1's."""

    radius: Fraction
    target_radius: Fraction
    eps: Fraction
    front: int  # tokens of the prompt
    tokens: int  # those and the input's
    effort: Literal["quick", "full"]
    seed: int
    observed: str | None  # hash of the weights that a record of prompts is about

    def require(self, weights: str) -> None:
        """Refuse a record about other weights."""
        if self.observed not in (None, weights):
            raise UserError(
                "--observed",
                f"be about the same weights, {weights[:12]}",
                got=f"a record of {self.observed:.12}",
                remedy="give the record of a bracket of these",
            )


def of_weights(tau: TransformerWeights, case: Case) -> JsonObject:
    """The record of a transformer of the papers' kind."""
    from promptlimits.lipschitz.ellipsoid.certificate import effective_lipschitz
    from promptlimits.lipschitz.paper.attention import THEOREMS, Inputs, attention_bound

    case.require(tau.sha256())
    inputs = Inputs(radius=case.radius, tokens=case.tokens, masked=tau.masked)
    usable = [name for name in THEOREMS if not (tau.masked and THEOREMS[name].norm == "W_q")]
    covering = effective_lipschitz(tau, radius=inputs.radius, effort=case.effort)
    every, by_prompt, frobenius = (_proved(tau, inputs, *each[:2], case) for each in _DOMAINS)
    found = [_found(tau, case, *each[:2]) for each in _DOMAINS]
    proved = {
        "published": frobenius["published-frobenius"],
        "ours": by_prompt["token-prompt"],
        "ellipsoid": by_prompt["ellipsoid"],
    }
    record: JsonObject = {
        "dim": tau.dim,
        "layers": len(tau.layers),
        **_compared(case, tau.dim, found[1], proved, {}),
        "masked": tau.masked,
        "constants": [
            {
                "domain": domain,
                "norm": norm,
                "prompt_only": only,
                "proved_log10": {name: bound.upper_log10() for name, bound in bounds.items()},
                "least_proved_log10": min(bound.upper_log10() for bound in bounds.values()),
                "found_log10": _log10(reached.value),
            }
            for (norm, only, domain), bounds, reached in zip(
                _DOMAINS, (every, by_prompt, frobenius), found, strict=True
            )
        ],
        "measures_proved_log10": {
            name: _composed(tau, inputs, name).upper_log10()
            for name in usable
            if THEOREMS[name].norm == "W_q"
        },
        "covering_proved_log10": covering.bound.upper_log10(),
        "first_attention_proved_log10": {
            name: attention_bound(tau.layers[0], inputs, name).upper_log10() for name in usable
        },
        "one_radius_as_published_not_proved_log10": {
            name: _composed(tau, inputs, name, same_radius=True).upper_log10()
            for name in usable
            if THEOREMS[name].published
        },
    }
    return record


def of_model(reference: str, case: Case, *, offline: bool, quiet: bool) -> JsonObject:
    """The record of a causal language model behind a drawn input."""
    import torch

    from promptlimits.base.exact import grid_up, grid_value
    from promptlimits.bounds.core import Exp
    from promptlimits.cli.live import LiveListener
    from promptlimits.lipschitz.checkpoint.model_ceiling import read_facts
    from promptlimits.lipschitz.estimate import largest_jacobian_norm, states_behind
    from promptlimits.nets.load.blocks import open_checkpoint
    from promptlimits.nets.load.stock import load_stock

    missing = {"published": _NORMALISES, "ellipsoid": _NORMALISES}
    proved: dict[str, Exp] = {}
    generator = torch.Generator().manual_seed(case.seed)
    with LiveListener(quiet=quiet) as listener:
        listener.stage(f"loading {reference}")
        with options.named_as_typed():
            stock = load_stock(reference, allow_hub=not offline, on_progress=listener.found)
        case.require(stock.model_hash)
        if case.tokens > stock.context_length:
            raise UserError(
                "--tokens",
                f"be at most the {stock.context_length:,} of {stock.name}",
                got=case.tokens,
                remedy="take fewer",
            )
        try:
            checkpoint = open_checkpoint(stock.located.directory, name=f"model {stock.name}")
        except UserError as error:  # of a family whose blocks are not known
            missing["ours"] = str(error)
        else:
            listener.stage(f"proving norms of {stock.name}, block by block", checkpoint.layers)
            facts = read_facts(checkpoint, on_layer=listener.advanced)
            proved["ours"] = Exp(exp=grid_value(grid_up(lambda: facts.log_constant(Fraction(0)))))
        listener.stage("searching for steep points")
        network = stock.model.requires_grad_(False)
        rows, dim = network.get_input_embeddings().weight.shape
        ids = torch.randint(rows, (case.tokens - case.front,), generator=generator)
        starts, steps = _OF_A_MODEL[case.effort]
        found = max(
            (
                largest_jacobian_norm(
                    states_behind(network, ids),
                    dim=dim,
                    tokens=case.front,
                    radius=float(case.radius) * share,
                    norm="token",
                    generator=generator,
                    starts=starts,
                    steps=steps,
                    dtype=network.dtype,
                )
                for share in _SHARES_OF_RADIUS
            ),
            key=lambda reached: reached.value,
        )
    record: JsonObject = {
        "model": stock.name,
        "dim": dim,
        "layers": int(network.config.get_text_config().num_hidden_layers),
        **_compared(case, dim, found, proved, missing),
        "input_ids": ids.tolist(),
    }
    return record


def _compared(
    case: Case,
    dim: int,
    found: JacobianEstimate,
    proved: Mapping[str, LogBound | Exp],
    missing: Mapping[str, str],
) -> JsonObject:
    """Constants from the prompt to the outputs behind it, and the K of each."""
    limits = {
        name: _theorem(case, dim, bound, "frobenius" if name == "published" else "token")
        for name, bound in proved.items()
    }
    upper = {name: _upper_log10(said) for name, said in limits.items()}
    measured = _log10(found.value)
    reasons: JsonObject = dict(missing)
    if measured is None:
        reasons["measured"] = "no output moved at any point that was tried"
    elif any(measured > upper[name] + _ROUNDING for name in upper if name != "published"):
        raise RunFailed(
            f"a constant of 10^{measured:.4f} was found above one that is proved ({upper})",
            remedy="trust neither number and report this as a bug, with the weights",
        )
    guess = None if measured is None else _pairs(_theorem(case, dim, Fraction(found.value)))
    return {
        "radius": str(case.radius),
        "tokens": case.tokens,
        "prompt_tokens": case.front,
        "eps": str(case.eps),
        "target_radius": str(case.target_radius),
        "measured": measured,
        "proved": {name: upper.get(name) for name in _PROVED},
        "K": {name: _pairs(limits[name]) if name in limits else None for name in _PROVED},
        "K_estimated_from_measured": guess,
        "reasons": reasons,
        "witness": {
            "norm": found.norm,
            "point": found.point.mT.tolist(),
            "direction": found.direction.mT.tolist(),
        },
    }


def _theorem(
    case: Case, dim: int, constant: LogBound | Exp | Fraction, norm: Norm = "token"
) -> PromptCapacity:
    from promptlimits.bounds.prompt_capacity import PromptCapacity

    return PromptCapacity(
        dim=dim,
        lipschitz=constant,  # type: ignore[arg-type]
        radius=case.target_radius,
        eps=case.eps,
        prompt_tokens=case.front,
        tokens=case.tokens - case.front,
        prompt_radius=case.radius,
        norm=norm,
    )


def _upper_log10(said: PromptCapacity) -> float:
    from promptlimits.base.exact import log, outward_float
    from promptlimits.bounds import core

    return outward_float(lambda: core.log(said.lipschitz) / log(10), up=True)


def _pairs(said: PromptCapacity) -> float | str:
    """K, kappa* m_p/m rounded up; 0 where the outputs of one prompt are near all others'."""
    from promptlimits.base.exact import recorded

    mantissa, exponent = said.threshold()
    kappa = Fraction(0) if said.one_centre() else (mantissa + 1) * Fraction(2) ** exponent
    return recorded(kappa * said.prompt_tokens / said.tokens, up=True)


def _log10(value: float) -> float | None:
    return math.log10(value) if value > 0 else None


def _composed(tau: TransformerWeights, inputs: Inputs, method: str, **more: bool) -> LogBound:
    from promptlimits.lipschitz.paper.compose import composed_bound

    given: dict[str, Any] = {"radius": inputs.radius, "tokens": inputs.tokens} | more
    return composed_bound(tau, method=method, **given).bound


def _proved(
    tau: TransformerWeights, inputs: Inputs, norm: str, only: bool, case: Case
) -> dict[str, LogBound]:
    """The limits proved in one norm and domain."""
    from promptlimits.lipschitz.ellipsoid.certificate import ellipsoid_bound

    if norm == "frobenius":
        both = ("frobenius", "published-frobenius")
        return {method: _composed(tau, inputs, method) for method in both}
    method = "token-prompt" if only else "token"
    ellipsoid = ellipsoid_bound(tau, radius=case.radius, prompt_only=only, effort=case.effort)
    return {method: _composed(tau, inputs, method), "ellipsoid": ellipsoid.bound}


def _found(
    tau: TransformerWeights, case: Case, norm: Literal["token", "frobenius"], only: bool
) -> JacobianEstimate:
    """What a search finds in one norm and domain."""
    import torch

    from promptlimits.lipschitz.ascent import singular_directions
    from promptlimits.lipschitz.estimate import largest_jacobian_norm
    from promptlimits.nets.paper.transformer import from_weights

    starts, steps = _STARTS_AND_STEPS[case.effort]
    return largest_jacobian_norm(
        from_weights(tau),
        dim=tau.dim,
        tokens=case.tokens,
        radius=float(case.radius),
        norm=norm,
        perturbed=slice(0, case.front) if only else None,
        read=slice(case.front, None) if only else None,
        generator=torch.Generator().manual_seed(case.seed),
        aligned=singular_directions(tau),
        starts=starts,
        steps=steps,
    )
