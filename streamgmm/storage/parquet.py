"""A Parquet file that is written row group by row group, and is there only once it is whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import OutputError, OutputExistsError, ParameterError
from streamgmm.places import Place
from streamgmm.sources.parquet import ENDINGS

GROUP_ROWS = 1 << 20
"""Rows in a row group, at the most."""

GROUP_BYTES = 32 << 20
"""Bytes of a row group before it is compressed, about, at the most."""


def names_parquet(out: object) -> bool:
    """Whether an output is to be a Parquet file.

    >>> names_parquet("labels.parquet"), names_parquet("labels.zarr")
    (True, False)
    """
    if not isinstance(out, (str, os.PathLike, Place)):
        return False
    name = out.name if isinstance(out, Place) else os.fsdecode(out)
    return name.rstrip("/").lower().endswith(ENDINGS)


def check_free(place: Place, overwrite: bool) -> None:
    """Check that a file may be written; raises OutputExistsError, ParameterError."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ParameterError(
            f"output '{place}' needs PyArrow: pip install 'streamgmm[arrow]' ({error})"
        ) from error
    fs, path = _file_system(place)
    if not fs.exists(path):
        return
    if fs.isdir(path):
        raise OutputExistsError(f"output '{place}' is a directory; give another path")
    if not overwrite:
        raise OutputExistsError(f"output '{place}' exists; pass overwrite=True to replace it")


@contextmanager
def parquet_file(
    place: Place, columns: Sequence[str], dtype: np.dtype[Any], metadata: Mapping[str, str]
) -> Iterator[Any]:
    """Have a function that writes a row group: columns of numbers, (rows, columns).

    Raises
    ------
    OutputError
        If it cannot be written; what was written of it is removed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    fs, path = _file_system(place)
    schema = pa.schema([(name, pa.from_numpy_dtype(dtype)) for name in columns], dict(metadata))
    try:
        with _whole(place, fs, path) as file:
            writer = pq.ParquetWriter(file, schema)

            def write(values: NDArray[Any]) -> None:
                table = np.ascontiguousarray(values.reshape(len(values), -1).T)
                writer.write_table(pa.table(list(table), schema=schema), len(values))

            try:
                yield write
            except BaseException:
                with suppress(Exception):  # or it is done when it is garbage
                    writer.close()
                raise
            writer.close()
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"output '{place}' could not be written ({error})") from error


@contextmanager
def _whole(place: Place, fs: Any, path: str) -> Iterator[Any]:
    """Have a file to write to that is there once all went well."""
    if place.directory is None:
        fs.transaction.start()
        done = False
        try:
            with fs.open(path, "wb") as file:
                yield file
            done = True
        finally:
            fs.transaction.complete(commit=done)
        return
    part = f"{path}.unfinished"
    try:
        with open(part, "wb") as file:
            yield file
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


def open_written(place: Place) -> Any:
    """Open a Parquet file as a `pyarrow.dataset.Dataset`."""
    import pyarrow.dataset

    fs, path = _file_system(place)
    return pyarrow.dataset.dataset(path, format="parquet", filesystem=fs)


def _file_system(place: Place) -> tuple[Any, str]:
    import fsspec

    if place.directory is not None:
        return fsspec.filesystem("file"), str(place.directory)
    fs, path = fsspec.url_to_fs(place.name, **(place.storage_options or {}))
    return fs, str(path)
