"""Gates and norms against autograd."""

from typing import get_args

import pytest
import torch

from promptlimits.nets.decoder.linear import Activation, ActivationName, Norm, SavedTensors

NAMES = get_args(ActivationName)


def normal(*size, seed):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_a_gate_gives_the_product_and_both_factors_of_its_way_back(name, scale):
    activation = Activation(name)
    gate = (scale * normal(50, 7, seed=0)).requires_grad_(True)
    up = normal(50, 7, seed=1).requires_grad_(True)
    weights = normal(50, 7, seed=2)
    expected = activation.forward(gate) * up
    in_gate, in_up = torch.autograd.grad((weights * expected).sum(), (gate, up))
    product, value, slope = activation.gate(gate.detach().clone(), up.detach().clone())
    torch.testing.assert_close(product, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(weights * value, in_up, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(weights * slope, in_gate, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_gate_in_16_bits_is_that_of_stock_code(name):
    activation, dtype = Activation(name), torch.bfloat16
    gate, up = normal(50, 7, seed=0).to(dtype), normal(50, 7, seed=1).to(dtype)
    product, value, slope = activation.gate(gate.clone(), up.clone())
    assert torch.equal(value, activation.forward(gate))
    assert torch.equal(product, activation.forward(gate) * up)
    assert torch.equal(slope, activation.backward(up, gate))


@pytest.mark.parametrize(("gain", "shift"), [(True, False), (False, False), (True, True)])
@pytest.mark.parametrize("beside", [True, False])
def test_a_norm_goes_back_as_autograd_does(gain, shift, beside):
    x, gradient = normal(5, 8, seed=0).requires_grad_(True), normal(5, 8, seed=1)
    weight = normal(8, seed=2) if gain else None
    bias = normal(8, seed=3) if shift else None
    norm, saved = Norm(weight=weight, bias=bias, epsilon=0.1), SavedTensors()
    centred = x - x.mean(dim=1, keepdim=True) if shift else x
    unit = centred * (centred.square().mean(dim=1, keepdim=True) + 0.1).rsqrt()
    expected = unit * (1.0 if weight is None else weight) + (0.0 if bias is None else bias)
    (back,) = torch.autograd.grad((expected * gradient).sum(), x)
    plus, kept = normal(5, 8, seed=4) if beside else None, gradient.clone()
    if plus is not None:
        back = back + plus
    found = norm.forward(x.detach(), saved)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm.backward(gradient, saved, plus), back, rtol=1e-12, atol=1e-12)
    assert torch.equal(gradient, kept)
