"""Extreme deconvolution in twenty lines, dense: Bovy, Hogg & Roweis 2011, eqs. 12-17."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp


def posterior(X, S, weights, means, full):
    """Log-densities (n,), responsibilities (n, K), and b (n, K, D) and B (n, K, D, D)."""
    total = full + S[:, None]
    inverse = np.linalg.inv(total)
    off = X[:, None] - means
    square = np.einsum("nki,nkij,nkj->nk", off, inverse, off)
    log_det = np.linalg.slogdet(2 * np.pi * total)[1]
    joint = np.log(weights) - 0.5 * (square + log_det)
    log_density = logsumexp(joint, axis=1)
    gain = np.einsum("kij,nkjl->nkil", full, inverse)
    b = means + np.einsum("nkij,nkj->nki", gain, off)
    B = full - np.einsum("nkij,kjl->nkil", gain, full)
    return log_density, np.exp(joint - log_density[:, None]), b, B


def step(X, S, weights, means, full, w=None):
    """One step of EM from rows X (n, D) with noise S (n, D, D): weights, means, covariances."""
    _, resp, b, B = posterior(X, S, weights, means, full)
    resp = resp if w is None else resp * w[:, None]
    mass = resp.sum(axis=0)
    means = np.einsum("nk,nki->ki", resp, b) / mass[:, None]
    off = b - means
    scatter = np.einsum("nk,nki,nkj->kij", resp, off, off) + np.einsum("nk,nkij->kij", resp, B)
    return mass / mass.sum(), means, scatter / mass[:, None, None]


def matrices(variances):
    """Independent noise as covariance matrices."""
    return variances[:, :, None] * np.eye(variances.shape[1])


def restricted(kind, weights, full):
    """Covariances that a kind allows, as matrices: what the M-step of that kind makes of them."""
    d = full.shape[1]
    if kind == "tied":
        return np.broadcast_to(np.tensordot(weights, full, 1), full.shape)
    if kind == "full":
        return full
    diagonal = np.einsum("kdd->kd", full)
    if kind == "spherical":
        diagonal = np.repeat(diagonal.mean(axis=1, keepdims=True), d, axis=1)
    return diagonal[:, :, None] * np.eye(d)
