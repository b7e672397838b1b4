"""How a fitted model explains itself: a report, a summary, and what a notebook shows."""

from __future__ import annotations

import os
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from streamgmm._version import __version__
from streamgmm.errors import StreamGMMError
from streamgmm.estimators.rows import open_rows
from streamgmm.estimators.rowwise import count_rows
from streamgmm.model.mixture import Mixture
from streamgmm.pages.report import check_page, report, write_report
from streamgmm.pages.shown import Text, summary_of
from streamgmm.pages.subject import Subject
from streamgmm.sources import underlying
from streamgmm.summaries.portrait import portray

OPTIONS = {
    "n_components": "-k",
    "covariance_type": "--covariance",
    "family": "--family",
    "init_params": "--init",
    "n_init": "--n-init",
    "tol": "--tol",
    "max_iter": "--max-iter",
    "reg_covar": "--reg-covar",
    "random_state": "--seed",
    "algorithm": "--algorithm",
    "on_bad_chunk": "--on-bad-chunk",
    "missing": "--missing",
    "block_size": "--block-size",
    "n_jobs": "--threads",
    "checkpoint": "--checkpoint",
}
"""Parameters that ``streamgmm fit`` has, and their options."""

UNSELECTED = ("init_params", "reg_covar", "algorithm", "on_bad_chunk", "checkpoint")
"""Those that ``streamgmm select`` has not."""

NOT_GIVEN = ("verbose", "verbose_interval", "cache", "warm_start")  # they change no model
LONGEST = 4000  # letters of a call
VERSIONS = ("numpy", "scikit-learn", "numba", "zarr", "dask")


class Reporting:
    """Methods of a fitted estimator whose model is what `_mixture` gives."""

    block_size: int | str

    def _mixture(self) -> Mixture:
        raise NotImplementedError

    def _n_threads(self) -> int | None:
        raise NotImplementedError

    def report(
        self,
        path: str | os.PathLike[str],
        X: Any = None,
        *,
        sample_weight: Any = None,
        overwrite: bool = False,
    ) -> None:
        """Write a report of the model, and of all rows of X: one file of HTML.

        It needs no network, and no program but a browser. Rows are read once, whatever their
        number, and never kept; those with gaps are counted, and left out.

        Parameters
        ----------
        path : str or path-like
            Of the file.
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source, optional
            Of shape (n_samples, n_features). Without it the report is of the model alone.
        sample_weight : array-like, zarr.Array, path or dask.array of shape (n_samples,), optional
        overwrite : bool, default=False
            Whether a file at `path` may be replaced.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If there is no model yet.
        OutputExistsError, OutputError
            If there is something at `path`, or it cannot be written.
        DataError, SourceError
            As `predict`.

        Examples
        --------
        >>> import tempfile
        >>> from streamgmm import GaussianMixture
        >>> X = [[0.0], [1.0], [9.0], [10.0]]
        >>> path = tempfile.mkdtemp() + "/report.html"
        >>> GaussianMixture(2, random_state=0).fit(X).report(path, X)
        >>> from pathlib import Path
        >>> "<h1>GaussianMixture: 2 components</h1>" in Path(path).read_text()
        True
        """
        self._write_report(path, X, sample_weight=sample_weight, overwrite=overwrite)

    def _write_report(
        self,
        path: str | os.PathLike[str],
        X: Any = None,
        *,
        sample_weight: Any = None,
        overwrite: bool = False,
        commands: Sequence[str] = (),
    ) -> None:
        """As `report`; `commands` make the report again."""
        check_is_fitted(self)
        check_page(path, overwrite)
        mixture = self._mixture()
        source, on_block = None, None
        if X is not None:
            opened = open_rows(self, X, sample_weight, n_features=mixture.n_features)
            source = underlying(opened)
            on_block = count_rows("report", source.n_samples)
        portrait = portray(
            mixture, source, block_size=self.block_size, n_threads=self._n_threads(),
            on_block=on_block,
        )  # fmt: skip
        mine: Any = self
        history, monitor = getattr(mine, "history_", None), getattr(mine, "monitor_", None)
        watched = isinstance(monitor, Mapping) and len(monitor.get("rows", ())) > 0
        subject = Subject(
            type(self).__name__,
            self._call(),
            feature_names(self, mixture.n_features, source),
            portrait,
            history if isinstance(history, Mapping) else None,
            monitor if watched else None,
            getattr(mine, "selection_", None),
            getattr(mine, "converged_", None) if history is not None else None,
            rows_seen(mine),
            [*fit_command(mine), *commands],
            {"streamgmm": __version__, "Python": platform.python_version()}
            | {name: version(name) for name in VERSIONS},
        )
        write_report(path, report(subject), overwrite)

    def summary(self, max_rows: int = 20) -> Text:
        """Give a table of the components, the heaviest first, as text; a notebook shows HTML.

        Parameters
        ----------
        max_rows : int, default=20
            Components at the most. Of the features the four that separate them most are shown.

        Returns
        -------
        str

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If there is no model yet.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> GaussianMixture(2, random_state=0).fit([[0.0], [1.0], [9.0], [11.0]]).summary()
        GaussianMixture of 2 components (full) of 1 feature
        converged after 2 iterations
        <BLANKLINE>
           weight         x0
        0    50 %     10 ± 1
        1    50 %  0.5 ± 0.5
        mean ± standard deviation
        """
        check_is_fitted(self)
        mixture = self._mixture()
        names = feature_names(self, mixture.n_features)
        return summary_of(mixture, names, [*self._lines(mixture)], max_rows)

    def _lines(self, mixture: Mixture) -> list[str]:
        """What a summary says above its table."""
        k, d, mine = mixture.n_components, mixture.n_features, self
        said = (
            f"{type(self).__name__} of {k:,} component{'s' * (k > 1)} ({mixture.family.name}) of "
            f"{d:,} feature{'s' * (d > 1)}"
        )
        lines = [said]
        if hasattr(mine, "history_") and hasattr(mine, "n_iter_"):
            n = int(mine.n_iter_)
            done = getattr(mine, "converged_", None)
            ended = "not converged" if done is False else "converged" if done else "ended"
            lines.append(f"{ended} after {n} iteration{'s' * (n != 1)}")
        elif rows_seen(mine):
            lines.append(f"learned from {rows_seen(mine):,} rows")
        return lines

    def _html_repr(self) -> str:
        """What a notebook shows: scikit-learn's diagram, and the components once there are any."""
        shown: str = super()._html_repr()  # type: ignore[misc]
        try:
            return shown + self.summary().html
        except (NotFittedError, StreamGMMError, AttributeError):
            return shown

    def _call(self) -> str:
        """The call that makes such an estimator."""
        mine: Any = self
        made = mine.__repr__(N_CHAR_MAX=LONGEST)
        data = data_of(mine)
        learned = "n_samples_seen_" in dir(type(mine)) and not hasattr(mine, "history_")
        call = f"{'partial_fit' if learned else 'fit'}({repr(data) if data else 'X'})"
        return f"from streamgmm import {type(self).__name__}\n{' '.join(made.split())}.{call}"


