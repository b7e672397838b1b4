"""`MixtureModel`: a mixture of components of any family, for data of any size."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np

from streamgmm.errors import ParameterError
from streamgmm.estimators.batch import CONSTRAINTS, BatchMixture, Start
from streamgmm.estimators.rows import in_memory
from streamgmm.fitting.initial import of_responsibilities
from streamgmm.fitting.parameters import parse_responsibilities
from streamgmm.fitting.sample import check_suitable
from streamgmm.fitting.settings import FitSettings
from streamgmm.model.components import Family
from streamgmm.model.families.own import family_of, with_setting
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.sources import Piece, Source, check_finite

REG_COVAR = 1e-6


class MixtureModel(BatchMixture):
    """Mixture of components of one family, fitted by exact EM to data of any size.

    What `streamgmm.GaussianMixture` does for Gaussians, this does for every family: counts,
    flags, directions, positive numbers, or one of your own. Rows, methods, speed and storage are
    the same, and ``MixtureModel(k, "full")`` has the bits of ``GaussianMixture(k)``.

    Parameters
    ----------
    n_components : int, default=1
    family : str, Family or class, default="full"
        The name of a family (a key of ``streamgmm.model.families.FAMILIES``: ``"full"``,
        ``"tied"``, ``"diag"``, ``"spherical"``, ``"poisson"``, ...), a family with settings of
        its own (``Poisson(least_rate=1e-3)``), or a class of yours that follows
        `streamgmm.model.components.Family`.
    resp_init : array-like of shape (n_samples, n_components), optional
        Responsibilities to start from, one row for each row of X, which is then in memory.
    tol, max_iter, n_init, init_params, weights_init, random_state, warm_start, verbose
        As for `streamgmm.GaussianMixture`.
    reg_covar : float, default=1e-6
        For a family that is given by its name and has such a setting.
    means_init, precisions_init : array-like, optional
        As for `streamgmm.GaussianMixture`, where the family takes them.
    verbose_interval, algorithm, acceleration, block_size, empty_components, n_jobs
        As for `streamgmm.GaussianMixture`.
    checkpoint, on_bad_chunk, cache
        As for `streamgmm.GaussianMixture`.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    components_ : dict of str to ndarray
        The parameters of the components, named as the family names them (``rates`` of Poisson
        components, ``means`` and ``covariances`` of Gaussians), the component as first axis.
        Weights and components are the model: what is set there is what is used.
    family_ : Family
        The family of the components, with its settings.
    converged_, n_iter_, lower_bound_, lower_bounds_, history_, timings_
        As of `streamgmm.GaussianMixture`.
    data_seen_, skipped_rows_, n_features_in_, feature_names_in_
        As of `streamgmm.GaussianMixture`.

    Examples
    --------
    >>> import numpy as np
    >>> from streamgmm import MixtureModel
    >>> X = np.array([[0, 9], [1, 7], [0, 8], [9, 1], [7, 0], [8, 2]])
    >>> model = MixtureModel(2, "poisson", random_state=0).fit(X)
    >>> order = model.components_["rates"][:, 0].argsort()
    >>> model.components_["rates"][order].round(2).tolist()
    [[0.33, 8.0], [8.0, 1.0]]
    >>> (model.predict([[1, 8], [8, 1]]) == order).tolist()
    [True, True]
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = CONSTRAINTS | {
        "family": "no_validation",  # parse_family does
        "resp_init": ["array-like", None],
    }

    weights_: Floats
    components_: dict[str, Floats]
    family_: Family

    def __init__(
        self,
        n_components: int = 1,
        family: Any = "full",
        *,
        resp_init: Any = None,
        tol: float = 1e-3,
        reg_covar: float = REG_COVAR,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        algorithm: str = "auto",
        acceleration: str | None = "auto",
        block_size: int | str = "auto",
        empty_components: str = "keep",
        n_jobs: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        on_bad_chunk: str = "raise",
        cache: str | None = "auto",
    ) -> None:
        self.n_components = n_components
        self.family = family
        self.resp_init = resp_init
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.algorithm = algorithm
        self.acceleration = acceleration
        self.block_size = block_size
        self.empty_components = empty_components
        self.n_jobs = n_jobs
        self.checkpoint = checkpoint
        self.on_bad_chunk = on_bad_chunk
        self.cache = cache

    def _family(self) -> Family:
        """The family that was asked for; a checkpoint and a saved model know it by its name."""
        family = family_of(self.family)
        if isinstance(self.family, str):
            return with_setting(family, "reg_covar", float(self.reg_covar), REG_COVAR)
        return family

    def _start(self, source: Source, settings: FitSettings) -> Start:
        start = super()._start(source, settings)
        if start.mixture is not None or self.resp_init is None:
            return start
        if not in_memory(source):
            raise ParameterError(
                f"resp_init has a row for each row in memory, and {source.name} is not in memory; "
                "give other initial parameters, or rows as a NumPy array"
            )
        k, family = settings.n_components, settings.family
        resp = parse_responsibilities(self.resp_init, source.n_samples, k)
        (block,) = source.blocks(1 << 62)
        pieces = list(block.pieces())
        for piece in pieces:
            check_finite(piece, source.name)
            check_suitable(family, piece, source.name)
        rows, weight = _joined(pieces)
        mixture = of_responsibilities(
            rows, weight, family, resp, k, settings.weights_init, settings.given
        )
        return Start(mixture)

    def _set_parameters(self, mixture: Mixture) -> None:
        """Set the attributes: weights, and the parameters of the components by name."""
        self.weights_, self.family_ = mixture.weights, mixture.family
        self.components_ = dict(mixture.components.arrays())

    def _mixture(self) -> Mixture:
        """The model that the attributes are; raises ParameterError where they do not fit."""
        family = self.family_ if hasattr(self, "family_") else self._family()
        weights = np.ascontiguousarray(self.weights_, dtype=np.float64)
        arrays = {
            name: np.ascontiguousarray(values, dtype=np.float64)
            for name, values in self.components_.items()
        }
        try:
            components = family.components(**arrays)
            shapes = dict(family.parameter_shapes(len(weights), components.n_features))
        except (TypeError, IndexError) as error:
            raise ParameterError(
                f"components_ has {', '.join(arrays)}, which are no {family.name} components "
                f"({error})"
            ) from error
        found = {name: values.shape for name, values in arrays.items()}
        if found != shapes or weights.ndim != 1:
            raise ParameterError(
                f"components_ has the shapes {found}, but {weights.size} {family.name} components "
                f"of {components.n_features} features have {shapes}"
            )
        return Mixture(weights, components)


def _joined(pieces: list[Piece]) -> tuple[Any, Floats | None]:
    """The rows of all pieces, and their weights if there are any."""
    if len(pieces) == 1:
        return pieces[0].rows, pieces[0].sample_weight
    weights = [piece.sample_weight for piece in pieces if piece.sample_weight is not None]
    rows = np.concatenate([piece.rows for piece in pieces])
    return rows, np.concatenate(weights) if weights else None
