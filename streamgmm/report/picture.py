"""A picture beside its segments, and beside how certain each pixel is of its own."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError, ParameterError

_GAP = 8  # pixels of white between two panels
_STRIP = 60  # pixels of white below, for what the panels are

# Anchors of cividis (Nuñez, Anderton & Renslow 2018): even in grey, and to the colour-blind.
_CIVIDIS = np.array(
    [[0, 34, 78], [58, 73, 108], [112, 113, 115], [166, 157, 117], [225, 204, 85], [254, 232, 56]]
)


def save_segments(
    path: str | os.PathLike[str],
    picture: NDArray[Any],
    labels: NDArray[Any],
    colours: NDArray[Any],
    certainty: NDArray[Any] | None = None,
) -> None:
    """Save a picture with, to its right, each pixel in the colour of its component.

    Parameters
    ----------
    path : str or path-like
        Of an image file, such as a PNG.
    picture : ndarray of shape (height, width, 3)
        Of uint8.
    labels : ndarray of shape (height, width)
        Component of each pixel.
    colours : ndarray of shape (n_components, 3)
        Red, green and blue in 0 to 1; what is beyond is clipped.
    certainty : ndarray of shape (height, width), optional
        The greatest of the probabilities of a pixel's components, for a third panel: dark where it
        is 1, light where it is 1/2 or less.

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
    size = picture.shape[:2]
    if picture.ndim != 3 or picture.shape[2] != 3 or labels.shape != size:
        raise DataError(
            f"a picture of shape {picture.shape} needs labels of its height and width, "
            f"not of shape {labels.shape}"
        )
    if certainty is not None and certainty.shape != size:
        raise DataError(f"a picture of {size} pixels needs a certainty of that shape")
    panels = [picture, np.rint(255 * np.clip(colours, 0, 1)).astype(np.uint8)[labels]]
    if certainty is not None:
        panels.append(_doubt_colours(2 * (1 - certainty)))
    white = np.full((len(picture), _GAP, 3), 255, np.uint8)
    beside = [part for panel in panels for part in (white, panel)][1:]
    image = Image.fromarray(np.hstack(beside))
    if certainty is not None:
        image = _captioned(image, picture.shape[1], len(colours))
    image.save(path)


def _doubt_colours(doubt: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours of numbers in 0 to 1, dark to light."""
    at = np.linspace(0, 1, len(_CIVIDIS))
    shown = np.clip(doubt, 0, 1)
    bands = [np.interp(shown, at, _CIVIDIS[:, band]) for band in range(3)]
    colours: NDArray[np.uint8] = np.rint(np.stack(bands, axis=-1)).astype(np.uint8)
    return colours


def _captioned(image: Any, width: int, n_components: int) -> Any:
    """The panels with a line below that says what each is, and the scale of the last."""
    from PIL import Image, ImageDraw, ImageFont

    whole = Image.new("RGB", (image.width, image.height + _STRIP), "white")
    whole.paste(image)
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(28)
    middle = image.height + _STRIP // 2
    said = ("the photograph", f"{n_components} components, in their mean colours")
    for panel, text in enumerate(said):
        left = panel * (width + _GAP)
        draw.text((left + width // 2, middle), text, "black", font, anchor="mm")
    left = 2 * (width + _GAP)
    scale = Image.fromarray(_doubt_colours(np.tile(np.linspace(1, 0, width // 4), (20, 1))))
    whole.paste(scale, (left + 3 * width // 8, middle - 10))
    draw.text((left + 3 * width // 8 - 8, middle), "doubtful: 50%", "black", font, anchor="rm")
    draw.text((left + 5 * width // 8 + 8, middle), "certain: 100%", "black", font, anchor="lm")
    return whole