def feature_names(estimator: Any, d: int, source: Any = None) -> list[str]:
    """Names of features: as seen in `fit`, or as the data have them, or x0, x1, ..."""
    for names in (
        getattr(estimator, "feature_names_in_", None),
        getattr(source, "feature_names", None),
    ):
        if names is not None and len(names) == d:
            return [str(name) for name in names]
    return [f"x{i}" for i in range(d)]


def rows_seen(estimator: Any) -> int:
    """Rows that a model was fitted to, or has learned; 0 where that is not known."""
    history = getattr(estimator, "history_", None)
    if isinstance(history, Mapping) and len(history.get("rows", ())):
        return round(float(history["rows"][-1] / history["passes"][-1]))
    try:
        return int(estimator.n_samples_seen_)
    except (AttributeError, NotFittedError):
        return 0


def data_of(estimator: Any) -> str:
    """The path of the data that a model was fitted to; empty where they were in memory."""
    name = str(getattr(estimator, "data_seen_", {}).get("name", ""))
    found = re.fullmatch(r"(?:array|group|dataset|table|file) '(.+)'", name, re.DOTALL)
    return found[1] if found else ""


def fit_command(estimator: Any) -> list[str]:
    """The command that fits, or selects, such a model; nothing where none can."""
    data, selection = data_of(estimator), getattr(estimator, "selection_", None)
    if not data or type(estimator).__name__ not in ("GaussianMixture", "MixtureModel"):
        return []
    given = estimator.get_params(deep=False)
    defaults = type(estimator)().get_params(deep=False)
    known, words = OPTIONS, ["fit", shlex.quote(data), "-k", str(given["n_components"])]
    if selection is not None:
        known = {name: option for name, option in OPTIONS.items() if name not in UNSELECTED}
        defaults["n_init"] = 5 if selection["criterion"] == "stability" else 2
        words = ["select", shlex.quote(data), *_candidates(selection)]
    for name, value in given.items():
        default = defaults[name]
        same = value is default or (type(value) is type(default) and value == default)
        chosen = selection is not None and name in ("covariance_type", "family")
        if name == "n_components" or same or chosen or name in NOT_GIVEN:
            continue
        if name not in known or not isinstance(value, (str, int, float)):
            return []
        words += [known[name], shlex.quote(str(value))]
    if given.get("cache", "auto") is None:
        words.append("--no-cache")
    return [" ".join(["streamgmm", *words, "--out", "model.zarr"])]


def _candidates(selection: Mapping[str, Any]) -> list[str]:
    """The options of a selection that say what was compared, and by what."""
    ks = sorted({int(k) for k in selection["n_components"]})
    run = ks == list(range(ks[0], ks[-1] + 1)) and len(ks) > 1
    words = ["-k", f"{ks[0]}:{ks[-1]}" if run else ",".join(map(str, ks))]
    option = "covariance" if "covariance_type" in selection else "family"
    kinds = selection["covariance_type" if option == "covariance" else "family"]
    for kind in dict.fromkeys(map(str, kinds)):
        words += [f"--{option}", shlex.quote(kind)]
    return [*words, "--criterion", str(selection["criterion"])]
