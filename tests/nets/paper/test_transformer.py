"""Laws of the papers' transformer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from promptlimits.base.errors import UserError
from promptlimits.nets.paper.layers import PaperNorm
from promptlimits.nets.paper.transformer import PaperTransformer, from_weights, to_weights
from promptlimits.nets.paper.weights import random_weights

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def model(*, masked=False, layers=2, seed=0, hidden=5):
    sizes = {"dim": 4, "heads": 2, "head_dim": 3, "hidden": hidden, "layers": layers}
    generator = np.random.default_rng(seed)
    return from_weights(random_weights(**sizes, generator=generator, masked=masked, biases=True))


def normed(kind, place, *, masked=False):
    plain = model(masked=masked, seed=3)
    draws = torch.Generator().manual_seed(1)

    def norm():
        weight, bias = torch.randn(2, 4, generator=draws, dtype=torch.float64)
        return PaperNorm(
            kind=kind, weight=weight, bias=bias if kind == "layer" else None, epsilon=1e-5
        )

    layers = tuple(replace(layer, attention_norm=norm(), mlp_norm=norm()) for layer in plain.layers)
    return PaperTransformer(layers=layers, masked=masked, norm_place=place)


def tokens(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_masked_token_depends_on_those_before_it_only():
    """Definition 2.14: f^m(X)_i = f([X_1, ..., X_i])_i, for the whole stack."""
    masked, x = model(masked=True), tokens(4, 6)
    whole = masked(x)
    for i in range(1, 7):
        torch.testing.assert_close(masked(x[:, :i])[:, -1], whole[:, i - 1], **EXACT)


def test_the_last_token_of_one_masked_layer_sees_all():
    free, x = model(layers=1), tokens(4, 6)
    torch.testing.assert_close(replace(free, masked=True)(x)[:, -1], free(x)[:, -1], **EXACT)
    assert not torch.allclose(replace(free, masked=True)(x)[:, 0], free(x)[:, 0])


def test_without_mask_and_positions_it_commutes_with_permutations():
    free, x = model(), tokens(4, 6)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(free(x[:, order]), free(x)[:, order], **EXACT)
    masked = model(masked=True)
    assert not torch.allclose(masked(x[:, order]), masked(x)[:, order])


@pytest.mark.parametrize("masked", [False, True])
def test_a_batch_is_its_members(masked):
    tau, x = model(masked=masked), tokens(3, 4, 5)
    expected = torch.stack([tau(member) for member in x])
    torch.testing.assert_close(tau(x), expected, **EXACT)
    torch.testing.assert_close(torch.func.vmap(tau)(x), expected, **EXACT)


@pytest.mark.parametrize("prompt_tokens", [0, 1, 3])
def test_what_a_prompt_gives_are_the_last_columns(prompt_tokens):
    tau, prompts, queries = model(masked=True), tokens(3, 4, prompt_tokens), tokens(2, 4, 5, seed=1)
    found = tau.with_prompt(prompts, queries)
    assert found.shape == (3, 2, 4, 5)
    for prompt, row in zip(prompts, found, strict=True):
        torch.testing.assert_close(tau.with_prompt(prompt, queries), row, **EXACT)
        for query, one in zip(queries, row, strict=True):
            whole = tau(torch.cat([prompt, query], dim=1))
            torch.testing.assert_close(one, whole[:, prompt_tokens:], **EXACT)
            torch.testing.assert_close(tau.with_prompt(prompt, query), one, **EXACT)


def test_its_derivative_is_right_and_no_tensor_is_changed():
    tau, x = model(masked=True), tokens(4, 3).requires_grad_()
    before = x.detach().clone()
    assert torch.autograd.gradcheck(tau, (x,))
    assert torch.equal(x.detach(), before)
    assert torch.func.jacrev(tau)(before).shape == (4, 3, 4, 3)


def test_positions_are_added_to_the_columns_of_the_input():
    plain, x, positions = model(), tokens(4, 5), tokens(4, 7, seed=2)
    placed = replace(plain, positions=positions)
    torch.testing.assert_close(placed(x), plain(x + positions[:, :5]), **EXACT)
    with pytest.raises(UserError, match="at most 7"):
        placed(tokens(4, 8))


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_a_norm_is_that_of_torch(kind):
    norm = normed(kind, "pre").layers[0].attention_norm
    x = tokens(2, 4, 5)
    rows = x.transpose(-1, -2)
    if kind == "layer":
        expected = functional.layer_norm(rows, (4,), norm.weight, norm.bias, norm.epsilon)
    else:
        expected = functional.rms_norm(rows, (4,), norm.weight, norm.epsilon)
    torch.testing.assert_close(norm(x), expected.transpose(-1, -2), **EXACT)


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_norms_stand_before_or_after_each_block(kind):
    def plain_attention(layer, seen):
        bare = replace(
            layer,
            attention_norm=None,
            mlp_norm=None,
            w1=torch.zeros(0, 4, dtype=torch.float64),
            b1=torch.zeros(0, dtype=torch.float64),
            w2=torch.zeros(4, 0, dtype=torch.float64),
            b2=torch.zeros(4, dtype=torch.float64),
        )
        return PaperTransformer(layers=(bare,))(seen) - seen

    def plain_mlp(layer, seen):
        hidden = torch.relu(layer.w1 @ seen + layer.b1[:, None])
        return layer.w2 @ hidden + layer.b2[:, None]

    x = tokens(4, 5)
    before, after = normed(kind, "pre"), normed(kind, "post")
    y = z = x
    for layer in before.layers:
        first, second = layer.attention_norm, layer.mlp_norm
        y = y + plain_attention(layer, first(y))
        y = y + plain_mlp(layer, second(y))
        z = first(z + plain_attention(layer, z))
        z = second(z + plain_mlp(layer, z))
    torch.testing.assert_close(before(x), y, **EXACT)
    torch.testing.assert_close(after(x), z, **EXACT)


def test_float32_is_near_float64():
    tau, x = model(), tokens(4, 5)
    single = tau.to(torch.float32)
    assert single.dtype == torch.float32
    # 2^-24 on each of some hundred operations.
    torch.testing.assert_close(single(x.float()).double(), tau(x), rtol=1e-4, atol=1e-5)
    assert not torch.equal(single(x.float()).double(), tau(x))
    assert torch.equal(
        normed("layer", "post").to(torch.float32)(x.float()).isfinite().all(), torch.tensor(True)
    )


def test_weights_go_back_and_forth_exactly():
    weights = to_weights(model(masked=True, hidden=3))
    assert to_weights(from_weights(weights)).sha256() == weights.sha256()
    drawn = random_weights(dim=3, heads=1, head_dim=2, generator=np.random.default_rng(1))
    assert to_weights(from_weights(drawn)).sha256() == drawn.sha256()
    for unlike in (normed("rms", "pre"), replace(model(), positions=tokens(4, 2))):
        with pytest.raises(UserError, match="neither normalisation nor"):
            to_weights(unlike)
    smooth = [replace(layer, activation="gelu") for layer in model().layers]
    with pytest.raises(UserError, match=r"ReLU.*got GELU"):
        to_weights(replace(model(), layers=tuple(smooth)))


def test_what_does_not_fit_is_said():
    tau = model()
    first = tau.layers[0]
    with pytest.raises(UserError, match="columns of 4 numbers"):
        tau(tokens(5, 3))
    with pytest.raises(UserError, match="have a layer"):
        PaperTransformer(layers=())
    with pytest.raises(UserError, match=r"layers\.0\.activation must be relu or gelu"):
        PaperTransformer(layers=(replace(first, activation="tanh"),))
    with pytest.raises(UserError, match=r"layers\.0\.w1 must be finite"):
        PaperTransformer(layers=(replace(first, w1=first.w1 * float("nan")),))
    with pytest.raises(UserError, match=r"layers\.0\.b1 must have shape \(5,\)"):
        PaperTransformer(layers=(replace(first, b1=first.b1[:-1]),))
    wrong = replace(first.heads[0], key=first.heads[0].key[:, :-1])
    with pytest.raises(UserError, match=r"heads\.0\.key must have shape"):
        PaperTransformer(layers=(replace(first, heads=(wrong,)),))
    with pytest.raises(UserError, match="norm_place is 'pre' or 'post'"):
        PaperTransformer(layers=tau.layers, norm_place="pre")
    broken = normed("layer", "pre").layers[0]
    assert broken.mlp_norm is not None
    bare = replace(broken, mlp_norm=replace(broken.mlp_norm, bias=None))
    with pytest.raises(UserError, match="'layer' with a bias or 'rms' without"):
        PaperTransformer(layers=(bare,), norm_place="pre")
