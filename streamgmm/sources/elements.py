"""What AnnData says of cells, as arrays that blocks read: dense, sparse, or columns of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError, DataTypeError
from streamgmm.sources.csr import Csr
from streamgmm.sources.dask import check_known, is_dask_array
from streamgmm.sources.dask_boxes import InDask
from streamgmm.sources.datasets import is_xarray, stored_in_xarray
from streamgmm.sources.decoding import PLAIN, Decoding
from streamgmm.sources.grid import Edges, common_edges
from streamgmm.sources.variables import Box, Held

Open = Callable[[Any], Any]


class Element(NamedTuple):
    """Something that has a value, or several, for each cell.

    What messages call it, what reads it, the names of its columns, what makes numbers of it, and
    which of its columns are wanted, where not all are.
    """

    label: str
    stored: Any
    names: tuple[str, ...]
    decoding: Decoding = PLAIN
    picks: tuple[int, ...] | None = None


def encoding_of(node: Any) -> str:
    """Say how an array or a group is encoded; nothing where it does not say."""
    found = dict(getattr(node, "attrs", {})).get("encoding-type", "")
    return found.decode() if isinstance(found, bytes) else str(found)


def names_in(array: Any) -> list[str]:
    """Read an array of text, such as the names of genes."""
    if "values" in getattr(array, "keys", tuple)():  # text that may have gaps
        array = array["values"]
    text = hasattr(array, "asstr") and array.dtype.kind == "O"
    values = array.asstr()[:] if text else array[:]
    return [str(each) for each in np.asarray(values).tolist()]


def elements_of(path: str, label: str, value: Any, open: Open) -> list[Element]:
    """Open what is at a path: an array, sparse rows, or a table.

    Parameters
    ----------
    path : str
        Its last part names its columns.
    label : str
        What messages call it.
    value : array, group or table
        Of Zarr or HDF5, in memory, of Dask or xarray.
    open : callable
        Makes an array of a store into what blocks read.

    Raises
    ------
    DataError
        If it is text, dates or categories, or nothing that has numbers.
    DataTypeError
        If it is stored by columns.
    """
    stem = path.rpartition("/")[2]
    if hasattr(value, "keys") and not hasattr(value, "dtype") and not hasattr(value, "columns"):
        return _of_group(path, label, value, open)
    if hasattr(value, "group") and hasattr(value, "format"):  # sparse rows in a file, by anndata
        return _of_group(path, label, value.group, open)
    if hasattr(value, "columns") and hasattr(value, "iloc"):
        columns = [str(each) for each in value.columns]
        return [
            element
            for name, column in zip(columns, value.columns, strict=True)
            for element in elements_of(name, f"column '{name}' of {label}", value[column], open)
        ]
    stored = _stored(path, label, value, open)
    many = len(stored.shape) == 2
    names = tuple(f"{stem}_{i}" for i in range(stored.shape[1])) if many else (stem,)
    if stem == "codes":  # of categories; -1 where there is none
        return [Element(label, stored, (path.split("/")[-2],), Decoding((-1.0,)))]
    return [Element(label, stored, names)]


def _of_group(path: str, label: str, group: Any, open: Open) -> list[Element]:
    encoding, stem = encoding_of(group), path.rpartition("/")[2]
    if encoding in ("csr_matrix", "csr_dataset"):
        n_rows, width = (int(each) for each in group.attrs["shape"])
        indptr = np.asarray(group["indptr"][:], np.int64)
        stored = Csr(label, open(group["data"]), open(group["indices"]), indptr, width)
        if len(indptr) != n_rows + 1:
            raise DataError(f"{label} has shape {(n_rows, width)}, but {len(indptr)} row starts")
        return [Element(label, stored, tuple(f"{stem}_{i}" for i in range(width)))]
    if encoding == "csc_matrix":
        raise _by_columns(label)
    if encoding == "dataframe":
        columns = [str(each) for each in group.attrs["column-order"]]
        return [
            element
            for name in columns
            for element in elements_of(name, f"column '{name}' of {label}", group[name], open)
        ]
    if encoding == "categorical":
        raise _no_numbers(label, "categories", path)
    if encoding in ("nullable-integer", "nullable-boolean"):
        return [Element(label, Gapped(open(group["values"]), open(group["mask"])), (stem,))]
    if "string" in encoding:
        raise _no_numbers(label, "text", path)
    raise DataError(f"{label} is a group (encoding '{encoding}'), not an array; name one of its")


def _stored(path: str, label: str, value: Any, open: Open) -> Any:
    """What reads an array, wherever it is."""
    if "string" in encoding_of(value):
        raise _no_numbers(label, "text", path)
    if hasattr(value, "store_path") or hasattr(value, "id"):
        if "categories" in value.attrs:  # as AnnData 0.7 wrote them
            raise _no_numbers(label, "categories", path)
        if value.dtype.kind not in "buifc":
            raise _no_numbers(label, f"of dtype {value.dtype}", path)
        return open(value)
    if is_dask_array(value):
        check_known(value, label)
        sparse = hasattr(value._meta, "toarray")
        return InDask(value.map_blocks(_dense, meta=np.empty((0, 0))) if sparse else value)
    if is_xarray(value):
        if value.dtype.kind not in "buif":
            raise _no_numbers(label, f"of dtype {value.dtype}", path)
        return stored_in_xarray(value, label)
    if hasattr(value, "toarray"):
        if value.format != "csr":
            if value.format == "csc":
                raise _by_columns(label)
            value = value.tocsr()
        values, indices = Held(np.asarray(value.data)), Held(np.asarray(value.indices))
        return Csr(label, values, indices, np.asarray(value.indptr, np.int64), value.shape[1])
    kind = str(getattr(value, "dtype", ""))
    if kind == "category":
        raise _no_numbers(label, "categories", path)
    if hasattr(value, "to_numpy"):  # a column of pandas, whose own dtypes have gaps
        if value.dtype.kind not in "buif":
            raise _no_numbers(label, f"of dtype {kind}", path)
        own = not isinstance(value.dtype, np.dtype)
        value = value.to_numpy(np.float64, na_value=np.nan) if own else value.to_numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "buifc":
        raise _no_numbers(label, f"of dtype {array.dtype}", path)
    return Held(array)


def _dense(block: Any) -> Any:
    return block.toarray()


def _by_columns(label: str) -> DataTypeError:
    return DataTypeError(
        f"{label} is sparse by columns (CSC), so that a run of rows cannot be read; write it by "
        "rows (adata.X = adata.X.tocsr()), or take an array of obsm"
    )


def _no_numbers(label: str, what: str, path: str) -> DataError:
    hint = "number them"
    if what == "categories":
        hint = f"take their codes, '{path}/codes', where order means something"
    return DataError(f"{label} is {what}, which are no numbers; {hint}, or leave it out")


@dataclass(frozen=True)
class GappedPart:
    """Values, and where they are missing."""

    values: Any
    mask: Any
    futures: Mapping[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def any_box(self) -> bool:
        """Whether any run of it can be read."""
        return all(getattr(each, "any_box", False) for each in (self.values, self.mask))

    def fill(self, values: Mapping[Any, Any]) -> GappedPart:
        """Give this part itself, which has no futures."""
        return self

    def read(self, i: int, box: Box) -> NDArray[Any]:
        """Read values, NaN where they are missing."""
        found = np.array(self.values.read(i, box), np.float64)
        found[np.asarray(self.mask.read(i, box), bool)] = np.nan
        return found

    def check_seen(self) -> None:
        """Check that this process sees both."""
        self.values.check_seen()
        self.mask.check_seen()


@dataclass(frozen=True)
class Gapped:
    """Numbers or flags of which some are missing, as a mask says."""

    values: Any
    mask: Any

    dtype = np.dtype(np.float64)
    in_memory = False

    @property
    def resident(self) -> bool:
        """Whether no other process can read them."""
        return bool(self.values.resident)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the values."""
        return tuple(self.values.shape)

    def edges(self, axis: int) -> Edges | None:
        """Those that the chunks of both have."""
        found = [each.edges(axis) for each in (self.values, self.mask)]
        known = [each for each in found if each is not None]
        return common_edges(known) if known else None

    def parts(self, runs: Sequence[Sequence[Box]], cuts: Sequence[Edges]) -> list[GappedPart]:
        """Give both."""
        each = (stored.parts(runs, cuts) for stored in (self.values, self.mask))
        return [GappedPart(values, mask) for values, mask in zip(*each, strict=True)]
