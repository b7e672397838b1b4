"""What a person passes as a source, opened as a feed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from streamgmm.errors import ParameterError
from streamgmm.online.following.array import ArrayFeed
from streamgmm.online.following.base import Feed
from streamgmm.online.following.cube import CubeFeed
from streamgmm.online.following.folder import FolderFeed
from streamgmm.online.following.icechunk import IcechunkFeed, open_repository
from streamgmm.online.following.stream import StreamFeed, read_format
from streamgmm.online.following.transformed import TransformedFeed
from streamgmm.places import Place, ZarrStore
from streamgmm.sources import TransformedSource, underlying
from streamgmm.sources.base import Source
from streamgmm.sources.regions import RegionSource
from streamgmm.sources.zarr import ZarrSource


def open_feed(
    source: Any,
    *,
    batch_rows: int,
    partial_chunks: bool,
    columns: Sequence[str] | None,
    format: str,
    replay: bool,
    branch: str,
    array: str,
    storage_options: dict[str, Any] | None,
) -> Feed:
    """What a person passes to `follow`, as a feed."""
    if isinstance(source, TransformedSource):
        inner = open_feed(
            underlying(source), batch_rows=batch_rows, partial_chunks=partial_chunks,
            columns=columns, format=format, replay=replay, branch=branch, array=array,
            storage_options=storage_options,
        )  # fmt: skip
        return TransformedFeed(inner, source.transform)
    if isinstance(source, ZarrSource) and source.weights is None:
        source = source.ref.array
    if isinstance(source, str) and source == "-":
        source = sys.stdin.buffer
    if hasattr(source, "readline"):
        pieces = read_format(source, format)
        name = getattr(source, "name", "the stream")
        name = "standard input" if name == "<stdin>" else str(name)
        return StreamFeed(pieces, batch_rows=batch_rows, replay=replay, name=name, joined=True)
    if isinstance(source, str) and source.startswith("icechunk:"):
        source = open_repository(source.removeprefix("icechunk:"))
    if type(source).__module__.split(".")[0] == "icechunk" and not isinstance(source, ZarrStore):
        return IcechunkFeed(source, branch=branch, array=array, batch_rows=batch_rows)
    if isinstance(source, (str, os.PathLike, ZarrStore)):
        place = Place.parse(source, storage_options)
        if place.directory is not None and _is_folder(place.directory):
            return FolderFeed(place, batch_rows=batch_rows, columns=columns)
        return ArrayFeed(place, batch_rows=batch_rows, partial=partial_chunks)
    if isinstance(source, Source):
        if isinstance(source, RegionSource):
            return CubeFeed(source, batch_rows=batch_rows, partial=partial_chunks)
        if not isinstance(source, ZarrSource) or source.weights is not None:
            raise ParameterError(
                f"{source.name}: rows of a {type(source).__name__} cannot be followed, nor can "
                "weights; give rows of a Zarr array or group, or what the rows were made of"
            )
        return ArrayFeed(source.ref.array, batch_rows=batch_rows, partial=partial_chunks)
    if hasattr(source, "store_path"):
        return ArrayFeed(source, batch_rows=batch_rows, partial=partial_chunks)
    if isinstance(source, Iterable):
        return StreamFeed(
            source, batch_rows=batch_rows, replay=replay, name="the iterable", joined=False
        )
    raise ParameterError(
        f"a {type(source).__name__} cannot be followed; give a Zarr array or its path, a folder, "
        "'-', an Icechunk repository or an iterable of arrays"
    )


def _is_folder(path: Path) -> bool:
    """Whether it is a directory that is no Zarr array or group itself."""
    metadata = ("zarr.json", ".zarray", ".zgroup")
    return path.is_dir() and not any((path / name).exists() for name in metadata)
