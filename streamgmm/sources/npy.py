"""Arrays in ``.npy`` files, mapped and not read."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import SourceError, SourceNotFoundError
from streamgmm.sources.zarr_ref import describe


def is_npy(X: object) -> bool:
    """Whether `X` is the path of a ``.npy`` file.

    >>> is_npy("rows.npy"), is_npy("s3://bucket/rows.npy")
    (True, False)
    """
    if not isinstance(X, (str, os.PathLike)):
        return False
    name = os.fsdecode(X)
    return name.endswith(".npy") and "://" not in name


def open_npy(path: Any) -> NDArray[Any]:
    """Map a file; raises SourceNotFoundError, SourceError."""
    try:
        mapped: NDArray[Any] = np.load(path, mmap_mode="r")
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"there is nothing at '{path}'") from error
    except Exception as error:
        raise SourceError(f"'{path}' cannot be read as .npy: {describe(error)}") from error
    return mapped
