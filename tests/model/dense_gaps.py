"""EM over rows with gaps, row by row and component by component: the oracle of the kernels."""

import numpy as np
from scipy.stats import multivariate_normal


def matrices(kind, covariances, k, d):
    """Covariances (K, D, D)."""
    eye = np.eye(d)
    return {
        "full": lambda: covariances,
        "tied": lambda: np.broadcast_to(covariances, (k, d, d)),
        "diag": lambda: covariances[:, :, None] * eye,
        "spherical": lambda: covariances[:, None, None] * eye,
    }[kind]()


def posterior(X, weights, means, full):
    """Joint log-densities (n, K), completed rows (n, K, D) and covariances (n, K, D, D)."""
    n, k, d = len(X), *means.shape
    joint, rows, spread = np.empty((n, k)), np.empty((n, k, d)), np.zeros((n, k, d, d))
    for i, x in enumerate(X):
        o, m = ~np.isnan(x), np.isnan(x)
        for j in range(k):
            S, mu = full[j], means[j]
            B = S[np.ix_(m, o)] @ np.linalg.inv(S[np.ix_(o, o)])
            joint[i, j] = np.log(weights[j]) + multivariate_normal(mu[o], S[np.ix_(o, o)]).logpdf(
                x[o]
            )
            rows[i, j, o], rows[i, j, m] = x[o], mu[m] + B @ (x[o] - mu[o])
            spread[i, j][np.ix_(m, m)] = S[np.ix_(m, m)] - B @ S[np.ix_(o, m)]
    return joint, rows, spread


def em_step(kind, X, weights, means, covariances, reg_covar, w=None):
    """One iteration: the log-likelihood before it, and the parameters after it."""
    k, d = means.shape
    joint, rows, spread = posterior(X, weights, means, matrices(kind, covariances, k, d))
    density = np.logaddexp.reduce(joint, axis=1)
    w = np.ones(len(X)) if w is None else w
    r = w[:, None] * np.exp(joint - density[:, None])
    mass = r.sum(axis=0)
    means = np.einsum("nk,nkd->kd", r, rows) / mass[:, None]
    off = rows - means
    scatter = np.einsum("nk,nkd,nke->kde", r, off, off) + np.einsum("nk,nkde->kde", r, spread)
    own = scatter / mass[:, None, None] + reg_covar * np.eye(d)
    covariances = {
        "full": own,
        "tied": scatter.sum(axis=0) / mass.sum() + reg_covar * np.eye(d),
        "diag": np.einsum("kdd->kd", own),
        "spherical": np.einsum("kdd->k", own) / d,
    }[kind]
    return w @ density, mass / mass.sum(), means, covariances
