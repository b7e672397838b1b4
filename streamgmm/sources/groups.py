"""Open Zarr groups whose arrays are variables, with dimensions that are named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamgmm.errors import DataError
from streamgmm.places import Place
from streamgmm.sources.decoding import decoding_of
from streamgmm.sources.hdf5 import datasets_of, stored_in_hdf5
from streamgmm.sources.named import Named, check_names, open_named, parse_names
from streamgmm.sources.regions import RegionSource
from streamgmm.sources.variables import InZarr
from streamgmm.sources.zarr_open import open_ref


def open_group(
    group: Any,
    name: str,
    *,
    features: Any,
    sample_dims: Sequence[str] | None = None,
    mask: Any = None,
    sample_weight: Any = None,
    place: Place | None = None,
) -> RegionSource:
    """Open arrays of a group as features; of HDF5, datasets of the file `place`.

    Scale, offset and fill values are those of the attributes that xarray writes and reads. The
    fill value of an array of format 2 that xarray wrote is a gap, too, as xarray has it.

    Raises
    ------
    DataError
        If variables do not fit one another.
    ParameterError
        If there is no such variable or dimension; says which is nearest.
    """
    there = _arrays(group)
    wanted = parse_names(features)
    check_names(wanted, list(there), f"an array of '{name}'")
    found = [_named(each, there[each], place) for each in wanted]
    unnamed = [each.label for each in found if each.dims[:1] == ("axis 0",)]
    if unnamed and any(each.stored.shape != found[0].stored.shape for each in found):
        raise DataError(
            f"'{name}': {unnamed[0]} has no names of its dimensions, so all must have the same "
            f"shape, and {', '.join(f'{e.label} has {e.stored.shape}' for e in found)}"
        )
    beside = [
        _named(each, there[each], place) if isinstance(each, str) and each in there else each
        for each in (mask, sample_weight)
    ]
    return open_named(f"group '{name}'", found, sample_dims, *beside)


def _arrays(group: Any) -> dict[str, Any]:
    if not hasattr(group, "members"):
        return dict(datasets_of(group))
    import zarr

    members = group.members(max_depth=None)
    return {name: node for name, node in sorted(members) if isinstance(node, zarr.Array)}


def _named(name: str, array: Any, place: Place | None) -> Named:
    attributes = dict(array.attrs)
    if not hasattr(array, "store_path"):
        named = tuple(_dimension(each) or f"axis {i}" for i, each in enumerate(array.dims))
        stored = stored_in_hdf5(array, place)
        return Named(name, "variable", stored, named, decoding_of(attributes))
    ref = open_ref(array)
    dims = getattr(array.metadata, "dimension_names", None)
    old = attributes.get("_ARRAY_DIMENSIONS")
    fill = None
    if old is not None and array.metadata.zarr_format == 2:
        dims, fill = tuple(old), array.fill_value
    if dims is None or any(dim is None for dim in dims):
        dims = tuple(f"axis {i}" for i in range(array.ndim))
    return Named(name, "variable", InZarr(ref), tuple(dims), decoding_of(attributes, fill))


def _dimension(found: Any) -> str:
    """The name of a dimension in HDF5: its label, or that of its scale, as NetCDF has it."""
    scales = found.keys()
    name = found.label or (found[0].name if scales else "")
    return str(name).rpartition("/")[2]
