"""Learning batch by batch: what every estimator has in common whose model is a `Learner`."""

from __future__ import annotations

from functools import cache
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import Interval, StrOptions

from streamgmm.errors import DataError, ParameterError
from streamgmm.estimators.rows import in_memory, missing_of, open_rows
from streamgmm.estimators.saving import params_of
from streamgmm.model.components import NO_WEIGHT, Family
from streamgmm.model.families.uncertain import Uncertain, uncertain_family
from streamgmm.online.batches import batches_of, cut
from streamgmm.online.learner import Learner
from streamgmm.online.settings import OnlineSettings, parse_settings
from streamgmm.online.values import from_values, to_values
from streamgmm.pages.shown import Watched
from streamgmm.places import Place
from streamgmm.sources import Piece, Source, check_finite
from streamgmm.sources.uncertain import with_noise
from streamgmm.storage import Packed, save_model

CONSTRAINTS: dict[str, list[Any]] = {
    "step_size": [Interval(Real, 0.5, 1.0, closed="right"), callable],
    "step_rows": [Interval(Integral, 1, None, closed="left")],
    "warm_up": [Interval(Integral, 2, None, closed="left"), StrOptions({"auto"})],
    "half_life": [Interval(Real, 0.0, None, closed="neither"), None],
}
"""What scikit-learn checks the parameters of steps for."""

LEARNED = ("learner_", "n_features_in_", "feature_names_in_", "noise_")
"""What an estimator has of rows that were learned."""


