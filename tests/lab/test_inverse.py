"""Inverses of certified transformers, and searches for what a certificate forbids."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from tests.lipschitz.invertibility_cases import linear_layer, random_case, stack, turned

from promptlimits.base.errors import UserError
from promptlimits.lab.errata.measures import trap
from promptlimits.lab.inverse import invert, proved_error_limit
from promptlimits.lipschitz.balls.forward import evaluation_size, proved_distance
from promptlimits.lipschitz.paper.invertibility import certify_invertible
from promptlimits.lipschitz.paper.prompt_norm_limit import prompt_norm_limit
from promptlimits.nets.paper.transformer import from_weights, to_weights
from promptlimits.nets.paper.weights import random_weights

MODELS = 208


def tokens(seed, shape, length):
    drawn = np.random.default_rng(seed).standard_normal(shape)
    return torch.tensor(drawn * length / np.linalg.norm(drawn, axis=-2, keepdims=True))


def certified(seed):
    """A random transformer whose weights are halved until X -> Y is proved one-to-one."""
    generator = np.random.default_rng(seed)
    size = {
        "dim": int(generator.integers(2, 7)),
        "heads": int(generator.integers(1, 3)),
        "head_dim": int(generator.integers(1, 5)),
        "hidden": int(generator.integers(0, 6)),
        "layers": 1 + seed % 4,
        "masked": bool(seed % 3 == 0),
    }
    scale = float(generator.uniform(0.1, 0.3))
    while True:
        weights = random_weights(
            **size, generator=np.random.default_rng(seed), scale=scale, biases=True
        )
        found = certify_invertible(weights, radius=1)
        if found.one_to_one and (found.masked or size["layers"] == 1 or found.deviation < 1):
            return weights, found
        scale *= 0.6


def test_at_least_200_random_certified_transformers_are_inverted():
    worst, largest_limit = 0.0, 0.0
    ways = set()
    for seed in range(MODELS):
        weights, certificate = certified(seed)
        model = from_weights(weights)
        prompt = tokens(seed + 1, (weights.dim, seed % 5), 0.99)
        inputs = tokens(seed + 2, (3, weights.dim, 1 + seed % 3), 0.99)
        outputs = model.with_prompt(prompt, inputs)
        found = invert(model, outputs, prompt=prompt, certificate=certificate)
        assert (found.status, found.reason) == ("converged", "")
        errors = (found.inputs - inputs).norm(dim=-2).amax(dim=-1)
        assert found.error_limits is not None
        # What the float evaluation of the outputs themselves lost, over the floor.
        lost = 1e-14 / float(certificate.floor)
        assert bool((errors <= found.error_limits + lost).all())
        worst = max(worst, float(errors.max()))
        if seed % 8 == 0:
            limit = proved_error_limit(
                model, outputs[0], found.inputs[0], prompt=prompt, certificate=certificate
            )
            assert limit is not None
            assert float(errors[0]) <= float(limit) + lost
            largest_limit = max(largest_limit, float(limit))
        ways.add(found.way)
    assert worst <= 1e-10
    assert largest_limit <= 1e-10
    assert ways == {"block by block", "jointly"}


def adversarial_ratio(model, radius, norm, *, prompt_tokens, columns):
    """The least ||Y - Y'||/||X - X'|| that a gradient search finds, prompt and both inputs free."""
    starts, dim = 16, model.dim
    generator = torch.Generator().manual_seed(0)
    count = prompt_tokens + 2 * columns
    free = torch.randn(starts, dim, count, generator=generator, dtype=torch.float64)
    # Half of the starts have inputs close to each other: a search for a flat direction.
    free[::2, :, -columns:] = free[::2, :, -2 * columns : -columns] + 1e-3 * free[::2, :, -columns:]
    free.requires_grad_(True)
    adam = torch.optim.Adam([free], lr=0.1)

    def length(x):
        per_token = x.square().sum(dim=-2).clamp_min(1e-30).sqrt()
        return per_token.amax(dim=-1) if norm == "token" else per_token.norm(dim=-1)

    best = float("inf")
    for _ in range(40):
        ball = radius * free / (1 + free.square().sum(dim=-2, keepdim=True)).sqrt()
        prompt, rest = ball[..., :prompt_tokens], ball[..., prompt_tokens:]
        first, second = rest[..., :columns], rest[..., columns:]
        outputs = [model(torch.cat([prompt, x], -1))[..., prompt_tokens:] for x in (first, second)]
        ratios = length(outputs[0] - outputs[1]) / length(first - second)
        best = min(best, float(ratios.detach().min()))
        adam.zero_grad()
        ratios.log().sum().backward()
        adam.step()
    return best


@pytest.mark.parametrize("norm", ["token", "frobenius"])
@pytest.mark.parametrize("seed", range(5))
def test_certificates_survive_a_search_for_close_outputs(seed, norm):
    layers, columns, masked = 1 + seed % 3, 1 + seed % 2, seed % 4 == 3
    weights = random_case(seed, layers=layers, scale=0.25 if layers < 3 else 0.2, masked=masked)
    edge = prompt_norm_limit(weights, norm=norm, tokens=2 + columns).value
    assert edge
    for share in (Fraction(1, 4), Fraction(9, 10)):
        found = certify_invertible(weights, radius=share * edge, norm=norm, tokens=2 + columns)
        assert found.one_to_one
        ratio = adversarial_ratio(
            from_weights(weights), float(found.radius), norm, prompt_tokens=2, columns=columns
        )
        assert ratio >= float(found.floor) * (1 - 1e-9)
        assert ratio >= 1 - float(found.deviation)


@pytest.mark.parametrize(("degrees", "layers"), [(20, 1), (20, 2), (12, 3), (8, 4)])
def test_certificates_of_turning_layers_survive(degrees, layers):
    """Where a prompt takes up what the input loses, as in the trap."""
    weights = stack(*[linear_layer(turned(degrees))] * layers)
    found = certify_invertible(weights, radius=1)
    assert found.one_to_one
    ratio = adversarial_ratio(from_weights(weights), 1.0, "token", prompt_tokens=1, columns=1)
    assert ratio >= float(found.floor) * (1 - 1e-9)


def test_the_a_posteriori_limit_holds_at_every_step():
    weights, certificate = certified(5)
    model = from_weights(weights)
    prompt, inputs = tokens(0, (weights.dim, 2), 0.9), tokens(1, (4, weights.dim, 2), 0.9)
    outputs = model.with_prompt(prompt, inputs)
    errors = []
    for steps in (1, 2, 4, 8):
        found = invert(
            model, outputs, prompt=prompt, certificate=certificate, most_steps=steps, tolerance=1e-9
        )
        assert found.error_limits is not None
        apart = (found.inputs - inputs).norm(dim=-2).amax(dim=-1)
        assert bool((apart <= found.error_limits + 1e-13).all())
        errors.append(float(apart.max()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-3
    early = invert(model, outputs, prompt=prompt, certificate=certificate, most_steps=1)
    assert early.status == "failed"
    assert "away from the outputs" in early.reason
    assert "more of them may help" in early.reason
    assert "no input" not in early.reason


def test_a_batch_is_a_loop_of_singles():
    weights, certificate = certified(6)
    model = from_weights(weights)
    prompt, inputs = tokens(0, (weights.dim, 2), 0.9), tokens(1, (4, weights.dim, 2), 0.9)
    outputs = model.with_prompt(prompt, inputs)
    together = invert(model, outputs, prompt=prompt, certificate=certificate)
    for one, expected in zip(outputs, together.inputs, strict=True):
        alone = invert(model, one, prompt=prompt, certificate=certificate)
        assert alone.inputs.shape == one.shape
        assert float((alone.inputs - expected).abs().max()) < 1e-14


def test_all_outputs_invert_the_trap_and_its_part_does_not():
    model = trap()
    certificate = certify_invertible(to_weights(model), radius=4)
    prompt, inputs = tokens(0, (2, 1), 2.0), tokens(1, (3, 2, 1), 2.0)
    part = invert(model, model.with_prompt(prompt, inputs), prompt=prompt, certificate=certificate)
    assert (part.status, part.error_limits) == ("found", None)
    assert "with only the prompt fixed" in part.reason
    assert float((part.inputs - inputs).abs().max()) > 0.1
    together = torch.cat([prompt.expand_as(inputs), inputs], dim=-1)
    whole = invert(model, model(together), prompt=prompt[:, :0], certificate=certificate)
    assert (whole.status, whole.way) == ("converged", "block by block")
    assert float((whole.inputs - together).abs().max()) < 1e-10


def test_a_constant_of_one_or_more_is_an_outcome():
    weights = stack(linear_layer(-1.5 * np.eye(2)))
    certificate = certify_invertible(weights, radius=1)
    outputs = tokens(0, (2, 2, 1), 0.3)
    found = invert(
        from_weights(weights),
        outputs,
        prompt=torch.zeros(2, 0, dtype=torch.float64),
        certificate=certificate,
    )
    assert found.status == "failed"
    assert "not below 1" in found.reason
    assert found.error_limits is None


def test_outputs_of_no_input_are_an_outcome():
    weights, certificate = certified(2)
    model = from_weights(weights)
    prompt = tokens(0, (weights.dim, 2), 0.9)
    outputs = 50 * tokens(1, (2, weights.dim, 2), 1.0)
    found = invert(model, outputs, prompt=prompt, certificate=certificate)
    assert found.status == "failed"
    assert "perhaps no input within the radius has them" in found.reason
    assert float(found.inputs.norm(dim=-2).max()) <= 1


def test_ball_arithmetic_agrees_with_floats():
    for masked in (False, True):
        weights = random_case(4, layers=3, masked=masked, scale=1.0)
        columns, other = tokens(0, (4, 5), 1.5), tokens(1, (4, 2), 1.0)
        apart = from_weights(weights)(columns)[:, -2:] - other
        for norm, expected in (
            ("token", float(apart.norm(dim=0).max())),
            ("frobenius", float(apart.norm())),
        ):
            found = proved_distance(weights, columns.numpy(), other.numpy(), norm=norm)
            assert float(found) == pytest.approx(expected, rel=1e-12)


def test_what_converged_in_single_precision_is_not_called_proved():
    """Residuals of 0 in float32 hide what float32 lost: the proved limit shows it."""
    weights = random_case(0, layers=2, scale=0.1, dim=2)
    model = from_weights(weights, torch.float32)
    certificate = certify_invertible(to_weights(model), radius=1)
    prompt, hidden = tokens(0, (2, 2), 0.3).float(), 1
    zeros = 0
    for seed in range(20):
        inputs = tokens(hidden + seed, (2, 1), 0.3).float()
        outputs = model.with_prompt(prompt, inputs)
        found = invert(model, outputs, prompt=prompt, certificate=certificate)
        limit = proved_error_limit(
            model, outputs, found.inputs, prompt=prompt, certificate=certificate
        )
        assert found.status != "proved"
        if found.status == "converged":
            zeros += 1
            assert limit is not None
            assert limit > Fraction(1, 10**10)
    assert zeros > 0


def test_radii_beyond_the_floats():
    weights = random_case(0, layers=1, scale=0.1)
    model = from_weights(weights)
    prompt, inputs = tokens(0, (4, 2), 0.9), tokens(1, (4, 1), 0.9)
    outputs = model.with_prompt(prompt, inputs)
    certificate = certify_invertible(weights, radius=Fraction(10) ** 400)
    found = invert(model, outputs, prompt=prompt, certificate=certificate)
    assert found.status == "found"
    assert float((found.inputs - inputs).abs().max()) < 1e-9
    sizes = {"dim": 2, "heads": 1, "head_dim": 2, "hidden": 4, "layers": 60}
    generator = np.random.default_rng(0)
    deep = random_weights(**sizes, scale=1e6, masked=True, generator=generator)
    nothing = torch.zeros(2, 1, dtype=torch.float64)
    certificate = certify_invertible(deep, radius=Fraction(1, 10**60))
    assert invert(from_weights(deep), nothing, prompt=nothing, certificate=certificate).reason


def test_ball_arithmetic_refuses_long_prompts_at_once():
    weights = random_case(0, layers=1)
    with pytest.raises(UserError, match="at most 256 in ball arithmetic"):
        proved_distance(weights, np.zeros((4, 257)), np.zeros((4, 1)))
    assert evaluation_size(weights, 256) > 2 * 256**2
    assert proved_distance(weights, np.zeros((4, 256)), np.zeros((4, 1))) > 0


def test_bad_input():
    weights, certificate = certified(1)
    model = from_weights(weights)
    prompt, outputs = tokens(0, (weights.dim, 2), 0.9), tokens(1, (weights.dim, 2), 0.5)
    cases = [
        ({"outputs": outputs[:-1]}, "columns of"),
        ({"outputs": outputs.float()}, "columns of"),
        ({"outputs": torch.full_like(outputs, float("nan"))}, "finite"),
        ({"outputs": outputs[:, :0]}, "be there"),
        ({"prompt": 2 * prompt}, "within the radius 1"),
        ({"certificate": replace(certificate, weights_sha256="0")}, "about the weights"),
        ({"certificate": replace(certificate, norm="frobenius", tokens=9)}, "be 9"),
        ({"most_steps": 0}, "most_steps"),
        *(({"tolerance": t}, "tolerance") for t in (0.0, -1.0, float("nan"), float("inf"))),
    ]
    for change, words in cases:
        given = {"outputs": outputs, "prompt": prompt, "certificate": certificate} | change
        with pytest.raises(UserError, match=words):
            invert(model, given.pop("outputs"), **given)
    with pytest.raises(UserError, match="the inputs must have tokens within"):
        proved_error_limit(model, outputs, 3 * outputs, prompt=prompt, certificate=certificate)
