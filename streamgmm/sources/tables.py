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

_PROTOCOLS = ("__arrow_c_stream__", "__dataframe__")


def is_table(value: object) -> bool:
    """Whether `value` has named columns: a DataFrame, or an object that gives an Arrow stream.

    Or an object with ``__dataframe__``, the interchange protocol.
    """
    if isinstance(value, type):
        return False
    return _is_frame(value) or any(hasattr(value, name) for name in _PROTOCOLS)


def is_stream(value: object) -> bool:
    """Whether `value` is a table of a kind that scikit-learn does not take by its columns."""
    known = type(value).__module__.partition(".")[0] in ("pandas", "polars")
    return is_table(value) and not known


def _is_frame(value: object) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


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
    is_frame = _is_frame(data)
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
        Named(each, "column", Held(held[each]), ("row",))
        if isinstance(each, str) and each in named
        else each
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
    if hasattr(data, "__arrow_c_stream__"):
        return pa.table(data)
    from pyarrow.interchange import from_dataframe

    return from_dataframe(data)


def _of_arrow(table: Any, columns: Mapping[str, None]) -> dict[str, Any]:
    check_numbers({each: table.schema.field(each).type for each in columns}, "the table")
    return {each: _numbers(table.column(each)) for each in columns}


def _of_frame(frame: Any, columns: Mapping[str, None]) -> dict[str, Any]:
    """Columns of pandas, of which those of other kinds than numbers are named."""
    found = {}
    named = {str(each): each for each in frame.columns}
    check_columns({name: frame[named[name]].dtype for name in columns}, "the table")
    for name in columns:
        series = frame[named[name]]
        if isinstance(series.dtype, np.dtype):
            found[name] = series.to_numpy()
        else:  # pandas' own dtypes, which have gaps
            found[name] = series.to_numpy(np.float64, na_value=np.nan)
    return found


def check_columns(types: Mapping[str, Any], name: str) -> None:
    """Check that dtypes of pandas are numbers or flags; raises DataError, which names others."""
    other = [f"'{column}' ({kind})" for column, kind in types.items() if kind.kind not in "buif"]
    if other:
        raise DataError(
            f"{name}: column{'s' * (len(other) > 1)} {', '.join(other)} cannot be used as "
            "numbers; name the columns to use in features=, number categories, and take times in "
            "seconds"
        )