class LearningMixture:
    """An estimator that learns batch by batch; ``learner_`` is there once rows have been seen.

    ``noise_`` is there where the rows have errors: ``"variances"`` or ``"matrices"``.
    """

    learner_: Learner
    noise_: str
    n_features_in_: int
    block_size: int | str
    get_params: Any
    _validate_params: Any

    @property
    def n_samples_seen_(self) -> int:
        """Rows learned, held out, or waiting to be learned."""
        return self._known().n_rows

    @property
    def monitor_(self) -> dict[str, Any]:
        """What was noticed, batch by batch; a prompt shows it in words."""
        return Watched(self._known().table())

    def begin(self, n_features: int) -> Learner:
        """Begin to learn rows of so many features, and give the learner to whoever teaches it."""
        settings = self._learning_settings(n_features)
        self.learner_ = self._new_learner(settings, n_features)
        self.n_features_in_ = n_features
        return self.learner_

    def taught(self) -> Learner | None:
        """What learns; None before there are rows."""
        return vars(self).get("learner_")

    def _started(self) -> bool:
        return "learner_" in vars(self)

    def _known(self) -> Learner:
        """What is known; raises NotFittedError before any rows have been seen."""
        if not self._started():
            raise NotFittedError(
                f"This {type(self).__name__} has not seen any rows yet; call 'partial_fit' or "
                "'fit' first."
            )
        return self.learner_

    def save_with(self, path: Place, more: dict[str, Any], overwrite: bool = False) -> None:
        """As `save`, with more values in the same atomic step."""
        fitted: dict[str, Any] = {
            "n_features_in_": self._features(self._known().n_features),
            "online_": Packed(to_values(self._known())),
        } | more
        if "noise_" in vars(self):
            fitted["noise_"] = self.noise_
        save_model(path, type(self).__name__, params_of(self), {}, fitted, overwrite)

    def _learn(
        self,
        X: Any,
        sample_weight: Any,
        quota: float | None = None,
        noise_variance: Any = None,
    ) -> None:
        """Learn rows: all of them, or none."""
        if isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[0] == 0:
            self._check_width(X.shape[1], "X")
            return
        before = {name: vars(self)[name] for name in LEARNED if name in vars(self)}
        try:
            if (
                type(X) is np.ndarray
                and sample_weight is None
                and noise_variance is None
                and "noise_" not in vars(self)
                and _is_plain(X)
                and missing_of(self) == "raise"
            ):
                self._check_width(X.shape[1], "X")
                rows = np.ascontiguousarray(X)
                check_finite(Piece(0, rows, None), "X")
                learner = self._learner(X.shape[1])
                learner.learn(cut(rows, NO_WEIGHT, learner.most_rows), quota)
            else:
                source = self._with_noise(self._open(X, sample_weight), noise_variance)
                learner = self._learner(source.n_features)
                here = in_memory(source)
                size: int | str = 1 << 62 if here else self.block_size
                learner.learn(batches_of(source, learner.most_rows, size, here), quota)
        except BaseException:
            for name in LEARNED:
                self.__dict__.pop(name, None)
            self.__dict__.update(before)
            raise
        self.learner_, self.n_features_in_ = learner, self._features(learner.n_features)

    def _with_noise(self, source: Source, noise_variance: Any) -> Source:
        """Rows with the noise beside them, where they have any; raises ParameterError."""
        had = vars(self).get("noise_")
        if noise_variance is None and had is None:
            return source
        if had is None and self._started():
            raise ParameterError(
                "noise_variance is given, and the rows before were learned without; give it with "
                "the first rows, zero where they have no errors"
            )
        if noise_variance is None:  # rows without errors among others
            d = source.n_features
            noise = (d, d) if had == "matrices" else (d,)
            shape = getattr(source, "sample_shape", (source.n_samples,))
            noise_variance = np.broadcast_to(np.zeros(1, source.dtype), (*shape, *noise))
        found = with_noise(source, noise_variance)
        self.noise_ = "matrices" if found.matrices else "variances"
        if had not in (None, self.noise_):
            raise ParameterError(
                f"noise_variance holds {self.noise_}, and that of the rows before held {had}; "
                "give the same"
            )
        return found.source

    def _features(self, width: int) -> int:
        """Features of rows of so many numbers, with their noise where they have any."""
        family = self._learned_family()
        return family.features(width) if isinstance(family, Uncertain) else width

    def _learned_family(self) -> Family:
        """The family that is learned: of rows with errors where they have any."""
        if "noise_" not in vars(self):
            return self._family()
        return uncertain_family(self._family(), self.noise_ == "matrices")

    def _learner(self, n_features: int) -> Learner:
        """What learns the next rows, with the settings as they are now."""
        settings = self._learning_settings(n_features)
        learner = self.learner_ if self._started() else self._new_learner(settings, n_features)
        learner.adopt(settings)
        return learner

    def _new_learner(self, settings: OnlineSettings, n_features: int) -> Learner:
        """What learns the first rows."""
        return Learner(settings, n_features)

    def _open(self, X: Any, sample_weight: Any) -> Source:
        """Open what is no plain array, its width and names checked."""
        if not hasattr(self, "n_features_in_"):
            return open_rows(self, X, sample_weight)
        fresh: Any = type(self)()
        if hasattr(self, "missing"):
            fresh.missing = self.missing
        source = open_rows(fresh, X, sample_weight)
        self._check_width(source.n_features, source.name)
        names, known = (getattr(each, "feature_names_in_", None) for each in (fresh, self))
        if names is not None and known is not None and list(names) != list(known):
            raise DataError(
                f"{source.name} has columns {list(names)} where {list(known)} were learned; give "
                "the same columns in the same order"
            )
        return source

    def _check_width(self, n_features: int, name: str) -> None:
        if hasattr(self, "n_features_in_") and n_features != self.n_features_in_:
            raise DataError(
                f"{name} has {n_features} features, but {type(self).__name__} "
                f"is expecting {self.n_features_in_} features as input."
            )

    def _learning_settings(self, n_features: int) -> OnlineSettings:
        """Parse what the constructor was given; again only when a parameter is another."""
        kind: Any = type(self)
        known = (n_features, vars(self).get("noise_"))
        key = (*known, *(vars(self)[name] for name in _parameters(kind)))
        held: tuple[Any, OnlineSettings] | None = vars(self).get("_parsed")
        if held is None or not _same(held[0], key):
            self._validate_params()
            params = self._learning_params()
            if "noise_" in vars(self):  # what is watched is of rows, and not of true values
                params = params | {"monitor": False}
            settings = parse_settings(params, self._learned_family(), n_features)
            held = self._parsed = (key, settings)
        return held[1]

    def _learning_params(self) -> dict[str, Any]:
        """The parameters, as `parse_settings` takes them."""
        params: dict[str, Any] = self.get_params(deep=False)
        return params

    def _family(self) -> Family:
        """The family of the components."""
        raise NotImplementedError

    def _restore(self, values: dict[str, Any]) -> None:
        """Take up what `save` wrote."""
        family, width = self._learned_family(), self.n_features_in_
        if isinstance(family, Uncertain):
            width = family.width(width)
        self.learner_ = from_values(values, self._learning_settings(width))


@cache
def _parameters(kind: Any) -> tuple[str, ...]:
    """Names of the parameters of the constructor."""
    return tuple(kind._get_param_names())


def _same(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    """Whether parameters are the same; arrays only if they are the very same ones."""
    return all(
        x is y or (isinstance(x, (int, float, str)) and type(x) is type(y) and x == y)
        for x, y in zip(a, b, strict=True)
    )


def _is_plain(X: NDArray[Any]) -> bool:
    return X.dtype in (np.float64, np.float32) and X.dtype.isnative and X.shape[1] > 0
