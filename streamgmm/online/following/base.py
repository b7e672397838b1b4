"""What every feed offers: units of rows in a fixed order, each with the position after it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.online.drift import Alarm

Position = dict[str, Any]


class Unit(NamedTuple):
    """Rows (n, n_features) that are learned together, and the position after them.

    Where units begin and end is a matter of the data alone, never of when it was looked at: so
    the model is the same to the last bit however often the follower looked, or was killed.
    Of samples of a cube `kept` says which have rows; None where all do.
    """

    rows: NDArray[Any]
    position: Position
    kept: NDArray[np.bool_] | None = None


class Layers(NamedTuple):
    """The shape of the samples behind the first dimension, and chunks for what is said of them."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]


class Feed(Protocol):
    """Something that rows are added to.

    Positions are JSON. `endless` is whether more may come once `units` has given all. One of a
    cube has ``layers: Layers``, too.
    """

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def endless(self) -> bool: ...  # noqa: D102

    def check(self, position: Position) -> None:
        """Check that what was read up to `position` is still what it was; raises SourceError."""

    def units(self, position: Position | None) -> Iterator[Unit]:
        """What is there after `position`, or from the start, and finished."""


class Learns(Protocol):
    """What learns the rows: a `streamgmm.online.learner.Learner`, or centres.

    `state` is None during the warm-up; `waiting` are the rows that are no part of the model yet,
    in order of arrival.
    """

    n_features: int

    @property
    def n_rows(self) -> int: ...  # noqa: D102

    @property
    def most_rows(self) -> int: ...  # noqa: D102

    @property
    def state(self) -> Any: ...  # noqa: D102

    @property
    def waiting(self) -> list[NDArray[Any]]: ...  # noqa: D102

    @property
    def busy(self) -> bool: ...  # noqa: D102

    def learn(self, batches: Iterable[tuple[NDArray[Any], Floats]]) -> list[Alarm]: ...  # noqa: D102

    def go_on(self) -> list[Alarm]: ...  # noqa: D102

    def mixture(self) -> Mixture: ...  # noqa: D102


def digest_rows(rows: NDArray[Any]) -> str:
    """A short SHA-256 of rows, by shape, dtype and values."""
    little = np.ascontiguousarray(rows, rows.dtype.newbyteorder("<"))
    return hashlib.sha256(repr(rows.shape).encode() + little.tobytes()).hexdigest()[:32]


def cut(rows: NDArray[Any], most: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Runs of at most `most` rows, each with the index after it."""
    for first in range(0, len(rows), most):
        yield min(first + most, len(rows)), rows[first : first + most]
