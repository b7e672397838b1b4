"""Options that say how DATA are rows: which features, which axes, what is left out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import click

from streamgmm.cli.options import PLACE
from streamgmm.errors import ParameterError

missing_option = click.option(
    "--missing",
    type=click.Choice(["raise", "omit", "marginalize"]),
    default="raise",
    show_default=True,
    help="What to do about rows with gaps (NaN, fill values): stop, leave them out, or take what "
    "was observed of them.",
)


@dataclass(frozen=True)
class Given:
    """How DATA are rows: the options that `rows_options` adds."""

    features: str | None
    feature_axis: int
    sample_dims: str | None
    mask: str | None

    def open(self, data: str, sample_weight: str | None = None) -> Any:
        """Open the rows; raises as `streamgmm.rows`."""
        from streamgmm.sources import rows

        features: Any = _list(self.features)
        if features is not None and all(each.lstrip("-").isdigit() for each in features):
            features = [int(each) for each in features]
        return rows(
            data,
            features=features,
            feature_axis=self.feature_axis,
            sample_dims=_list(self.sample_dims),
            mask=self.mask,
            sample_weight=sample_weight,
        )


def _list(text: str | None) -> list[str] | None:
    return None if text is None else [each.strip() for each in text.split(",")]


def load_density(model: str, asked: str) -> tuple[Any, Any]:
    """Load a model that has a density, and its last estimator; the same where it is no pipeline.

    Raises
    ------
    ParameterError
        If the model has none: rows cannot be `asked` the centres of k-means, or a scaler.
    """
    from streamgmm.estimators.kmeans import KMeans
    from streamgmm.estimators.loading import load
    from streamgmm.estimators.pipelines import apart

    loaded = load(model)
    _, last = apart(loaded)
    if isinstance(last, KMeans) or not hasattr(last, "_mixture"):
        raise ParameterError(
            f"'{model}' is a {type(last).__name__}, which has no density; rows can be {asked} a "
            "mixture, such as streamgmm fit makes"
        )
    return loaded, last


def rows_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say how DATA are rows; the command is given them as ``given``."""

    @functools.wraps(command)
    def run(**options: Any) -> None:
        given = Given(**{each.name: options.pop(each.name) for each in fields(Given)})
        command(given=given, **options)

    added = [
        click.option(
            "--features",
            metavar="NAMES",
            help="Variables or columns, or indices of features: temp,salt or 0,2.",
        ),
        click.option(
            "--feature-axis",
            type=int,
            default=-1,
            show_default=True,
            help="The axis of the features of an array; all others are of samples.",
        ),
        click.option(
            "--sample-dims", metavar="NAMES", help="Dimensions of a group's samples: time,y,x."
        ),
        click.option(
            "--mask",
            type=PLACE,
            metavar="PATH",
            help="A Zarr array, or the name of a variable: rows where it is not 0 are left out.",
        ),
    ]
    for option in reversed(added):
        run = option(run)
    return run
