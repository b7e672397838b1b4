"""Prediction for every row, written where the output is asked for: to Zarr or to Parquet."""

from __future__ import annotations

import json
from typing import Any

from streamgmm.errors import ParameterError
from streamgmm.model.mixture import Mixture
from streamgmm.places import Place
from streamgmm.predict.rows import KINDS, check_features, sample_shape
from streamgmm.predict.store import Tally, predict_to
from streamgmm.sources import Source, underlying
from streamgmm.sources.parquet import InParquet
from streamgmm.sources.regions import RegionSource
from streamgmm.storage.parquet import (
    GROUP_BYTES,
    GROUP_ROWS,
    check_free,
    names_parquet,
    open_written,
    parquet_file,
)


def predict_out(
    source: Source, mixture: Mixture, out: Any, *, what: str = "labels", **how: Any
) -> tuple[Any, Tally]:
    """Write the prediction for every row to a Zarr array, or to a Parquet file.

    A file has a row for each row, in their order: a column ``labels`` (int32), ``log_density``,
    or ``proba_0`` and so on. Blocks end in any order and on any worker, so they are written to a
    Zarr array beside the file (``….unfinished``), which becomes its row groups, and is removed.

    Parameters
    ----------
    source, mixture, what
        As for `predict_to`.
    out : str, path-like, URL, zarr store or zarr.storage.StorePath
        A path or URL that ends in ``.parquet`` is that of a Parquet file.
    **how
        As for `predict_to`.

    Returns
    -------
    out : zarr.Array or pyarrow.dataset.Dataset
    tally : Tally

    Raises
    ------
    ParameterError
        If rows of a cube are to go to a file, or PyArrow is not installed.
    DataError, OutputError, OutputExistsError
        As `predict_to`.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from streamgmm.sources import open_source
    >>> mixture = Mixture.of("spherical", np.full(2, 0.5), np.array([[0.0], [9.0]]), np.ones(2))
    >>> path = tempfile.mkdtemp() + "/labels.parquet"
    >>> labels, _ = predict_out(open_source([[0.5], [8.5], [9.0]]), mixture, path)
    >>> labels.to_table().to_pydict()
    {'labels': [0, 1, 1]}
    """
    if not names_parquet(out):
        return predict_to(source, mixture, out, what=what, **how)
    check_features(source, mixture)
    place = Place.parse(out, how.pop("storage_options", None))
    if len(sample_shape(source)) > 1:
        raise ParameterError(
            f"output '{place}': the samples have shape {sample_shape(source)}, and Parquet has "
            "rows only; give a path of Zarr"
        )
    check_free(place, how.pop("overwrite", False))
    _check_apart(source, place)
    beside = Place.parse(f"{place.name.rstrip('/')}.zarr-unfinished", place.storage_options)
    array, tally = predict_to(source, mixture, beside, what=what, overwrite=True, **how)
    try:
        width = array.shape[1] if array.ndim > 1 else 1
        names = [f"{what}_{k}" for k in range(width)] if KINDS[what].wide else [what]
        told = {"streamgmm": json.dumps({"what": what, "n_components": mixture.n_components})}
        step = array.chunks[0]
        most = min(GROUP_ROWS, GROUP_BYTES // (width * array.dtype.itemsize))
        step *= max(1, most // step)
        with parquet_file(place, names, array.dtype, told) as write:
            for start in range(0, array.shape[0], step):
                write(array[start : start + step])
    finally:
        _remove(array)
    return open_written(place), tally


def _check_apart(source: Source, place: Place) -> None:
    """Check that a file is not among those that are read; raises ParameterError."""
    table = underlying(source)
    if not isinstance(table, RegionSource):
        return
    for variable in table.all_variables:
        if isinstance(variable.stored, InParquet) and variable.stored.holds(place):
            raise ParameterError(
                f"output '{place}' is where the data are that are read; give another path"
            )


def _remove(array: Any) -> None:
    from zarr.core.sync import sync

    sync(array.store_path.delete_dir())
