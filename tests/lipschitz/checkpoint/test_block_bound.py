"""Constants of real blocks: norms against numpy, slopes by intervals, laws, and Jacobians."""

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from flint import arb
from tests.reference import block_forward
from transformers import AutoModel

from promptlimits.base.exact import grid_up
from promptlimits.lipschitz.balls.matrix import MatrixBall
from promptlimits.lipschitz.checkpoint.block_bound import (
    LARGEST_SLOPE,
    feed_forward_factor,
    head_factors,
)
from promptlimits.lipschitz.checkpoint.block_norms import _ROUNDING, NormFacts, product_norm
from promptlimits.lipschitz.checkpoint.model_ceiling import read_facts
from promptlimits.nets.load.blocks import open_checkpoint
from promptlimits.testing.tiny_models import tiny_causal_lm, tiny_encoder

FAMILIES = ("bert", "gemma3", "gpt2", "gpt_neox", "llama", "qwen2")


def make(family, directory, *, layers=1, scale=0.15, seed=0, **settings):
    options = {"dim": 16, "heads": 2, "layers": layers, "init_scale": scale, "seed": seed}
    if family == "bert":
        tiny_encoder(directory, **options)
    else:
        tiny_causal_lm(directory, family, kv_heads=1, **options)
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return directory


def facts_of(directory):
    return read_facts(open_checkpoint(directory, name="tiny"))


def log10(facts, deviation=Fraction(0)):
    """An upper limit on log10 L."""
    return grid_up(lambda: facts.log_constant(deviation)) / 2**96 / math.log(10)


# A second derivative of GELU (erf) is phi(x)(2 - x^2): the slope peaks at sqrt 2. For the others
# the slope is enclosed on small intervals of [-12, 12]; beyond, both are within 1e-6 of 0 or 1.
def slope(kind, x):
    if kind == "gelu":
        density = (-x * x / 2).exp() / (2 * arb.pi()).sqrt()
        return (1 + (x / arb(2).sqrt()).erf()) / 2 + x * density
    if kind == "silu":
        sigmoid = 1 / (1 + (-x).exp())
        return sigmoid * (1 + x * (1 - sigmoid))
    root = (2 / arb.pi()).sqrt()
    c = arb("0.044715")
    t = (root * (x + c * x**3)).tanh()
    return (1 + t) / 2 + x * (1 - t * t) / 2 * root * (1 + 3 * c * x * x)


@pytest.mark.parametrize("kind", ["gelu", "gelu_tanh", "silu"])
def test_slopes_are_proved_and_tight(kind):
    limit = LARGEST_SLOPE[kind]
    top = arb(limit.numerator) / limit.denominator
    cells, depth = [(Fraction(k), Fraction(k + 1)) for k in range(-12, 12)], 0
    while cells:
        assert depth < 24
        halves, depth = [], depth + 1
        for low, high in cells:
            middle, half = (low + high) / 2, (high - low) / 2
            cell = arb(arb(middle.numerator) / middle.denominator, float(half))
            if not abs(slope(kind, cell)) < top:
                halves += [(low, middle), (middle, high)]
        cells = halves
    peak = max(float(slope(kind, arb(k) / 256)) for k in range(1024))
    assert float(limit) - 0.002 < peak < float(limit)
    # |act(t)| <= |t|, used for gated layers: act(t)/t is a share between 0 and 1 in each form.


