"""A branch of an Icechunk repository, commit by commit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from streamgmm.errors import ParameterError, SourceError
from streamgmm.online.following.base import Position, Unit, cut, digest_rows


class IcechunkFeed:
    """The rows that each commit has added to an array.

    A commit is whole by itself, so all its rows count. Batches begin anew with each commit.
    """

    endless = True

    def __init__(self, repository: Any, *, branch: str, array: str, batch_rows: int) -> None:
        self._repository, self._branch, self._path = repository, branch, array
        self._batch_rows = batch_rows
        self.name = f"array '{array or '/'}' on branch '{branch}'"

    def _array(self, snapshot: str) -> Any:
        import zarr

        session = self._repository.readonly_session(snapshot_id=snapshot)
        try:
            node = zarr.open(session.store, path=self._path, mode="r")
        except (FileNotFoundError, KeyError):
            return None
        if not isinstance(node, zarr.Array):
            arrays = ", ".join(sorted(node.array_keys()))
            if not arrays and snapshot != self._snapshots()[-1]:
                return None
            raise SourceError(f"{self.name} is a group; name one of its arrays: {arrays}")
        if node.ndim != 2:
            raise SourceError(f"{self.name} has shape {node.shape}; rows and columns are needed")
        return node

    def _snapshots(self) -> list[str]:
        """Commits of the branch, the oldest first."""
        return [each.id for each in self._repository.ancestry(branch=self._branch)][::-1]

    def check(self, position: Position) -> None:
        """Check that the branch still has the commit, and at its tip the rows, that were read."""
        snapshots = self._snapshots()
        if position["snapshot"] not in snapshots:
            raise SourceError(
                f"{self.name} no longer has the commit {position['snapshot']} that was read "
                "last: the branch was reset; follow it with another state"
            )
        array = self._array(snapshots[-1])
        n = 0 if array is None else int(array.shape[0])
        first, last, known = position["seen"]
        if n < last:
            raise SourceError(f"{self.name} has {n} rows but {last} were learned: it has shrunk")
        if digest_rows(np.asarray(array[first:last])) != known:
            raise SourceError(
                f"{self.name}, rows {first}:{last}: they are not those that were learned; the "
                "array was rewritten behind the position; follow it with another state"
            )

    def units(self, position: Position | None) -> Iterator[Unit]:
        """Commits after the position, and what is left of the one that it is in."""
        snapshots = self._snapshots()
        row = 0
        if position is not None:
            row = int(position["row"])
            snapshots = snapshots[snapshots.index(position["snapshot"]) :]
        for snapshot in snapshots:
            array = self._array(snapshot)
            n = 0 if array is None else int(array.shape[0])
            while row < n:
                stop = min(n, row + max(self._batch_rows, array.chunks[0] // self._batch_rows
                                        * self._batch_rows))  # fmt: skip
                rows = np.asarray(array[row:stop])
                for after, part in cut(rows, self._batch_rows):
                    seen = [row + after - len(part), row + after, digest_rows(part)]
                    yield Unit(part, {"snapshot": snapshot, "row": row + after, "seen": seen})
                row = stop


def open_repository(where: str) -> Any:
    """Open a repository in a local directory; needs the extra."""
    try:
        import icechunk
    except ImportError as error:
        raise ParameterError(
            "an Icechunk branch needs icechunk: pip install 'streamgmm[icechunk]'"
        ) from error
    return icechunk.Repository.open(icechunk.local_filesystem_storage(where))
