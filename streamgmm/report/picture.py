"""A picture beside its segments."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError, ParameterError

_GAP = 8  # pixels of white between the two


def save_segments(
    path: str | os.PathLike[str],
    picture: NDArray[Any],
    labels: NDArray[Any],
    colours: NDArray[Any],
) -> None:
    """Save a picture with, to its right, each pixel in the colour of its component.

    Parameters
    ----------
    path : str or path-like
        Of an image file, such as a PNG.
    picture : ndarray of shape (height, width, 3)
        uint8.
    labels : ndarray of shape (height, width)
        Component of each pixel.
    colours : ndarray of shape (n_components, 3)
        Red, green and blue in 0 to 1; what is beyond is clipped.

    Raises
    ------
    DataError
        If the shapes do not fit.
    ParameterError
        If Pillow is not installed.

    Examples
    --------
    >>> import tempfile
    >>> picture = np.zeros((2, 3, 3), np.uint8)
    >>> labels = np.array([[0, 0, 1], [0, 1, 1]])
    >>> save_segments(tempfile.mkdtemp() + "/two.png", picture, labels, np.eye(3)[:2])
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ParameterError("pictures need Pillow: pip install 'streamgmm[demo]'") from error
    if picture.ndim != 3 or picture.shape[2] != 3 or labels.shape != picture.shape[:2]:
        raise DataError(
            f"a picture of shape {picture.shape} needs labels of its height and width, "
            f"not of shape {labels.shape}"
        )
    painted = np.rint(255 * np.clip(colours, 0, 1)).astype(np.uint8)[labels]
    white = np.full((len(picture), _GAP, 3), 255, np.uint8)
    Image.fromarray(np.hstack([picture, white, painted])).save(path)
