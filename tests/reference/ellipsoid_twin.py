"""The ellipsoid recursion once more, in plain floats, and the transformer with its Jacobian."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def forward(weights, tokens):
    """Definitions 2.1 to 2.3, column by column."""
    for layer in weights.layers:
        tokens = _mlp(layer, _attention(layer, tokens, masked=weights.masked))
    return tokens


def _seen(tokens, column, masked):
    return tokens[:, : column + 1] if masked else tokens


def _softmax(logits):
    raised = np.exp(logits - logits.max())
    return np.asarray(raised / raised.sum())


def _attention(layer, tokens, *, masked):
    out = tokens.copy()
    for column in range(tokens.shape[1]):
        keys = _seen(tokens, column, masked)
        for head in layer.heads:
            shares = _softmax((head.key @ keys).T @ (head.query @ tokens[:, column]))
            out[:, column] += head.output @ (head.value @ (keys @ shares))
    return out


def _mlp(layer, tokens):
    inner = np.maximum(layer.w1 @ tokens + layer.b1[:, None], 0)
    return np.asarray(tokens + layer.w2 @ inner + layer.b2[:, None])


def jacobian(weights, tokens):
    """d outputs / d inputs, (d, n, d, n), from the quotient rule of softmax, layer by layer."""
    dim, count = tokens.shape
    total = np.eye(dim * count).reshape(dim, count, dim, count)
    for layer in weights.layers:
        own = np.eye(dim * count).reshape(dim, count, dim, count).copy()
        for i in range(count):
            keys = _seen(tokens, i, weights.masked)
            for head in layer.heads:
                score, value = head.key.T @ head.query, head.output @ head.value
                shares = _softmax(keys.T @ score @ tokens[:, i])
                for j in range(keys.shape[1]):
                    # d logit_j / d x_j = A x_i, and d share_k = share_k (d logit_k - mean)
                    centred = keys[:, j] - keys @ shares
                    moved = np.eye(dim) + np.outer(centred, score @ tokens[:, i])
                    own[:, i, :, j] += shares[j] * value @ moved
                    own[:, i, :, i] += shares[j] * value @ np.outer(centred, score.T @ keys[:, j])
        total = np.einsum("aibj,bjck->aick", own, total)
        middle = _attention(layer, tokens, masked=weights.masked)
        open_ = (layer.w1 @ middle + layer.b1[:, None] > 0).astype(float)
        for i in range(count):
            slope = np.eye(dim) + layer.w2 @ (open_[:, i, None] * layer.w1)
            total[:, i] = np.einsum("ab,bck->ack", slope, total[:, i])
        tokens = _mlp(layer, middle)
    return total


def token_points(dim, count, generator):
    """Points with tokens of length at most 1: boundary, inside, tied, clustered, opposite."""
    for _ in range(2):
        sphere = generator.standard_normal((dim, count))
        sphere /= np.linalg.norm(sphere, axis=0)
        yield sphere
        yield sphere * generator.random(count)
        yield np.repeat(sphere[:, :1], count, axis=1)
        yield sphere[:, :1] * np.where(np.arange(count) % 2, 1.0, -1.0)
        near = sphere[:, :1] + 0.05 * generator.standard_normal((dim, count))
        yield near / np.maximum(np.linalg.norm(near, axis=0), 1)
        orthogonal = sphere.copy()
        orthogonal[:, 1::2] = -orthogonal[:, ::2][:, : count // 2]
        yield orthogonal
    yield np.zeros((dim, count))


def twin_log_bound(weights, radius, choices, *, prompt_only):
    """log of the bound at given free numbers: matrices Q and plain inverses, as in the proof."""
    dim = weights.dim
    tokens, change, query = radius**2 * np.eye(dim), np.eye(dim), np.zeros((dim, dim))
    center = np.zeros(dim)
    for layer, choice in zip(weights.layers, choices, strict=True):
        if choice.query is not None:
            query = _after(layer, choice.query, tokens, change, query, center)
        change, tokens = (
            _after(layer, choice.change, tokens, change, change, center),
            _tokens_after(layer, choice.tokens, tokens),
        )
        center = center + sum(value @ center for _, value in _maps(layer))
        center = center + layer.w2 @ np.maximum(layer.w1 @ center + layer.b1, 0) + layer.b2
    read = query if prompt_only else change
    return math.log(np.linalg.eigvalsh(read)[-1]) / 2


def _maps(layer):
    return [(head.key.T @ head.query, head.output @ head.value) for head in layer.heads]


def _root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)


def _after(layer, step, tokens, change, own, center):
    dim = len(tokens)
    moving, middle, rest = np.eye(dim), step.own * np.eye(dim), np.zeros((dim, dim))
    root = _root(own)
    for (score, value), weight, turn in zip(_maps(layer), step.heads, step.turns, strict=True):
        pulled = _root(change) @ score
        length = np.linalg.norm(pulled @ _root(tokens), 2) + np.linalg.norm(pulled @ center)
        rest += value @ tokens @ value.T / turn
        rest += value @ (change + length**2 * tokens) @ value.T / weight
        moving += value @ tokens @ score / 2
        middle -= turn / 4 * root @ score.T @ tokens @ score @ root
    moved = moving @ root
    return _feed_forward(layer, step, moved @ np.linalg.inv(middle) @ moved.T + rest)


def _tokens_after(layer, step, tokens):
    total = tokens / step.own
    for (_, value), weight in zip(_maps(layer), step.heads, strict=True):
        total = total + value @ tokens @ value.T / weight
    return _feed_forward(layer, step, total)


def _feed_forward(layer, step, known):
    if layer.hidden == 0:
        return known
    reaches = np.array(step.reaches)
    root = _root(known)
    seen = (layer.w1 / reaches[:, None]) @ root
    moved = root + layer.w2 @ layer.w1 @ root / 2
    middle = np.eye(len(known)) - seen.T @ seen / 4
    wide = layer.w2 * reaches
    return np.asarray(moved @ np.linalg.inv(middle) @ moved.T + wide @ wide.T)
