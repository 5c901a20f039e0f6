"""Random cases of every theorem: whoever adds a kind adds its case here."""

import json
from fractions import Fraction

from promptlimits.bounds.context.last_tokens import LastTokensCapacity
from promptlimits.bounds.context.layers import Washout
from promptlimits.bounds.context.whole_output import ShortPromptCapacity, WholeOutputCapacity
from promptlimits.bounds.counting import FORMATS, Counting, VectorCounting
from promptlimits.bounds.prompt_capacity import PromptCapacity
from promptlimits.lipschitz.checkpoint.model_ceiling import ModelFacts
from promptlimits.lipschitz.checkpoint.model_ceiling import model_ceiling as ceiling_of

CASES = {}


def case(make):
    """Register the random cases of the kind that the function is named after."""
    CASES[make.__name__] = make
    return make


def plain(theorem):
    """The certificate as a file holds it."""
    return json.loads(json.dumps(theorem.certificate()))


def size(random, low, high):
    """A whole number, as many small ones as large ones."""
    return int(low * (high / low) ** random.random())


def exact(random, most=10**6):
    return Fraction(random.randint(1, most), random.randint(1, most))


@case
def counting(random):
    stored, computed = random.choice(list(FORMATS)), random.choice(["", *FORMATS])
    formats = [f"{stored}/{computed}" if computed else stored, random.randint(2, 300)]
    return Counting(
        dim=size(random, 1, 5000),
        prompt_tokens=random.choice([0, 1, size(random, 1, 3000)]),
        values=random.choice(formats),
        answers=random.choice([1, 2, 3, 50257, 49152**3, 10**400, random.randint(2, 10**6)]),
        pool=random.choice([0, 1, size(random, 1, 10**5)]),
        share=random.choice([Fraction(1, 2**20), Fraction(2, 7), Fraction(1, 10**30)]),
        environments_log2=random.choice([0, 1, 64]),
    )


def _targets(random):
    radius = exact(random)
    return {
        "dim": size(random, 1, 2000),
        "prompt_tokens": size(random, 1, 500),
        "tokens": size(random, 1, 50),
        "pairs": size(random, 1, 20000),
        "radius": radius,
        "eps": radius * Fraction(random.randint(1, 9999), 10000),
    }


@case
def vector_counting(random):
    return VectorCounting(
        **_targets(random),
        values=random.choice([*FORMATS, 2, 50257]),
        per_token=random.random() < 0.5,
        environments_log2=random.choice([0, 64]),
    )


@case
def prompt_capacity(random):
    power = random.choice([3000, -3000])
    return PromptCapacity(
        **_targets(random),
        lipschitz=random.choice([exact(random), f"{random.randint(1, 99)}e{power}"]),
        prompt_radius=exact(random),
        norm=random.choice(["token", "frobenius", "matrix"]),
        least_deviation=random.choice([Fraction(0), exact(random)]),
    )


def _measures(random):
    radius = exact(random)
    return {
        "dim": random.choice([1, 2, 3, 4, 16, size(random, 1, 8192)]),
        "lipschitz": random.choice([exact(random), f"{random.randint(1, 99)}e3000"]),
        "radius": radius,
        "eps": radius / random.choice([30, 100, size(random, 30, 10**5)]),
        "order": random.choice([1, 2, Fraction(3, 2), 100]),
    }


@case
def whole_output_capacity(random):
    sizes = _measures(random)
    covers = ["volume", "rogers"] if sizes["dim"] > 2 else ["volume"]
    return WholeOutputCapacity(**sizes, cover=random.choice(covers))


@case
def short_prompt_capacity(random):
    sizes = _measures(random)
    wide = 2 * sizes["radius"]
    spread = random.choice([wide, wide / 10 ** random.randint(1, 6)])
    return ShortPromptCapacity(**sizes, tokens=size(random, 1, 50), spread=spread)


def _layers(random):
    def limit():
        return Fraction(random.randint(1, 3000), 1000)

    return [
        {
            "radius": limit(),
            "mlp_lipschitz": limit(),
            "heads": [(limit(), limit()) for _ in range(random.randint(1, 3))],
        }
        for _ in range(random.randint(1, 4))
    ]


@case
def last_tokens_capacity(random):
    radius = Fraction(random.randint(1, 10**6), 1000)
    return LastTokensCapacity(
        dim=size(random, 1, 2000),
        layers=_layers(random),
        tokens=size(random, 1, 50),
        target_radius=radius,
        eps=radius * Fraction(random.randint(1, 9000), 10000),
    )


@case
def washout(random):
    return Washout(
        layers=_layers(random),
        query_tokens=size(random, 2, 50),
        prompt_tokens=random.choice([1, size(random, 1, 10**9), 10**400]),
    )


@case
def model_ceiling(random):
    def limits(*names):
        return {name: exact(random, 999) for name in names}

    def norm(*, gain=True):
        return limits("eps", "gain") if gain else limits("eps")

    def block():
        positions = random.choice(["added", "rotary", "normalised"])
        heads = {
            "added": ("value", "logit", "logit_bias"),
            "rotary": ("value", "query", "key", "query_bias", "key_bias"),
            "normalised": ("value", "query", "key"),
        }[positions]
        over = {"head_dim": size(random, 1, 128), "query_norm": norm(), "key_norm": norm()}
        gated = random.random() < 0.5
        fed = ("up", "gate", "down_up", "down_gate") if gated else ("up", "down")
        behind = {f"{part}_post_norm": norm() for part in ("attention", "feed_forward")}
        return {
            "arrangement": arrangement,
            "attention": {
                "positions": positions,
                "heads": [limits(*heads)],
                **limits("output", "scale_squared"),
                **(over if positions == "normalised" else {}),
            },
            "feed_forward": {
                "activation": random.choice(["gelu", "gelu_tanh", "silu", "relu"]),
                **limits(*fed),
            },
            "attention_norm": norm(gain=arrangement == "post"),
            "feed_forward_norm": norm(gain=arrangement == "post"),
            **(behind if arrangement == "pre" and random.random() < 0.5 else {}),
        }

    arrangement = random.choice(["pre", "parallel", "post"])
    targets = _targets(random)
    return ceiling_of(
        ModelFacts.model_validate(
            {
                "dim": targets.pop("dim"),
                "outer_norm": norm(),
                "blocks": [block() for _ in range(random.choice([1, 1, 3]))],
            }
        ),
        weights_sha256=random.randbytes(32).hex(),
        values=random.choice([*FORMATS, 2]),
        deviation=random.choice([Fraction(0), exact(random)]),
        **targets,
    )
