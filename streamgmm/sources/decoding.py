"""What makes numbers of what is stored: fill values, scale and offset, as xarray has them."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Decoding:
    """Values that stand for a gap, a scale and an offset.

    Attributes
    ----------
    fills : tuple of float
        Stored values that are gaps, and become NaN.
    scale, offset : float or None

    Examples
    --------
    >>> Decoding((-9.0,), 0.5, 1.0).decode(np.array([-9, 4], np.int16)).tolist()
    [nan, 3.0]
    """

    fills: tuple[float, ...] = ()
    scale: float | None = None
    offset: float | None = None

    @property
    def plain(self) -> bool:
        """Whether there is nothing to do."""
        return not self.fills and self.scale is None and self.offset is None

    def dtype(self, stored: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype of decoded values: float32 for two bytes and for float32, else float64."""
        if self.plain or stored.kind not in "buif":
            return stored
        if self.offset is not None and stored.kind in "iu":  # as a large offset needs
            return np.dtype(np.float64)
        single = stored.itemsize <= 2 or (stored.kind == "f" and stored.itemsize <= 4)
        return np.dtype(np.float32 if single else np.float64)

    def decode(self, values: NDArray[Any]) -> NDArray[Any]:
        """Give numbers, NaN in gaps; the values themselves where there is nothing to do."""
        if self.plain:
            return values
        decoded = values.astype(self.dtype(values.dtype))
        for fill in self.fills:
            if fill == fill:  # NaN is a gap already
                decoded[values == fill] = np.nan
        if self.scale is not None:
            decoded *= decoded.dtype.type(self.scale)
        if self.offset is not None:
            decoded += decoded.dtype.type(self.offset)
        return decoded


PLAIN = Decoding()


def decoding_of(attributes: Mapping[str, Any], fill_value: Any = None) -> Decoding:
    """Read the attributes ``_FillValue``, ``missing_value``, ``scale_factor`` and ``add_offset``.

    Parameters
    ----------
    attributes : mapping
        Of the array.
    fill_value : optional
        Another value that stands for gaps.

    Examples
    --------
    >>> decoding_of({"_FillValue": -1, "scale_factor": 0.1})
    Decoding(fills=(-1.0,), scale=0.1, offset=None)
    """
    fills = [fill_value, *(attributes.get(name) for name in ("_FillValue", "missing_value"))]
    numbers = [number for each in fills for number in _numbers(each)]
    scale, offset = (
        next(iter(_numbers(attributes.get(name))), None) for name in ("scale_factor", "add_offset")
    )
    return Decoding(tuple(dict.fromkeys(numbers)), scale, offset)


def _numbers(value: Any) -> list[float]:
    """The numbers in an attribute; xarray writes those of floats as Base64 in format 3."""
    try:
        if isinstance(value, str):
            return list(struct.unpack("<d", base64.b64decode(value, validate=True)))
        return [float(each) for each in np.ravel(value) if each is not None]
    except (TypeError, ValueError, struct.error):
        return []
