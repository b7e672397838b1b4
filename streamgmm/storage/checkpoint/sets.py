"""Sets of components that rows look at, as Zarr arrays in a checkpoint: an array a block."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import numpy as np

from streamgmm.model.truncation.sets import Kept, Turn
from streamgmm.places import Place
from streamgmm.places.retry import reaching

_log = logging.getLogger("streamgmm")


class StoredSets:
    """Sets at a place that every worker can reach: see `model.truncation.sets.Sets`.

    A task that is run again reads what it read before, and writes the same bytes to the same
    place. What is damaged is searched for anew, and said in the log.
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    def take(self, turn: Turn, start: int) -> Kept | None:
        """Read what a read has left of a block; None where it is not there, or damaged."""
        import zarr

        if turn.read < 0:
            return None
        path = _path(turn, start)
        try:
            with reaching(self._place.name):
                array = zarr.open_array(self._place.store(), path=path, mode="r")
                ids = np.asarray(array[...])
        except (FileNotFoundError, KeyError):
            return None
        except Exception as error:
            _log.warning("%s/%s cannot be read (%s): searched anew", self._place, path, error)
            return None
        facts: dict[str, Any] = dict(array.attrs)
        if facts.get("read") != turn.read:
            return None
        if facts.get("sha256") != _digest(ids):
            _log.warning("%s/%s is damaged: searched anew", self._place, path)
            return None
        runs = tuple((int(first), int(n)) for first, n in facts["runs"])
        return Kept(int(facts["k"]), runs, ids)

    def leave(self, turn: Turn, start: int, kept: Kept) -> None:
        """Write what a read leaves of a block."""
        import zarr

        facts: dict[str, Any] = {
            "read": turn.read,
            "k": kept.k,
            "runs": [list(run) for run in kept.runs],
            "sha256": _digest(kept.ids),
        }
        with reaching(self._place.name):
            zarr.create_array(
                self._place.store(),
                name=_path(turn, start),
                data=kept.ids,
                chunks=kept.ids.shape,
                attributes=facts,
                overwrite=True,
            )


def _path(turn: Turn, start: int) -> str:
    return f"{turn.candidate}/{turn.read % 2}/{start}"


def _digest(ids: Any) -> str:
    """SHA-256, whatever the byte order."""
    little = np.ascontiguousarray(ids, ids.dtype.newbyteorder("<"))
    return hashlib.sha256(little.data).hexdigest()
