"""What all displays share: matplotlib where it is used, colours, names, notes, the estimator."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from streamgmm.errors import MissingExtraError, ParameterError
from streamgmm.estimators import pipelines
from streamgmm.estimators.pipelines import apart
from streamgmm.estimators.rows import open_rows
from streamgmm.estimators.rowwise import count_rows
from streamgmm.model.mixture import Mixture
from streamgmm.sources import Source, open_source
from streamgmm.summaries.look import Request, look

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Those of Okabe & Ito (2008), "Color universal design", that are seen on white and on grey."""

STYLES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (5, 1.5, 1, 1.5)))
MARKERS = "osD^vP"
NAME_LENGTH = 24
LISTED = 12  # components that a legend names


def pyplot() -> Any:
    """`matplotlib.pyplot`; raises MissingExtraError, in one line, where it is not installed."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError(
            "displays need matplotlib: pip install 'streamgmm[plot]'"
        ) from error
    return plt


def model_of(estimator: Any) -> Mixture:
    """The mixture of a fitted estimator of this package.

    Raises ParameterError where it is none, NotFittedError where it has no model.
    """
    estimator = last_of(estimator)
    if not hasattr(estimator, "_mixture"):
        raise ParameterError(
            f"{type(estimator).__name__} is no mixture of this package; give a fitted "
            "GaussianMixture, MixtureModel, OnlineGaussianMixture or KMeans"
        )
    check_is_fitted(estimator)
    mixture: Mixture = estimator._mixture()
    return mixture


def last_of(estimator: Any) -> Any:
    """The model at the end of a pipeline, or the estimator itself."""
    return apart(estimator)[1]


def open_for(estimator: Any, mixture: Mixture, X: Any, sample_weight: Any = None) -> Source:
    """The rows, as the model is given them; raises DataError, SourceError."""
    if isinstance(estimator, Pipeline):
        rows = X if sample_weight is None else open_source(X, sample_weight=sample_weight)
        return pipelines.open_for(estimator, rows)[1]
    return open_rows(estimator, X, sample_weight, n_features=mixture.n_features)


def look_at(estimator: Any, source: Source, wanted: Sequence[Request]) -> tuple[Any, ...]:
    """Make summaries of all rows in one pass, where and how the estimator makes its own."""
    estimator = last_of(estimator)
    return look(
        source,
        estimator._mixture(),
        wanted,
        omit=lacks(estimator),
        block_size=estimator.block_size,
        n_threads=estimator._n_threads(),
        on_block=count_rows("display", source.n_samples),
    )


def lacks(estimator: Any) -> bool:
    """Whether rows with gaps are used by the model, and cannot be drawn."""
    return bool(getattr(last_of(estimator), "missing", "raise") == "marginalize")


def say_gaps(estimator: Any, source: Source) -> list[str]:
    """That rows with gaps are not in the picture, where there may be such."""
    gone = lacks(estimator) or getattr(source, "omits", False)
    return ["Rows with gaps, or masked, are left out."] if gone else []


def names_of(estimator: Any, n_features: int, given: Sequence[str] | None = None) -> list[str]:
    """The names of the features: those given, or seen in `fit`, or x0, x1, ..."""
    if given is not None:
        if len(given) != n_features:
            raise ParameterError(
                f"feature_names has {len(given)} names for {n_features} features; give one each"
            )
        return [str(name) for name in given]
    seen = getattr(last_of(estimator), "feature_names_in_", None)
    if seen is not None and len(seen) == n_features:
        return [str(name) for name in seen]
    return [f"x{i}" for i in range(n_features)]


def find_features(features: Any, names: Sequence[str]) -> list[int]:
    """Places of features that are given by name or number, one or several.

    Raises ParameterError, which suggests the nearest where there is no such feature.

    >>> find_features(("b", 0), ["a", "b"])
    [1, 0]
    """
    alone = isinstance(features, (str, int, np.integer))
    found: list[int] = []
    for each in [features] if alone else list(features):
        if isinstance(each, str):
            if each not in names:
                raise ParameterError(
                    f"there is no feature {shorten(each)!r}; {_nearest(each, names)}"
                )
            found.append(list(names).index(each))
        elif isinstance(each, (int, np.integer)) and not isinstance(each, bool):
            if not -len(names) <= each < len(names):
                raise ParameterError(
                    f"there is no feature {each}; features are 0 to {len(names) - 1}, the nearest "
                    f"is {0 if each < 0 else len(names) - 1}"
                )
            found.append(int(each) % len(names))
        else:
            raise ParameterError(f"features={features!r}: give names or numbers of features")
    if not found:
        raise ParameterError("features is empty; name one feature or more")
    return list(dict.fromkeys(found))


def _nearest(name: str, names: Sequence[str]) -> str:
    lower = {each.lower(): each for each in reversed(names)}
    close = get_close_matches(name.lower(), list(lower), 1, 0.0)
    near = lower[close[0]] if close else names[0]
    listed = ", ".join(shorten(each) for each in names[:8]) + (", ..." if len(names) > 8 else "")
    return f"did you mean {shorten(near)!r}? There are {listed}"


def shorten(name: str, length: int = NAME_LENGTH) -> str:
    r"""A name that fits in a picture, in one line, its middle left out where it is long.

    >>> shorten("a" * 30 + "\n" + "z" * 30, 9)
    'aaaa…zzzz'
    """
    name = " ".join(name.split())
    if len(name) <= length:
        return name
    head = length // 2
    return f"{name[:head]}…{name[-(length - head - 1) :]}"


def text(name: str, length: int = NAME_LENGTH) -> str:
    """A short name as matplotlib draws it: a dollar sign begins no formula, nothing is hidden."""
    return shorten(name, length).replace("$", r"\$")


def style_of(place: int) -> dict[str, Any]:
    """Colour and dashes of the line of the component at a place in the picture."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": STYLES[place // len(COLOURS) % len(STYLES)],
    }


