"""AnnData: cells by genes, in a Zarr store, in HDF5 (``.h5ad``) or in memory.

Stores are read as they are specified, without the package `anndata`: each array and group says
in its attributes how it is encoded (``encoding-type``). What is said of cells may be an array,
sparse rows, or columns of a table: see `elements.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from streamgmm.errors import DataError, ParameterError
from streamgmm.places import Place
from streamgmm.sources.base import float_dtype
from streamgmm.sources.csr import Csr, with_picks
from streamgmm.sources.cubes import check_lengths, make_source
from streamgmm.sources.elements import Element, elements_of, encoding_of, names_in
from streamgmm.sources.hdf5 import stored_in_hdf5
from streamgmm.sources.names import check_names, parse_names
from streamgmm.sources.regions import RegionSource
from streamgmm.sources.variables import FEATURE, InZarr, Variable
from streamgmm.sources.zarr_open import open_ref

PARTS = ("layers", "obsm")


def is_cells(node: Any) -> bool:
    """Whether a group of Zarr or HDF5 is an AnnData store; 0.7 did not say so."""
    if encoding_of(node) == "anndata":
        return True
    group = hasattr(node, "keys") and not hasattr(node, "dtype")
    return group and all(
        part in node and encoding_of(node[part]) == "dataframe" for part in ("obs", "var")
    )


def is_anndata(value: object) -> bool:
    """Whether `value` is an AnnData object, without importing anndata."""
    module = sys.modules.get("anndata")
    return module is not None and isinstance(value, module.AnnData)


@dataclass(frozen=True)
class Cells:
    """What is said of cells, by name, wherever it is.

    Attributes
    ----------
    name : str
        What messages call them.
    n_cells : int
    columns : sequence of str
        Of ``obs``.
    arrays : sequence of str
        ``X``, ``layers/…``, ``obsm/…``.
    get : callable
        Gives what is at a path; KeyError where nothing is.
    genes : callable
        Gives the names of the columns of ``X``.
    open : callable
        Makes an array of a store into what blocks read.
    """

    name: str
    n_cells: int
    columns: Sequence[str]
    arrays: Sequence[str]
    get: Callable[[str], Any]
    genes: Callable[[], list[str]]
    open: Callable[[Any], Any]

    def path(self, key: str) -> str | None:
        """Find the path that `key` is, or is short for; None where it may be a gene."""
        if key in self.columns:
            return f"obs/{key}"
        for path in (key, *(f"{part}/{key}" for part in PARTS)):
            if path in self.arrays:
                return path
        try:
            return None if "/" not in key or self.get(key) is None else key
        except (KeyError, TypeError, ValueError):
            return None

    def find(self, path: str) -> list[Element]:
        """Open what is at a path; raises DataError, DataTypeError."""
        found = elements_of(path, f"'{path}' of {self.name}", self.get(path), self.open)
        for each in found:
            shape = tuple(each.stored.shape)
            if len(shape) not in (1, 2) or shape[0] != self.n_cells:
                raise DataError(
                    f"{each.label} has shape {shape}, and there are {self.n_cells} cells; give "
                    "what has a value, or several, for each of them"
                )
        return found

    def of_genes(self, keys: Sequence[str]) -> Element:
        """Open some columns of ``X``; raises ParameterError, which says what is nearest."""
        genes = self.genes() if "X" in self.arrays else []
        there = [*self.arrays, *self.columns, *genes]
        check_names(keys, there, f"an array, a column of obs or a gene of {self.name}")
        (whole,) = self.find("X")
        at = {gene: i for i, gene in reversed(list(enumerate(genes)))}
        return whole._replace(names=tuple(keys), picks=tuple(at[key] for key in keys))


def open_cells(
    cells: Cells, *, features: Any = None, mask: Any = None, sample_weight: Any = None
) -> RegionSource:
    """Open some of what is said of cells as their features.

    Parameters
    ----------
    features : str or sequence of str
        Each an array (``X``, ``layers/…``, ``obsm/…``), a column of ``obs``, or a gene.
    mask, sample_weight
        Names of columns of ``obs``, too.

    Raises
    ------
    ParameterError
        If there is no such array, column or gene; says which is nearest.
    DataError, DataTypeError
        If it is text, dates, categories or stored by columns; or if there are no cells.
    """
    if features is None:
        listed = ", ".join(f"'{each}'" for each in cells.arrays)
        likely = [each for each in cells.arrays if each.startswith("obsm/")]
        first = "obsm/X_pca" if "obsm/X_pca" in likely else (*likely, "X")[0]
        raise ParameterError(
            f"{cells.name} is AnnData with {listed or 'no arrays'}, and columns of obs; say which "
            f"are features, as in rows(…, features='{first}')"
        )
    check_lengths((cells.n_cells,), cells.name, ("obs",))
    found: list[Element] = []
    for path, keys in groupby(parse_names(features), cells.path):
        together = list(keys)
        if path is None:
            found.append(cells.of_genes(together))
        else:
            found += [each for _ in together for each in _named(path, cells)]
    names = [name for each in found for name in each.names]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ParameterError(f"features={features!r}: there are two columns named '{twice}'")
    variables = tuple(_variable(each) for each in found)
    masking, weighing = (
        _beside(cells, given, what)
        for given, what in ((mask, "mask"), (sample_weight, "sample_weight"))
    )
    shape = (cells.n_cells,)
    return make_source(cells.name, shape, variables, masking, weighing, feature_names=tuple(names))


def _named(path: str, cells: Cells) -> list[Element]:
    """What is at a path; columns of X and of layers have the names of genes."""
    found = cells.find(path)
    if path == "X" or path.startswith("layers/"):
        genes = tuple(cells.genes())
        if len(set(genes)) == len(genes):
            return [each._replace(names=genes) for each in found]
    return found


def _variable(each: Element) -> Variable:
    float_dtype(each.decoding.dtype(each.stored.dtype), each.label)
    check_lengths(each.stored.shape, each.label)
    axes = (0, FEATURE)[: len(each.stored.shape)]
    stored, picks = each.stored, each.picks
    if isinstance(stored, Csr) and picks is not None:
        stored, picks = with_picks(stored, picks), None
    return Variable(each.label, stored, axes, each.decoding, picks)


def _beside(cells: Cells, given: Any, what: str) -> Any:
    """A mask or weights: a column of ``obs`` by name, or as they are given."""
    if not isinstance(given, str):
        return given.to_numpy() if hasattr(given, "to_numpy") else given
    path = cells.path(given)
    if path is not None:
        (found,) = cells.find(path)[:1]
        return Variable(f"{what} ({found.label})", found.stored, (0,), found.decoding)
    if "/" not in given and not os.path.exists(given):
        check_names([given], list(cells.columns), f"a column of obs of {cells.name}")
    return given


def stored_cells(node: Any, name: str, place: Place | None = None) -> Cells:
    """Give what is in a store: an open group of Zarr, or of HDF5, in the file `place`."""
    obs = node["obs"]
    index = obs[obs.attrs["_index"]]
    arrays = [part for part in ("X",) if part in node and encoding_of(node[part]) != "null"]
    for part in PARTS:
        arrays += [f"{part}/{key}" for key in sorted(node[part].keys())] if part in node else []

    def genes() -> list[str]:
        var = node["var"]
        return names_in(var[var.attrs["_index"]])

    def opened(array: Any) -> Any:
        if hasattr(array, "store_path"):
            return InZarr(open_ref(array))
        return stored_in_hdf5(array, place)

    columns = [str(each) for each in obs.attrs["column-order"]]
    values = index["values"] if hasattr(index, "keys") else index  # text that may have gaps
    n_cells = int(values.shape[0])
    return Cells(f"'{name}'", n_cells, columns, arrays, node.__getitem__, genes, opened)


def held_cells(data: Any) -> Cells:
    """Give what an AnnData object holds, in memory or lazily."""
    arrays = ["X"] if data.X is not None else []
    arrays += [f"{part}/{key}" for part in PARTS for key in getattr(data, part)]

    def get(path: str) -> Any:
        part, _, key = path.partition("/")
        if part == "X":
            return data.X
        if part not in (*PARTS, "obs"):
            raise KeyError(path)
        if part == "obs" and key.endswith("/codes"):
            column = data.obs[key.removesuffix("/codes")]
            if not hasattr(column, "cat"):
                raise KeyError(path)
            return column.cat.codes
        return getattr(data, part)[key]

    def opened(array: Any) -> Any:
        if hasattr(array, "store_path"):
            return InZarr(open_ref(array))
        return stored_in_hdf5(array)

    columns = [str(each) for each in data.obs.columns]
    return Cells(
        "the AnnData object", int(data.n_obs), columns, arrays, get,
        lambda: [str(each) for each in data.var_names], opened,
    )  # fmt: skip
