"""Slow twins for Lipschitz bounds: the layer from its definition, its exact Jacobian, norms.

Jacobians are by the complex step: f(x + i h v) has imaginary part h Df v + O(h^3) with no
cancellation, so at h = 1e-30 the derivative is exact to rounding.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
STEP = 1e-30


def attention_output(X, heads, masked):
    """Definition 2.1, query by query and head by head; X is (d, n), real or complex."""
    result = np.zeros_like(X)
    for i in range(X.shape[1]):
        seen = X[:, : i + 1] if masked else X
        for head in heads:
            logits = (head.key @ seen).T @ (head.query @ X[:, i])
            weights = np.exp(logits - logits.real.max())
            result[:, i] += head.output @ (head.value @ seen) @ (weights / weights.sum())
    return result


def mlp_output(X, layer):
    """Definition 2.2; the kink is decided by the real part."""
    inner = layer.w1 @ X + layer.b1[:, None]
    return layer.w2 @ np.where(inner.real > 0, inner, 0) + layer.b2[:, None] + X


def transformer_output(X, weights):
    """Definition 2.3, the first layer applied first."""
    for layer in weights.layers:
        X = mlp_output(X + attention_output(X, layer.heads, weights.masked), layer)
    return X


def jacobian(function, X):
    """(d_out, n_out, d, n) derivative of a map of matrices at a real point."""
    columns = []
    for a in range(X.shape[0]):
        for j in range(X.shape[1]):
            moved = X.astype(complex)
            moved[a, j] += 1j * STEP
            columns.append(np.asarray(function(moved)).imag / STEP)
    stacked = np.stack(columns, axis=-1)
    return stacked.reshape(*stacked.shape[:2], *X.shape)


def frobenius_operator_norm(J):
    """Largest stretch between Frobenius norms."""
    d, n, _, _ = J.shape
    return float(np.linalg.norm(J.reshape(d * n, -1), 2))


def token_operator_norm(J, generator, starts=4):
    """A lower limit on the stretch between token norms, by alternating maximisation per row."""
    best = 0.0
    for i in range(J.shape[1]):
        row = J[:, i]
        for _ in range(starts):
            u = generator.standard_normal(J.shape[0])
            for _ in range(20):
                pulled = np.einsum("a,abj->bj", u, row)
                e = pulled / np.maximum(np.linalg.norm(pulled, axis=0), 1e-300)
                u = np.einsum("abj,bj->a", row, e)
            best = max(best, float(np.linalg.norm(u)))
    return best


def token_clouds(d, n, radius, generator):
    """Random, boundary, clustered, tied and antipodal tokens of the ball."""
    cloud = generator.standard_normal((d, n))
    edge = cloud / np.linalg.norm(cloud, axis=0)
    axis = edge[:, :1]
    signs = np.where(np.arange(n) % 2, 1.0, -1.0)
    near = axis + 0.05 * generator.standard_normal((d, n))
    return {
        "inside": radius * edge * generator.uniform(0, 1, n),
        "boundary": radius * edge,
        "clustered": radius * near / np.maximum(np.linalg.norm(near, axis=0), 1),
        "tied": radius * np.repeat(axis, n, axis=1),
        "antipodal": radius * axis * signs,
    }
