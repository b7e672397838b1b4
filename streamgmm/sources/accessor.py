"""``ds.streamgmm``: what a model says of the samples of a dataset, asked of the dataset."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from streamgmm.sources.datasets import open_xarray
from streamgmm.sources.regions import RegionSource


class Accessor:
    """What ``ds.streamgmm`` and ``array.streamgmm`` are, of a Dataset and of a DataArray.

    How data are rows is said by the keyword arguments of `streamgmm.rows`: ``features``,
    ``feature_axis``, ``sample_dims``, ``mask``. By default the features of a Dataset are the
    variables that the model was fitted to, if it knows their names, else all data variables.

    Parameters
    ----------
    data : xarray.Dataset or xarray.DataArray

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> import streamgmm, streamgmm.xarray
    >>> rng = np.random.default_rng(0)
    >>> ds = xr.Dataset({"temp": (("y", "x"), rng.normal(size=(30, 40)))})
    >>> model = streamgmm.GaussianMixture(2, random_state=0).fit(ds)
    >>> ds.streamgmm.predict(model).dims
    ('y', 'x')
    """

    def __init__(self, data: Any) -> None:
        self._data = data

    def rows(
        self,
        *,
        features: str | Sequence[str] | None = None,
        feature_axis: int | str = -1,
        sample_dims: str | Sequence[str] | None = None,
        mask: Any = None,
        sample_weight: Any = None,
    ) -> RegionSource:
        """Give the data as rows, as `streamgmm.rows` does."""
        return open_xarray(
            self._data, features=features, feature_axis=feature_axis, sample_dims=sample_dims,
            mask=mask, sample_weight=sample_weight,
        )  # fmt: skip

    def predict(self, model: Any, *, out: Any = None, overwrite: bool = False, **how: Any) -> Any:
        """Give each sample its likeliest component, or nearest cluster.

        Parameters
        ----------
        model : GaussianMixture, MixtureModel, OnlineGaussianMixture or KMeans
            Fitted.
        out, overwrite, storage_options
            As for the model's `predict`.
        **how
            Keyword arguments of `streamgmm.rows`.

        Returns
        -------
        xarray.DataArray
            Of the samples' dimensions, with their coordinates; lazy where the data are. A Zarr
            array with `out`.

        Raises
        ------
        sklearn.exceptions.NotFittedError, DataError, ParameterError
            As the model's `predict` and `streamgmm.rows`.
        """
        return self._ask("predict", model, how, out=out, overwrite=overwrite)

    def predict_proba(
        self, model: Any, *, out: Any = None, overwrite: bool = False, **how: Any
    ) -> Any:
        """Give the probability of each component, along a dimension more. As `predict`."""
        return self._ask("predict_proba", model, how, out=out, overwrite=overwrite)

    def score_samples(
        self, model: Any, *, out: Any = None, overwrite: bool = False, **how: Any
    ) -> Any:
        """Give the log-density of each sample, in nats. As `predict`."""
        return self._ask("score_samples", model, how, out=out, overwrite=overwrite)

    def transform(
        self, model: Any, *, out: Any = None, overwrite: bool = False, **how: Any
    ) -> Any:
        """Give the distance from each centre of `KMeans`. As `predict`."""
        return self._ask("transform", model, how, out=out, overwrite=overwrite)

    def _ask(self, what: str, model: Any, how: dict[str, Any], **more: Any) -> Any:
        more |= {name: how.pop(name) for name in ("dtype", "storage_options") if name in how}
        if "features" not in how and hasattr(self._data, "data_vars"):
            known = [str(name) for name in getattr(model, "feature_names_in_", ())]
            if known and set(known) <= {str(name) for name in self._data.variables}:
                how["features"] = known
        return getattr(model, what)(self.rows(**how), **more)


def register() -> None:
    """Give xarray's datasets and arrays the attribute ``streamgmm``, if xarray is imported."""
    xarray: Any = sys.modules.get("xarray")
    if xarray is None or not hasattr(xarray, "register_dataarray_accessor"):
        return  # not at all, or not yet whole
    if not hasattr(xarray.Dataset, "streamgmm"):
        xarray.register_dataset_accessor("streamgmm")(Accessor)
        xarray.register_dataarray_accessor("streamgmm")(Accessor)
