"""Verify certificates of Theorems 2a, 2b and 2c: what prompts of any length can do.

This shares no code with what wrote the certificate (`promptlimits.theory`), where the theorems
are stated and proved. From the inputs alone, in decimal intervals, it recomputes each recorded
logarithm, which must be the one point of a grid of 2^-96 on the safe side of the truth. So an
altered digit is refused even if the digest is computed anew: of a limit, because it leaves its
grid point; of an input, because the limits are those of another case. The free parameters
(delta, A, theta, kappa, the parts of delta) need not be the best: any allowed choice is sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from promptlimits.checking.grid import decades, grid_point, lipschitz_words, require_grid_log
from promptlimits.checking.intervals import Interval, log_of
from promptlimits.checking.layer_limits import Layer, read_layers
from promptlimits.checking.record import (
    RecordedBound,
    dyadic,
    exact_fraction,
    listed,
    long_integer,
    open_certificate,
    reading,
    refuted,
    require_assumptions,
    require_same,
    require_source,
    text,
    whole,
)

_WHOLE_INPUTS: Final = {
    "theorem",
    "dim",
    "lipschitz",
    "radius",
    "eps",
    "order",
    "delta",
    "alphabet",
    "theta",
    "list_size",
    "blocks",
    "cover",
    "cover_share",
    "tokens",
    "spread",
}
_LAST_INPUTS: Final = {
    "theorem",
    "dim",
    "layers",
    "masked",
    "eps",
    "tokens",
    "target_radius",
    "parts",
}
_THRESHOLD: Final = "pairs beyond which the share is below 1 (K)"
_FAMILY: Final = "nats by which a ball misses the family (H)"
_POINTS: Final = "points of the ball that far apart, (r/s)^d"
_CONTEXTS: Final = "nats that tell contexts of all lengths apart (log C_in)"
_SPREAD: Final = "what dropping the context can change, at most (S)"
_WHOLE_TEXTS: Final = (
    (
        "The mean-field map of the whole transformer has the given Lipschitz constant for W_q on "
        "the measures on the ball of the given radius."
    ),
    "All tokens of prompts and queries lie in that ball, and all queries have as many tokens.",
    (
        "Targets are drawn uniformly from the family of the theorem, and whole outputs, the "
        "prompt's own included, are compared in W_q."
    ),
)
_LAST_TEXTS: Final = (
    (
        "Each layer has the given limits; the next layer's radius covers what leaves it for every "
        "query and every probability measure on its ball as context."
    ),
    (
        "All tokens of prompts and queries lie in the ball of the first layer, and each query has "
        "as many tokens as its target."
    ),
    "Targets are drawn uniformly by volume from balls of the given radius, one for each token.",
)
_CAP: Final = 1000


@dataclass(frozen=True, kw_only=True)
class _Whole:
    """Inputs of Theorems 2a and 2b."""

    theorem: str
    dim: int
    lipschitz: Fraction | None
    log_lipschitz: Fraction | None
    radius: Fraction
    eps: Fraction
    order: Fraction
    delta: Fraction
    alphabet: int
    theta: Fraction
    list_size: int
    blocks: int | None
    cover: str | None
    cover_share: Fraction | None
    tokens: int | None
    spread: Fraction | None

    def log_l(self, digits: int) -> Interval:
        """log L."""
        if self.lipschitz is not None:
            return log_of(self.lipschitz, digits)
        return Interval.of(self.log_lipschitz or 0, digits)


def check(certificate: Any) -> str:
    """Verify a context capacity certificate."""
    with reading("context_capacity"):
        theorem = text(certificate["inputs"]["theorem"])
        if theorem not in ("2a", "2b", "2c"):
            raise ValueError(f"there is no Theorem {theorem}")
        fields = _LAST_INPUTS if theorem == "2c" else _WHOLE_INPUTS
        inputs, bound = open_certificate(certificate, kind="context_capacity", inputs=fields)
        if theorem == "2c":
            return _check_last(inputs, bound)
        return _check_whole(_read_whole(inputs), bound, lipschitz_words(inputs["lipschitz"]))


def _read_whole(inputs: dict[str, Any]) -> _Whole:
    constant = inputs["lipschitz"]
    exact = exact_fraction(constant, above=0) if isinstance(constant, str) else None
    radius = exact_fraction(inputs["radius"], above=0)
    second = inputs["theorem"] == "2b"
    claim = _Whole(
        theorem=inputs["theorem"],
        dim=whole(inputs["dim"], 1),
        lipschitz=exact,
        log_lipschitz=None if exact is not None else dyadic(constant),
        radius=radius,
        eps=exact_fraction(inputs["eps"], above=0),
        order=exact_fraction(inputs["order"], least=1),
        delta=exact_fraction(inputs["delta"], above=0),
        alphabet=whole(inputs["alphabet"], 2),
        theta=exact_fraction(inputs["theta"], above=0),
        list_size=whole(inputs["list_size"], 1),
        blocks=None if inputs["blocks"] is None else long_integer(inputs["blocks"], 1),
        cover=None if second else text(inputs["cover"]),
        cover_share=None if second else exact_fraction(inputs["cover_share"], above=0),
        tokens=whole(inputs["tokens"], 1) if second else None,
        spread=exact_fraction(inputs["spread"], above=0) if second else None,
    )
    unused = ("cover", "cover_share") if second else ("tokens", "spread")
    if any(inputs[name] is not None for name in unused):
        raise ValueError(f"{unused[0]} and {unused[1]} are no part of Theorem {claim.theorem}")
    if claim.theta >= 1 - Fraction(claim.list_size, claim.alphabet):
        raise ValueError("theta is below 1 - kappa/A")
    if second and claim.list_size != 1:
        raise ValueError("Theorem 2b needs a code: kappa = 1")
    if not second and (claim.cover not in ("volume", "rogers") or (claim.cover_share or 1) >= 1):
        raise ValueError("the cover is 'volume' or 'rogers', its share below 1")
    if claim.cover == "rogers" and claim.dim < 3:
        raise ValueError("Rogers' cover needs dimension 3 or more")
    return claim


def _check_whole(claim: _Whole, bound: RecordedBound, constant: str) -> str:
    first = claim.theorem == "2a"
    family = _check_family(claim, bound)
    require_source(
        bound,
        reference="promptlimits",
        statement=f"Theorem {claim.theorem} (promptlimits.theory.whole_output_capacity)",
        form="corrected",
    )
    queries = (
        f"Each query has {claim.tokens} tokens, and W_{claim.order} between any two of them is at "
        f"most {claim.spread}."
    )
    texts = _WHOLE_TEXTS if first else (*_WHOLE_TEXTS, queries)
    require_assumptions(bound, texts, holds=(None,) * len(texts))
    require_same((bound.quantity, bound.direction), (_THRESHOLD, "upper"), "the bound's quantity")
    if first:
        contexts = bound.factors[0]
        _require_plain(contexts, "upper", _CONTEXTS, "C_in, net for contexts of every length")
        require_grid_log(
            contexts.log,
            lambda digits: _log_contexts(claim, digits),
            what="the contexts",
        )
        require_same(bound.log, contexts.log - family.log, "the logarithm of K")
    else:
        require_grid_log(
            bound.log,
            lambda digits: _log_threshold_2b(claim, family.log, digits),
            what="K",
        )
    kind = "C_in e^(-kH)" if first else "e^(-(k - K)H)"
    near = (
        "" if first else f", queries of {claim.tokens} tokens within {claim.spread} of each other"
    )
    return (
        f"Theorem {claim.theorem}: in dimension {claim.dim}, radius {claim.radius}, with "
        f"{constant}{near}, error {claim.eps} in W_{claim.order}, prompts of all lengths "
        f"together serve a share of at most {kind} < 1 of the lists of more than "
        f"K = {decades(bound.log)} whole output measures; under the assumptions that it states"
    )


def _check_family(claim: _Whole, bound: RecordedBound) -> RecordedBound:
    first = claim.theorem == "2a"
    require_same(len(bound.factors), 2 if first else 1, "the number of factors")
    family = bound.factors[-1]
    if first:  # recorded as 1/H, made from H
        require_same(len(family.factors), 1, "the number of factors")
        inverse, family = family, family.factors[0]
        _require_same_source(inverse, "upper", "1/H", "C_out, words of one point per block")
        require_same(inverse.log, -family.log, "the logarithm of 1/H")
    lemma = "C_out, words of one point per block"
    _require_same_source(family, "lower", _FAMILY, lemma)
    require_same(len(family.factors), 1, "the number of factors")
    (points,) = family.factors
    _require_plain(points, "lower", _POINTS, lemma)
    require_same(
        points.log, -grid_point(lambda digits: -_log_points(claim, digits)), "the logarithm of x"
    )
    _check_blocks(claim)
    require_same(
        family.log, -grid_point(lambda digits: -_log_family(claim, digits)), "the logarithm of H"
    )
    return family


def _require_plain(bound: RecordedBound, direction: str, quantity: str, lemma: str) -> None:
    _require_same_source(bound, direction, quantity, lemma)
    require_same(bound.factors, (), f"what {quantity!r} is made of")


def _require_same_source(bound: RecordedBound, direction: str, quantity: str, lemma: str) -> None:
    require_same((bound.direction, bound.quantity), (direction, quantity), "a factor")
    require_source(
        bound,
        reference="promptlimits",
        statement=f"Lemma {lemma} (promptlimits.theory.wasserstein)",
        form="proved here",
    )
    require_assumptions(bound, ())


def _log_points(claim: _Whole, digits: int) -> Interval:
    """log (r/s)^d, s = (eps + delta) theta^(-1/q) sqrt(2 (kappa + 1)/kappa)."""
    spacing = log_of(2 + Fraction(2, claim.list_size), digits) / 2
    spacing -= log_of(claim.theta, digits) / claim.order
    return (log_of(claim.radius / (claim.eps + claim.delta), digits) - spacing) * claim.dim


def _check_blocks(claim: _Whole) -> None:
    """n is floor(ceil((r/s)^d)/A), or None for more than 2^64 points."""
    digits = 60
    while digits <= 960:
        log = _log_points(claim, digits)
        if claim.blocks is None:
            if (log_of(2, digits) * 64).certainly_less(log):
                return
            if not log.certainly_less(log_of(2, digits) * 65):
                raise refuted("the blocks are not counted although they are few")
        elif log.certainly_less(log_of(2, digits) * 65):
            points = log.exp()
            fewer = Interval.of(claim.blocks * claim.alphabet - 1, digits)
            more = Interval.of((claim.blocks + 1) * claim.alphabet - 1, digits)
            if points.certainly_at_most(fewer) or more.certainly_less(points):
                break
            if fewer.certainly_less(points):
                return
        else:
            break
        digits *= 2
    raise refuted("so many blocks of points do not fit, or more do")


def _log_family(claim: _Whole, digits: int) -> Interval:
    """log H."""
    kept, size, near = 1 - claim.theta, claim.alphabet, claim.list_size
    rate = log_of(kept * size / near, digits) * kept
    rate += log_of(claim.theta * size / (size - near), digits) * claim.theta
    if claim.blocks is not None:
        return rate.log() + log_of(claim.blocks, digits)
    log = _log_points(claim, digits)
    return log + ((-log).exp() * (1 - size)).log1p() - log_of(size, digits) + rate.log()


def _log_contexts(claim: _Whole, digits: int) -> Interval:
    """log log C_in."""
    share = claim.cover_share or Fraction(1)
    wide = claim.log_l(digits) + log_of(2 * claim.radius / claim.delta, digits)
    near = wide - log_of(share, digits)
    if claim.cover == "rogers":
        log = log_of(claim.dim, digits)
        centres = ((log + log.log() + 5) * claim.dim).log()
        centres += (near - log_of(2, digits)).exp().log1p() * claim.dim
    else:
        centres = near.exp().log1p() * claim.dim
    moved = (wide - log_of(1 - share, digits)) * claim.order - log_of(4, digits)
    return centres + (-centres).exp().log1p() + (moved.exp().log1p() + 1).log()


def _log_threshold_2b(claim: _Whole, log_family: Fraction, digits: int) -> Interval:
    """log K of Theorem 2b, with the recorded lower limit on H."""
    spread, tokens = claim.spread or Fraction(1), claim.tokens or 1
    constant = claim.log_l(digits)
    ratio = (constant + log_of(spread / (2 * claim.delta), digits)) * claim.order
    longer = ratio.expm1()
    if longer.certainly_at_most(0):
        return Interval.of(0, digits)
    longest = longer * tokens
    net = (constant + log_of(2 * claim.radius / claim.delta, digits)).exp().log1p()
    nats = Interval.of(log_family, digits).exp()
    excess = longest.log1p() + longest * net * claim.dim - nats
    if Interval.of(0, digits).certainly_less(excess):
        grown = excess + (-excess.minimum(_CAP)).exp().log1p()
    else:
        grown = excess.maximum(-_CAP).exp().log1p()
    return (grown / nats).log1p()


def _check_last(inputs: dict[str, Any], bound: RecordedBound) -> str:
    dim, tokens = whole(inputs["dim"], 1), whole(inputs["tokens"], 1)
    layers = read_layers(inputs["layers"])
    eps, radius = (exact_fraction(inputs[name], above=0) for name in ("eps", "target_radius"))
    parts = [exact_fraction(part, above=0) for part in listed(inputs["parts"])]
    if len(parts) != 3 or sum(parts) + eps >= radius:
        raise ValueError("delta has three parts, and eps + delta is below the radius")
    if not isinstance(inputs["masked"], bool) or (len(layers) > 1 and not inputs["masked"]):
        raise ValueError("without a mask there is one layer")
    require_source(
        bound,
        reference="promptlimits",
        statement="Theorem 2c (promptlimits.theory.last_tokens_capacity)",
        form="corrected",
    )
    require_assumptions(bound, _LAST_TEXTS, holds=(None,) * len(_LAST_TEXTS))
    require_same((bound.quantity, bound.direction), (_THRESHOLD, "upper"), "the bound's quantity")
    require_same(len(bound.factors), 1, "the number of factors")
    spread = bound.factors[0]
    require_same(
        (spread.quantity, spread.direction, spread.factors), (_SPREAD, "upper", ()), "a factor"
    )
    require_source(spread, reference="promptlimits", statement=bound.statement, form="corrected")
    require_assumptions(spread, ())
    gains = _gains(layers)
    require_grid_log(spread.log, lambda digits: _log_spread(layers, gains, digits), what="S")
    steep = [gain * layer.context for gain, layer in zip(gains, layers, strict=True)]
    nets = [
        1 + 2 * layer.radius * len(layers) * s / parts[1]
        for layer, s in zip(layers, steep, strict=True)
    ]
    slope = radius / (eps + sum(parts))

    def log(digits: int) -> Interval:
        size = _log_spread(layers, gains, digits)
        atoms = ((size - log_of(parts[0], digits)) * 2).exp() + 1
        classes = ((size - log_of(parts[2], digits)).exp() * tokens + 2).log()
        total = Interval.of(0, digits)
        for net in nets:
            total += log_of(net, digits)
        nats = atoms * total + classes / dim
        return nats.log() - log_of(tokens, digits) - log_of(slope, digits).log()

    require_grid_log(bound.log, log, what="K")
    return (
        f"Theorem 2c: a {'masked' if inputs['masked'] else 'one-layer'} transformer of "
        f"{len(layers)} layers in dimension {dim}: prompts of all lengths together serve a share "
        f"below 1 of the lists of more than K = {decades(bound.log)} targets "
        f"of {tokens} tokens in balls of radius {radius}, with error {eps}; under the assumptions "
        "that it states"
    )


def _gains(layers: list[Layer]) -> list[Fraction]:
    """g_l: the layer's own MLP, then all that lies above it."""
    gains = []
    for place, layer in enumerate(layers):
        gain = layer.mlp
        for later in layers[place + 1 :]:
            gain *= later.mlp * (1 + later.attention)
        gains.append(gain)
    return gains


def _log_spread(layers: list[Layer], gains: list[Fraction], digits: int) -> Interval:
    total = Interval.of(0, digits)
    for gain, layer in zip(gains, layers, strict=True):
        for value_norm, score_norm in layer.heads:
            power = Interval.of(2 * score_norm * layer.radius**2, digits)
            total += (power + log_of(2 * gain * layer.radius * value_norm, digits)).exp()
    return total.log()
