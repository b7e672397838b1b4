"""A feed whose rows are transformed as they come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from streamgmm.online.following.base import Feed, Position, Unit
from streamgmm.sources.transforming import Transform


class TransformedFeed:
    """The units of another feed, transformed; positions are those of the feed.

    Parameters
    ----------
    feed : Feed
    transform : Transform
    """

    def __init__(self, feed: Feed, transform: Transform) -> None:
        self._feed, self._transform = feed, transform

    @property
    def name(self) -> str:
        """As the feed's."""
        return self._feed.name

    @property
    def endless(self) -> bool:
        """As the feed is."""
        return self._feed.endless

    def check(self, position: Position) -> None:
        """Check what was read, as it was given; raises SourceError."""
        self._feed.check(position)

    def units(self, position: Position | None) -> Iterator[Unit]:
        """Units of the feed, transformed; a gap is left for whoever learns to name."""
        for unit in self._feed.units(position):
            single = unit.rows.dtype == np.float32
            rows = np.ascontiguousarray(unit.rows, np.float32 if single else np.float64)
            with np.errstate(all="ignore"):
                yield unit._replace(rows=self._transform.ready(rows.dtype)(rows))

    def __getattr__(self, name: str) -> Any:
        """Whatever else the feed has."""
        if name == "_feed":
            raise AttributeError(name)
        return getattr(self._feed, name)
