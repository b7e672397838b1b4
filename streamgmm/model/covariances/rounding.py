"""How far rounding can move a log-density: the stated bound of the posterior's kernels.

With u = 2⁻⁵³, d = x - μ, s_i = √Σ_ii, A the Cholesky factor of the precision and z = dA, the
squared distance q = |z|² is computed to within

    (D+2)u (Σ_i s_i |Σ⁻¹d|_i)²                          factorisation of Σ
    + 2|z|·e + |e|²,  e = (D+3)u |d||A| (I + |A⁻¹||A|)  inverse of the factor, product with it
    + (D+2)u q                                          sum of squares

and ½ log|Σ| to within ½(D+2)u Σ_ij |Σ⁻¹|_ij s_i s_j and the rounding of its logarithms
(Higham 2002, "Accuracy and Stability of Numerical Algorithms", theorems 10.5, 8.10, 3.5). The
bound is free of the offset of the data and of the scale of each feature; what remains is the
condition of the correlation matrix, which no algorithm that is given Σ in float64 escapes. In
the diagonal kinds only the sum of squares is left. Where the tied kind takes |z|², z·ν and
|ν|² apart, z and ν from the mixture's centre, their sums add (D+6)u (|z| + |ν|)².
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from streamgmm.model.covariances.base import Covariance, Parameters
from streamgmm.model.covariances.tied import shares_products
from streamgmm.model.moments import Floats

U = 2.0**-53


def log_density_error(covariance: Covariance, model: Parameters, X: NDArray[Any]) -> Floats:
    """Bound on the error of `Mixture.posterior`'s log-density of each row, in nats (n,)."""
    k, d = model.means.shape
    log_prob = np.empty((len(X), k))
    error = np.zeros((len(X), k))
    together = covariance.shared and shares_products(model)
    diagonal = not covariance.matrices
    covariances = covariance.expand(model.covariances, k, d)
    for j in range(k):
        gap = X.astype(np.float64) - model.means[j]
        if diagonal:
            A = np.diag(1.0 / np.sqrt(np.diagonal(covariances[j])))
        else:
            A = covariance.precisions_cholesky(
                covariances[j][None] if not covariance.shared else covariances[j]
            )
            A = A.reshape(d, d)
        z = gap @ A
        q = np.einsum("nd,nd->n", z, z)
        log_prob[:, j] = model.log_constants[j] - 0.5 * q
        reach = np.abs(gap)
        logs = np.abs(np.log(np.diagonal(A)))
        constant = 4 * U * (abs(np.log(model.weights[j])) + d + logs.sum())
        if diagonal:
            error[:, j] = 0.5 * (d + 10) * U * q + constant
        else:
            s = np.sqrt(np.diagonal(covariances[j]))
            factor = (d + 2) * U * (np.abs(z @ A.T) @ s) ** 2
            growth = np.eye(d) + np.abs(np.linalg.inv(A)) @ np.abs(A)
            e = (d + 3) * U * (reach @ np.abs(A)) @ growth
            if together:
                row, mean = X - model.centre, model.means[j] - model.centre
                e += (d + 3) * U * (np.abs(row) + np.abs(mean)) @ np.abs(A)
                norms = np.linalg.norm(row @ A, axis=1) + np.linalg.norm(mean @ A)
                error[:, j] = 0.5 * (d + 6) * U * norms**2
            product = 2 * np.einsum("nd,nd->n", np.abs(z), e) + np.einsum("nd,nd->n", e, e)
            error[:, j] += 0.5 * (factor + product + (d + 2) * U * q)
            error[:, j] += constant + 0.5 * (d + 2) * U * (s @ np.abs(A @ A.T) @ s)
        error[:, j] += 4 * U * np.abs(log_prob[:, j])
    centre = logsumexp(log_prob, axis=1)
    above = logsumexp(log_prob + error, axis=1) - centre
    below = centre - logsumexp(log_prob - error, axis=1)
    return np.asarray(np.maximum(above, below) + (k + 8) * U * (1 + np.abs(centre)))