def test_norms_of_products():
    generator = np.random.default_rng(0)
    left, right = generator.normal(size=(40, 4)), generator.normal(size=(4, 30))
    true = np.linalg.norm(left @ right, 2)
    limit = product_norm(MatrixBall.exact(left), MatrixBall.exact(right))
    assert true <= limit <= true * (1 + 1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_norms_are_those_of_the_stock_weights(family, tmp_path):
    facts = facts_of(make(family, tmp_path))
    state = AutoModel.from_pretrained(tmp_path, dtype=torch.float64).state_dict()
    last = {
        "bert": "encoder.layer.0.output.dense",
        "gpt2": "h.0.mlp.c_proj",
        "gpt_neox": "layers.0.mlp.dense_4h_to_h",
    }.get(family)
    if last is not None:
        true = np.linalg.norm(state[f"{last}.weight"].numpy(), 2)
        limit = facts.blocks[0].feed_forward.down
        assert true <= limit <= true * (1 + 1e-6)
        return
    gain = state["layers.0.input_layernorm.weight"] + (family == "gemma3")
    true = np.linalg.norm((state["layers.0.self_attn.k_proj.weight"] * gain).numpy(), 2)
    assert true <= facts.blocks[0].attention.heads[0].key <= true * (1 + 1e-6)


def largest_change(jacobian):
    """|J eta| for the direction of token norm 1 that is best for J's top output direction."""
    d = jacobian.shape[0]
    blocks = jacobian.transpose(1, 0, 2)  # (tokens, outputs, inputs)
    u = np.linalg.svd(jacobian.reshape(d, -1))[0][:, 0]
    for _ in range(20):
        pulls = [block.T @ u for block in blocks]
        change = sum(
            b @ (p / max(np.linalg.norm(p), 1e-300)) for b, p in zip(blocks, pulls, strict=False)
        )
        u = change / np.linalg.norm(change)
    return np.linalg.norm(change)


def deviations(monkeypatch):
    """Record the least deviation in front of every norm of the reference."""
    seen = []
    plain = block_forward.normalise

    def watched(x, norm):
        if norm is not None:
            centred = x - x.mean(-1, keepdims=True) if norm.kind == "layer" else x
            seen.append(np.sqrt((centred**2).mean(-1)).min())
        return plain(x, norm)

    monkeypatch.setattr(block_forward, "normalise", watched)
    return seen


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layers", [1, 2])
def test_jacobians_stay_below_the_constant(family, layers, tmp_path, monkeypatch):
    directory = make(family, tmp_path, layers=layers, seed=layers)
    facts = facts_of(directory)
    model = AutoModel.from_pretrained(directory, dtype=torch.float64).eval()
    whole = log10(facts)
    seen, closest = deviations(monkeypatch), math.inf
    for seed, scale in enumerate((0.02, 1.0, 10.0)):
        x = scale * torch.randn(5, 16, dtype=torch.float64, generator=torch.manual_seed(seed))
        prompt, rest = x[:3], x[3:]

        def last(prompt, rest=rest):
            inputs = torch.cat([prompt, rest])[None]
            return model(inputs_embeds=inputs).last_hidden_state[0, -1]

        found = largest_change(torch.autograd.functional.jacobian(last, prompt).numpy())
        seen.clear()
        added = x.numpy().copy()
        state = model.state_dict()
        if family == "gpt2":
            added += state["wpe.weight"][:5].numpy()
        if family == "bert":
            added += state["embeddings.position_embeddings.weight"][:5].numpy()
            added += state["embeddings.token_type_embeddings.weight"][0].numpy()
        block_forward.hidden_states(added, open_checkpoint(directory, name="tiny"))
        region = Fraction(float(min(seen)) * (1 - 1e-6))
        near = log10(facts, region)
        assert math.log10(found) <= near <= whole
        closest = min(closest, near - math.log10(found))
    # How tight it is where the region is the point's own: a handful of decades a block, more for
    # Gemma's seven norms, each of which is charged with the least deviation of all.
    assert closest < (8 if family == "gemma3" else 4) * layers


def test_the_constant_falls_with_the_trust_region_and_grows_with_the_weights(tmp_path):
    facts = facts_of(make("gpt2", tmp_path))
    levels = [log10(facts, Fraction(n, 4)) for n in range(5)]
    assert all(low > high for low, high in itertools.pairwise(levels))
    block = facts.blocks[0]
    wider = block.attention.model_copy(update={"output": 2 * block.attention.output})
    grown = facts.model_copy(update={"blocks": (block.model_copy(update={"attention": wider}),)})
    assert log10(grown) > log10(facts)


def test_factors_of_a_head_in_closed_form(tmp_path):
    attention = facts_of(make("gpt2", tmp_path)).blocks[0].attention
    head = attention.heads[0].model_copy(update={"logit": 2, "logit_bias": 1})
    facts = attention.model_copy(update={"scale_squared": Fraction(1, 4)})
    a, b = head_factors(head, facts, radius=arb(4), deviation=Fraction(0))
    # sigma = 1/2: kap = (2*4 + 1)/2 = 4.5, a = sqrt(1 + 18^2), b = 2*16/2.
    assert float(a) == pytest.approx(math.sqrt(325))
    assert float(b) == pytest.approx(16)


def test_factors_under_rotary_positions_in_closed_form(tmp_path):
    attention = facts_of(make("llama", tmp_path)).blocks[0].attention
    head = attention.heads[0].model_copy(
        update={"query": 2, "key": 3, "query_bias": 1, "key_bias": 5}
    )
    facts = attention.model_copy(update={"scale_squared": Fraction(1, 4)})
    a, b = head_factors(head, facts, radius=arb(4), deviation=Fraction(0))
    # q_bar = 9, k_bar = 17: a = 1 + 1/2*4*3*9, b = 1/2*4*2*17.
    assert float(a) == pytest.approx(55)
    assert float(b) == pytest.approx(68)


def test_queries_that_are_normalised(tmp_path):
    attention = facts_of(make("gemma3", tmp_path)).blocks[0].attention
    norm = attention.query_norm.model_copy(update={"eps": Fraction(1, 4), "gain": 3})
    head = attention.heads[0].model_copy(update={"query": 2, "key": 5})
    facts = attention.model_copy(
        update={"scale_squared": Fraction(1), "head_dim": 4, "query_norm": norm, "key_norm": norm}
    )
    a, b = head_factors(head, facts, radius=arb(4), deviation=Fraction(0))
    # |q| <= sqrt(4)*3 = 6, lip_k = 5*3/(1/2) = 30: a = 1 + 4*30*6; b = 4*12*6.
    assert float(a) == pytest.approx(721)
    assert float(b) == pytest.approx(288)


def test_a_gated_layer_stays_below_its_factor(tmp_path):
    directory = make("llama", tmp_path)
    facts = facts_of(directory)
    (block,) = open_checkpoint(directory, name="tiny").blocks
    factor = float(feed_forward_factor(facts.blocks[0].feed_forward).upper())
    generator = np.random.default_rng(1)
    gain, worst = block.feed_forward_norm.gain, 0.0
    for _ in range(200):
        z = generator.normal(size=16)
        z *= 4 / np.linalg.norm(z)
        step = 1e-6 * generator.normal(size=16)
        change = np.subtract(
            *(
                block_forward.feed_forward((z + t * step)[None] * gain, block.feed_forward)
                for t in (1, -1)
            )
        )
        worst = max(worst, np.linalg.norm(change) / (2 * np.linalg.norm(step)))
    assert worst <= factor <= 100 * worst


def test_values_of_zero_leave_a_constant(tmp_path):
    facts = facts_of(make("llama", tmp_path))
    block = facts.blocks[0]
    still = block.attention.model_copy(update={"output": 0})
    none = facts.model_copy(update={"blocks": (block.model_copy(update={"attention": still}),)})
    assert log10(none) < -290


def test_no_eps_is_no_norm():
    with pytest.raises(ValueError, match="above 0"):
        NormFacts(eps=0, gain=1)


def test_the_rounding_of_a_gain_and_of_a_product_is_covered():
    """Two roundings are off by up to (1 + u)^2 - 1 = 2 u + u^2, which 2^-52 alone is below."""
    unit = Fraction(1, 2**53)
    assert Fraction(_ROUNDING) >= (1 + unit) ** 2 - 1
