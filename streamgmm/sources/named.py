"""Variables that are known by name, put together by the names of their dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from streamgmm.errors import DataError
from streamgmm.sources.base import float_dtype
from streamgmm.sources.cubes import check_lengths, make_source
from streamgmm.sources.decoding import PLAIN, Decoding
from streamgmm.sources.names import check_names as check_names
from streamgmm.sources.names import parse_names as parse_names
from streamgmm.sources.regions import RegionSource
from streamgmm.sources.variables import FEATURE, Variable


class Named(NamedTuple):
    """An array that has a name, and names for its dimensions; messages call it by its label."""

    name: str
    kind: str
    stored: Any
    dims: tuple[str, ...]
    decoding: Decoding = PLAIN

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.kind} '{self.name}'" if self.name else self.kind


def open_named(
    name: str,
    found: Sequence[Named],
    sample_dims: Sequence[str] | None,
    mask: Any,
    sample_weight: Any,
    **more: Any,
) -> RegionSource:
    """Put variables together: each is a feature, or has features along one more dimension.

    Parameters
    ----------
    name : str
        What messages call them all.
    found : sequence of Named
        Features, in order.
    sample_dims : sequence of str or None
        By default all dimensions that they have, as the one with the most has them.
    mask, sample_weight : array-like, Zarr array, path, dask array, Named or None

    Raises
    ------
    DataError
        If dimensions do not fit one another, or a variable is of no real numbers.
    ParameterError
        If a dimension is named that there is not.
    """
    sizes = _sizes(found)
    if sample_dims is None:
        widest = max(found, key=lambda each: len(each.dims)).dims
        rest = [dim for each in found for dim in each.dims if dim not in widest]
        dims = tuple(dict.fromkeys([*rest, *widest]))
    else:
        dims = (sample_dims,) if isinstance(sample_dims, str) else tuple(sample_dims)
        check_names(dims, list(sizes), f"a dimension of {name}")
    shape = tuple(sizes[dim] for dim in dims)
    if not dims:
        raise DataError(f"{name}: its variables have no dimension that samples could lie along")
    check_lengths(shape, name, dims)
    variables, names = [], []
    for each in found:
        variable = _variable(each, dims, name)
        float_dtype(each.decoding.dtype(each.stored.dtype), each.label)
        variables.append(variable)
        wide = FEATURE in variable.axes
        many = [f"{each.name or 'feature'}_{i}" for i in range(variable.n_columns)]
        names += many if wide else [each.name]
    beside = [
        _beside(each, dims, sizes, what) if isinstance(each, Named) else each
        for each, what in ((mask, "mask"), (sample_weight, "sample_weight"))
    ]
    return make_source(
        name, shape, tuple(variables), *beside, feature_names=tuple(names), dims=dims, **more
    )


def _sizes(found: Sequence[Named]) -> dict[str, int]:
    """The length of each dimension; raises DataError, which names both that differ."""
    sizes: dict[str, int] = {}
    first: dict[str, Named] = {}
    for each in found:
        for dim, size in zip(each.dims, each.stored.shape, strict=True):
            if sizes.setdefault(dim, size) != size:
                raise DataError(
                    f"{first[dim].label} and {each.label} do not fit one another: dimension "
                    f"'{dim}' has length {sizes[dim]} in the first and {size} in the second"
                )
            first.setdefault(dim, each)
    return sizes


def _variable(each: Named, dims: tuple[str, ...], name: str) -> Variable:
    more = [dim for dim in each.dims if dim not in dims]
    if len(more) > 1:
        raise DataError(
            f"{each.label} has dimensions {each.dims}, of which {more} are not the samples' "
            f"{dims}; there may be one such dimension at most, along which its features lie"
        )
    axes = tuple(FEATURE if dim in more else dims.index(dim) for dim in each.dims)
    return Variable(each.label, each.stored, axes, each.decoding)


def _beside(each: Named, dims: tuple[str, ...], sizes: Mapping[str, int], what: str) -> Variable:
    for dim, size in zip(each.dims, each.stored.shape, strict=True):
        if dim not in dims or sizes[dim] != size:
            raise DataError(
                f"{what} is {each.label} with dimensions {each.dims} and shape "
                f"{tuple(each.stored.shape)}, but the samples have dimensions {dims} of lengths "
                f"{tuple(sizes[dim] for dim in dims)}"
            )
    axes = tuple(dims.index(dim) for dim in each.dims)
    return Variable(f"{what} ({each.label})", each.stored, axes, each.decoding)
