"""`MixtureModel`: a mixture of components of any family, for data of any size."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np

from streamgmm.errors import ParameterError
from streamgmm.estimators.batch import CONSTRAINTS, BatchMixture, Start
from streamgmm.estimators.learning import CONSTRAINTS as STEPS
from streamgmm.estimators.learning import LearningMixture
from streamgmm.estimators.parameters import MixtureAttributes
from streamgmm.estimators.rows import in_memory, missing_of
from streamgmm.estimators.uncertain import alike, plain_statistics, statistics_alike
from streamgmm.fitting.fit import FitResult
from streamgmm.fitting.initial import of_responsibilities
from streamgmm.fitting.parameters import parse_responsibilities
from streamgmm.fitting.sample import check_suitable
from streamgmm.fitting.settings import FitSettings
from streamgmm.model.components import Family, takes_gaps
from streamgmm.model.families import Uncertain
from streamgmm.model.families.known import with_gaps
from streamgmm.model.families.own import family_of, for_columns, with_setting
from streamgmm.model.moments import Floats
from streamgmm.online.learner import Learner, check_family
from streamgmm.online.merging import from_statistics
from streamgmm.online.settings import OnlineSettings
from streamgmm.places import Place, ZarrStore
from streamgmm.sources import Piece, Source, check_finite
from streamgmm.storage.values import STATISTICS

REG_COVAR = 1e-6
LEAST_STARTS = 16  # of the fit that ends a warm-up; a poor one is left by no later step


class MixtureModel(LearningMixture, MixtureAttributes, BatchMixture):
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
    checkpoint, on_bad_chunk, cache, assignment, missing
        As for `streamgmm.GaussianMixture`.
    step_size, step_rows, warm_up, half_life
        Of `partial_fit`, as for `streamgmm.OnlineGaussianMixture`.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    components_ : dict of str to ndarray
        The parameters of the components, named as the family names them (``rates`` of Poisson
        components, ``means`` and ``covariances`` of Gaussians), the component as first axis.
        Weights and components are the model: what is set there is what is used.
    family_ : Family
        The family of the components, with its settings.
    statistics_ : dict
        Sums over all rows at the parameters that `fit` returned, from which `partial_fit` goes
        on.
    n_samples_seen_, monitor_, learner_
        Of `partial_fit`, as of `streamgmm.OnlineGaussianMixture`.
    converged_, n_iter_, lower_bound_, lower_bounds_, history_, timings_
        As of `streamgmm.GaussianMixture`.
    data_seen_, skipped_rows_, n_missing_, n_features_in_, feature_names_in_
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

    _parameter_constraints: ClassVar[dict[str, Any]] = (
        CONSTRAINTS
        | STEPS
        | {
            "family": "no_validation",  # parse_family does
            "resp_init": ["array-like", None],
        }
    )

    statistics_: dict[str, Any]

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
        checkpoint: str | os.PathLike[str] | ZarrStore | None = None,
        on_bad_chunk: str = "raise",
        cache: str | None = "auto",
        assignment: str = "soft",
        missing: str = "raise",
        step_size: float | Callable[[float], float] = 0.6,
        step_rows: int = 500,
        warm_up: int | str = "auto",
        half_life: float | None = None,
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
        self.assignment = assignment
        self.missing = missing
        self.step_size = step_size
        self.step_rows = step_rows
        self.warm_up = warm_up
        self.half_life = half_life

    def _family(self) -> Family:
        """The family that was asked for; a checkpoint and a saved model know it by its name."""
        names = getattr(self, "feature_names_in_", None)
        family = for_columns(family_of(self.family), names)
        if isinstance(family, Uncertain):
            raise ParameterError(
                "rows with errors are not a family to choose: give the family of the true values, "
                "such as 'full', and noise_variance where it is fitted"
            )
        if isinstance(self.family, str):
            family = with_setting(family, "reg_covar", float(self.reg_covar), REG_COVAR)
        return with_gaps(family, missing_of(self) == "marginalize")

    def _start(self, source: Source, settings: FitSettings) -> Start:
        if self.warm_start and self._started():
            return Start(alike(self._mixture(), settings.family))
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
            check_finite(piece, source.name, takes_gaps(family))
            check_suitable(family, piece, source.name)
        rows, weight = _joined(pieces)
        if family.surveys:
            family = family.informed(family.survey(rows))
        mixture = of_responsibilities(
            rows, weight, family, resp, k, settings.weights_init, settings.given
        )
        return Start(mixture)

    def partial_fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, noise_variance: Any = None
    ) -> Self:
        """Learn a batch by stepwise EM, in constant memory (Cappé & Moulines 2009).

        The first rows are kept until there are enough for a fit in memory of 16 starts or more
        (`warm_up`); every batch after that is a few steps. A model that has been fitted, or
        chosen by `streamgmm.select`, goes on from there. A batch that cannot be used is refused
        whole. Steps of Gaussians are compiled; the law is the same for every family. Drift and
        components that come and go are `streamgmm.OnlineGaussianMixture`'s.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        y : Ignored
        sample_weight : array-like of shape (n_samples,), optional
            A row of weight w counts as w rows.
        noise_variance : array-like, zarr.Array, path or dask.array, optional
            As for `streamgmm.OnlineGaussianMixture.partial_fit`; of Gaussians.

        Returns
        -------
        self : MixtureModel

        Raises
        ------
        DataError, SourceError
            As `fit`, or if X has another number of features than before.
        ParameterError
            If a setting is out of range, or initial parameters are given.
        DegenerateComponentError
            If rows do not determine a component.

        Examples
        --------
        >>> import numpy as np
        >>> from streamgmm import MixtureModel
        >>> model = MixtureModel(2, "poisson", warm_up=500)
        >>> rng = np.random.default_rng(0)
        >>> for _ in range(20):
        ...     model = model.partial_fit(rng.poisson(rng.choice([2.0, 30.0], size=(200, 1))))
        >>> sorted(int(rate) for rate in model.components_["rates"].round().ravel())
        [2, 30]
        """
        self._learn(X, sample_weight, noise_variance=noise_variance)
        return self

    def save(
        self,
        path: str | os.PathLike[str] | ZarrStore,
        overwrite: bool = False,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        """Save the model as a Zarr group, without pickle; `streamgmm.load` reads it back.

        Learning batch by batch then goes on as if it had never stopped.

        Parameters
        ----------
        path : str, path-like, URL or Zarr store
        overwrite : bool, default=False
            Whether a model at `path` may be replaced.
        storage_options : dict, optional
            For the file system of a URL.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If there is no model yet.
        OutputExistsError, OutputError, ParameterError
            As `streamgmm.storage.save_model`.
        """
        if self._started():
            self.save_with(Place.parse(path, storage_options), {}, overwrite)
        else:
            super().save(path, overwrite, storage_options)

    def _take_up(self, result: FitResult) -> None:
        super()._take_up(result)
        self.statistics_ = STATISTICS.apart(plain_statistics(result.statistics))

    def _learning_params(self) -> dict[str, Any]:
        starts = {"n_init": max(LEAST_STARTS, self.n_init)}
        unwatched = {"average": None, "monitor": False, "adapt_components": False}
        return super()._learning_params() | starts | unwatched

    def _new_learner(self, settings: OnlineSettings, n_features: int) -> Learner:
        """Go on from the model that is there, or gather rows for the first one."""
        if hasattr(self, "weights_"):
            mixture, described = self._mixture(), getattr(self, "statistics_", None)
            if described is None:
                raise ParameterError(
                    "the model was set by hand, and partial_fit goes on from the statistics of "
                    "rows; call fit with warm_start=True first"
                )
            kind = {"component_kind": mixture.family}
            known = STATISTICS.together(described | kind)
            mixture = alike(mixture, settings.family)
            check_family(mixture.family, settings.family)
            return from_statistics(settings, mixture, statistics_alike(known, settings.family))
        names = ("resp_init", "weights_init", "means_init", "precisions_init")
        for name in names:
            if getattr(self, name) is not None:
                raise ParameterError(f"partial_fit takes no {name}; fit takes it, and go on then")
        return super()._new_learner(settings, n_features)


def _joined(pieces: list[Piece]) -> tuple[Any, Floats | None]:
    """The rows of all pieces, and their weights if there are any."""
    if len(pieces) == 1:
        return pieces[0].rows, pieces[0].sample_weight
    weights = [piece.sample_weight for piece in pieces if piece.sample_weight is not None]
    rows = np.concatenate([piece.rows for piece in pieces])
    return rows, np.concatenate(weights) if weights else None
