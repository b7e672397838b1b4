"""Tables in memory: pandas, Polars, Arrow, and whatever gives an Arrow stream."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from streamgmm.errors import DataError, ParameterError
from streamgmm.sources.named import Named, check_names, open_named, parse_names
from streamgmm.sources.parquet import _numbers, check_numbers
from streamgmm.sources.regions import RegionSource
from streamgmm.sources.variables import Held


def is_table(value: object) -> bool:
    """Whether `value` has named columns: a DataFrame, or an object that gives an Arrow stream."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return True
    return hasattr(value, "__arrow_c_stream__") and not isinstance(value, type)


def open_table(
    data: Any, *, features: Any = None, mask: Any = None, sample_weight: Any = None
) -> RegionSource:
    """Open a table in memory; columns that can be used as they are are not copied.

    Raises
    ------
    DataError
        If columns are no numbers (all that are not are named), or there are no rows.
    ParameterError
        If there is no such column; says which is nearest.
    """
    pandas = sys.modules.get("pandas")
    is_frame = pandas is not None and isinstance(data, pandas.DataFrame)
    if not is_frame:
        data = _arrow(data)  # once: a stream is read but once
    there = list(data.columns) if is_frame else data.column_names
    beside = (mask, sample_weight)
    named = [each for each in beside if isinstance(each, str) and each in there]
    wanted = list(map(str, there)) if features is None else parse_names(features)
    check_names(wanted, list(map(str, there)), "a column of the table")
    columns = dict.fromkeys([*wanted, *named])
    held = _of_frame(data, columns) if is_frame else _of_arrow(data, columns)
    found = [Named(each, "column", Held(held[each]), ("row",)) for each in wanted]
    given = [
        Named(each, "column", Held(held[each]), ("row",)) if each in named else each
        for each in (each if isinstance(each, str) else _plain(each) for each in beside)
    ]
    return replace(open_named("the table", found, None, *given), dims=None)


def _plain(value: Any) -> Any:
    """A series as an array."""
    return value.to_numpy() if hasattr(value, "to_numpy") else value


def _arrow(data: Any) -> Any:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ParameterError(
            f"a {type(data).__name__} needs PyArrow: pip install 'streamgmm[arrow]'"
        ) from error
    return pa.table(data)


def _of_arrow(table: Any, columns: Mapping[str, None]) -> dict[str, Any]:
    check_numbers({each: table.schema.field(each).type for each in columns}, "the table")
    return {each: _numbers(table.column(each)) for each in columns}


def _of_frame(frame: Any, columns: Mapping[str, None]) -> dict[str, Any]:
    """Columns of pandas, of which those of other kinds than numbers are named."""
    found, other = {}, []
    named = {str(each): each for each in frame.columns}
    for name in columns:
        series = frame[named[name]]
        if series.dtype.kind not in "buif":
            other.append(f"'{name}' ({series.dtype})")
        elif isinstance(series.dtype, np.dtype):
            found[name] = series.to_numpy()
        else:  # pandas' own dtypes, which have gaps
            found[name] = series.to_numpy(np.float64, na_value=np.nan)
    if other:
        raise DataError(
            f"the table: column{'s' * (len(other) > 1)} {', '.join(other)} cannot be used as "
            "numbers; name the columns to use in features=, number categories, and take times in "
            "seconds"
        )
    return found
