"""Tables of Dask: a ``dask.dataframe`` whose partitions are pandas DataFrames."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError
from streamgmm.sources.cubes import check_lengths, make_source
from streamgmm.sources.dask_boxes import InDask
from streamgmm.sources.names import check_names, parse_names
from streamgmm.sources.regions import RegionSource
from streamgmm.sources.tables import check_columns
from streamgmm.sources.variables import FEATURE, Variable

_NAME = "the dask DataFrame"


def is_dask_frame(value: object) -> bool:
    """Whether `value` is a ``dask.dataframe.DataFrame``, without importing that."""
    module = sys.modules.get("dask.dataframe")
    return module is not None and isinstance(value, module.DataFrame)


def open_frame(
    data: Any, *, features: Any = None, mask: Any = None, sample_weight: Any = None
) -> RegionSource:
    """Open a table whose partitions are computed where they are read.

    Its partitions are counted here, once: Dask does not know how long they are.

    Raises
    ------
    DataError
        If columns are no numbers (all that are not are named), or there are no rows.
    ParameterError
        If there is no such column; says which is nearest.
    """
    there = {str(column): column for column in data.columns}
    wanted = list(there) if features is None else parse_names(features)
    check_names(wanted, list(there), f"a column of {_NAME}")
    named = [each for each in (mask, sample_weight) if isinstance(each, str) and each in there]
    types = {each: data.dtypes[there[each]] for each in dict.fromkeys([*wanted, *named])}
    check_columns(types, _NAME)
    counted = data[[there[wanted[0]]]].map_partitions(len).compute()
    lengths = tuple(int(n) for n in np.ravel(counted))
    check_lengths((sum(lengths),), _NAME, ("row",))
    single = all(t.kind == "f" and t.itemsize <= 4 for t in types.values())
    dtype = np.dtype(np.float32 if single else np.float64)

    def stored(names: Sequence[str]) -> InDask:
        columns = data[[there[name] for name in names]]
        array = columns.map_partitions(matrix, dtype, meta=np.empty((0, len(names)), dtype))
        array._chunks = (lengths, (len(names),))  # as dask's own to_dask_array(lengths=…) does
        return InDask(array)

    beside = []
    for each, what in ((mask, "mask"), (sample_weight, "sample_weight")):
        if isinstance(each, str) and each in named:
            variable = Variable(f"{what} (column '{each}')", stored([each]), (0, FEATURE))
            beside.append(variable)
            continue
        if hasattr(each, "to_dask_array"):  # a series
            each = each.to_dask_array(lengths=lengths)
        beside.append(each)
    variable = Variable(_NAME, stored(wanted), (0, FEATURE))
    shape = (sum(lengths),)
    return make_source(_NAME, shape, (variable,), *beside, feature_names=tuple(wanted))


def matrix(frame: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Give the columns of a partition beside one another, NaN where there is a gap.

    Raises
    ------
    DataError
        If they are not the numbers that Dask was told.
    """
    out = np.empty(frame.shape, dtype)
    for j, name in enumerate(frame.columns):
        try:
            out[:, j] = frame.iloc[:, j].to_numpy(dtype, na_value=np.nan)
        except (TypeError, ValueError) as error:
            raise DataError(f"{_NAME}: column '{name}' holds no numbers: {error}") from error
    return out