def heaviest(weights: NDArray[Any], most: int) -> NDArray[np.intp]:
    """The heaviest components that have any weight, in their own order."""
    order = np.argsort(-weights, kind="stable")[:most]
    return np.sort(order[weights[order] > 0])


def say_components(weights: NDArray[Any], shown: NDArray[np.intp], more: str = "") -> list[str]:
    """Which components are in the picture, where they are not all; `more` of the others."""
    said = []
    if len(shown) < np.count_nonzero(weights > 0):
        share = percent(float(weights[shown].sum()))
        said.append(
            f"{len(shown)} of {len(weights)} components, the heaviest, with {share} of the "
            f"weight{more}."
        )
    empty = int(np.count_nonzero(weights <= 0))
    if empty:
        said.append(f"{empty} component{'s have' if empty > 1 else ' has'} no rows.")
    return said


def percent(share: float) -> str:
    """A share as text, with two digits.

    >>> percent(0.1234), percent(1e-7), percent(1)
    ('12 %', 'under 0.001 %', '100 %')
    """
    if share >= 0.9995 or share <= 0:
        return f"{100 * share:.0f} %"
    return "under 0.001 %" if share < 1e-5 else f"{100 * share:.{3 if share > 0.99 else 2}g} %"


def write_notes(ax: Any, notes: Sequence[str], width: int = 64) -> None:
    """Write sentences over a picture, small, from the left."""
    if notes:
        said = "\n".join(textwrap.wrap(" ".join(notes), width))
        ax.set_title(said, loc="left", fontsize="small", color="0.25")


def divide(ax: Any, down: int, across: int, notes: Sequence[str] = ()) -> tuple[Any, Any]:
    """Divide an Axes into panels under the notes; gives their figure, and the grid of places.

    The Axes itself is no longer seen. Raises ParameterError if it is in no grid of its figure.
    """
    place = ax.get_subplotspec()
    if place is None:
        raise ParameterError(
            "this display has several panels, and needs an Axes that matplotlib has placed, such "
            "as from plt.subplots()"
        )
    ax.set_axis_off()
    inner = ax.figure.add_subfigure(place)
    width = ax.get_position().width * ax.figure.figure.get_figwidth()
    lines = textwrap.wrap(" ".join(notes), max(24, int(14 * width)))  # letters an inch
    if lines:
        inner.suptitle("\n".join(lines), x=0.01, ha="left", fontsize="small", color="0.25")
    return inner, inner.add_gridspec(down, across)


def plain(ax: Any) -> None:
    """No box, and a light grid behind."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)


def halo(width: float = 2.5) -> list[Any]:
    """A white rim, by which lines and text are read on any ground."""
    from matplotlib.patheffects import Normal, Stroke

    return [Stroke(linewidth=width, foreground="white"), Normal()]
