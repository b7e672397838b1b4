"""Mixtures of every family as vectors without constraints, for oracles that differentiate."""

import numpy as np
from scipy.special import expit, logit

from streamgmm.model.mixture import Mixture


def _shares(p):
    """Logits of probabilities on the last axis, the first of which is zero."""
    return np.log(p[..., 1:] / p[..., :1])


def _probabilities(v):
    odds = np.exp(np.concatenate([np.zeros((*v.shape[:-1], 1)), v], axis=-1))
    return odds / odds.sum(axis=-1, keepdims=True)


def _lower(scales):
    chol = np.linalg.cholesky(scales)
    d = chol.shape[-1]
    at = np.tril_indices(d)
    out = chol[:, at[0], at[1]]
    diagonal = at[0] == at[1]
    out[:, diagonal] = np.log(out[:, diagonal])
    return out


def _scales(v, d):
    at = np.tril_indices(d)
    v = v.copy()
    diagonal = at[0] == at[1]
    v[:, diagonal] = np.exp(v[:, diagonal])
    chol = np.zeros((len(v), d, d))
    chol[:, at[0], at[1]] = v
    return chol @ chol.transpose(0, 2, 1)


def apart(components):
    """Arrays without constraints, each (K, ...)."""
    name, own = components.family.name, components.arrays()
    if name == "bernoulli":
        return [logit(own["probabilities"])]
    if name == "multinomial":
        return [_shares(own["probabilities"])]
    if name == "categorical":
        return [
            _shares(own["probabilities"][:, d, : len(levels)])
            for d, levels in enumerate(components.family.levels)
        ]
    if name == "lognormal":
        return [own["means"], np.log(own["scales"])]
    if name == "vonmisesfisher":
        return [own["directions"] * own["concentrations"][:, None]]
    if name == "student_t":
        tails = np.log(own["degrees_of_freedom"])[:, None]
        return [own["means"], _lower(own["scale_matrices"]), tails]
    return [np.log(value) for value in own.values()]


def together(family, arrays):
    """The components of such arrays."""
    name = family.name
    if name == "bernoulli":
        return family.of_parameters(expit(arrays[0]))
    if name == "multinomial":
        return family.of_parameters(_probabilities(arrays[0]))
    if name == "categorical":
        flat = np.concatenate([_probabilities(v) for v in arrays], axis=1)
        return family.components(probabilities=family.padded(flat))
    if name == "lognormal":
        return family.of_parameters(arrays[0], np.exp(arrays[1]))
    if name == "vonmisesfisher":
        kappa = np.linalg.norm(arrays[0], axis=1)
        return family.of_parameters(arrays[0] / kappa[:, None], kappa)
    if name == "student_t":
        means, lower, tails = arrays
        return family.of_parameters(means, _scales(lower, means.shape[1]), np.exp(tails[:, 0]))
    return family.of_parameters(*(np.exp(v) for v in arrays))


def pack(mixture):
    """A mixture as a vector, and a function that makes a mixture of one."""
    arrays = apart(mixture.components)
    shapes = [a.shape for a in arrays]
    ends = np.cumsum([a.size for a in arrays])
    k = len(mixture.weights)

    def unpack(v):
        parts = np.split(v[k - 1 :], ends[:-1])
        own = [p.reshape(s) for p, s in zip(parts, shapes, strict=True)]
        return Mixture(_probabilities(v[: k - 1]), together(mixture.family, own))

    return np.concatenate([_shares(mixture.weights), *(a.ravel() for a in arrays)]), unpack
