"""A transformer computed from block descriptions alone, one number type: float64 numpy.

Tokens are rows. Written from the formulas of `nets.block`; it shares no code
with the models that it is compared with.
"""

import math

import numpy as np
from scipy.special import erf

ACTIVATIONS = {
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
}


def normalise(x, norm):
    """gain * N(x) + bias."""
    if norm is None:
        return x
    centred = x - x.mean(axis=-1, keepdims=True) if norm.kind == "layer" else x
    z = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + float(norm.eps))
    return z * (norm.offset + norm.gain) + (0 if norm.bias is None else norm.bias)


def _turn(x, rotary):
    """Rotary positions of one head, x of shape (tokens, s)."""
    width = rotary.width
    frequencies = rotary.theta ** (-np.arange(0, width, 2) / width)
    angles = np.outer(np.arange(len(x)), frequencies)
    left, right, rest = x[:, : width // 2], x[:, width // 2 : width], x[:, width:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([left * cos - right * sin, right * cos + left * sin, rest], axis=1)


def _plus(x, bias, index=None):
    return x if bias is None else x + (bias if index is None else bias[index])


def attend(x, weights):
    """The attention sublayer."""
    tokens, shared = len(x), len(weights.query) // len(weights.key)
    rows, columns = np.arange(tokens)[:, None], np.arange(tokens)[None, :]
    seen = columns <= rows if weights.causal else np.ones((tokens, tokens), bool)
    if weights.window is not None:
        seen &= columns > rows - weights.window
    total = np.zeros_like(x)
    for head in range(len(weights.query)):
        group = head // shared
        q = normalise(
            _plus(x @ weights.query[head].T, weights.query_bias, head), weights.query_norm
        )
        k = normalise(_plus(x @ weights.key[group].T, weights.key_bias, group), weights.key_norm)
        v = _plus(x @ weights.value[group].T, weights.value_bias, group)
        if weights.rotary is not None:
            q, k = _turn(q, weights.rotary), _turn(k, weights.rotary)
        logits = np.where(seen, q @ k.T * math.sqrt(weights.scale_squared), -np.inf)
        share = np.exp(logits - logits.max(axis=1, keepdims=True))
        total = total + share / share.sum(axis=1, keepdims=True) @ v @ weights.output[head].T
    return _plus(total, weights.output_bias)


def feed_forward(x, weights):
    """The feed-forward sublayer."""
    act = ACTIVATIONS[weights.activation]
    up = _plus(x @ weights.up.T, weights.up_bias)
    if weights.gate is None:
        return _plus(act(up) @ weights.down.T, weights.down_bias)
    gate = _plus(x @ weights.gate.T, weights.gate_bias)
    return _plus((act(gate) * up) @ weights.down.T, weights.down_bias)


def run_block(x, block):
    """One block."""
    if block.arrangement == "post":
        y = normalise(x + attend(x, block.attention), block.attention_norm)
        return normalise(y + feed_forward(y, block.feed_forward), block.feed_forward_norm)
    attended = attend(normalise(x, block.attention_norm), block.attention)
    y = x + normalise(attended, block.attention_post_norm)
    seen = x if block.arrangement == "parallel" else y
    fed = feed_forward(normalise(seen, block.feed_forward_norm), block.feed_forward)
    return y + normalise(fed, block.feed_forward_post_norm)


def hidden_states(x, checkpoint):
    """All hidden states from inputs (tokens, D) to which positions are added already."""
    x = normalise(x, checkpoint.entry_norm)
    for block in checkpoint.blocks:
        x = run_block(x, block)
    return normalise(x, checkpoint.final_norm)
