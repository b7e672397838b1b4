"""Follow a source: learn what is added to it, exactly once, for as long as it grows."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamgmm.errors import ParameterError, StreamGMMError
from streamgmm.estimators.online import OnlineGaussianMixture
from streamgmm.online.following.array import ArrayFeed
from streamgmm.online.following.base import Feed, Position, Unit
from streamgmm.online.following.folder import FolderFeed
from streamgmm.online.following.icechunk import IcechunkFeed, open_repository
from streamgmm.online.following.lock import StateInUseError, only_follower
from streamgmm.online.following.session import Session
from streamgmm.online.following.state import open_state
from streamgmm.online.following.stream import StreamFeed, read_format
from streamgmm.places import Place

__all__ = ["Feed", "Position", "StateInUseError", "Unit", "follow", "open_feed"]

BATCH_ROWS = 1_000
SAVE_ROWS = 100_000


def follow(
    source: Any,
    state: str | os.PathLike[str] = "state.zarr",
    model: OnlineGaussianMixture | None = None,
    *,
    once: bool = False,
    interval: float = 5.0,
    batch_rows: int = BATCH_ROWS,
    save_rows: int = SAVE_ROWS,
    labels: str | os.PathLike[str] | None = None,
    log_density: str | os.PathLike[str] | None = None,
    alarms: str | os.PathLike[str] | None = None,
    partial_chunks: bool = False,
    skip_refused: bool = False,
    columns: Sequence[str] | None = None,
    format: str = "csv",
    replay: bool = True,
    branch: str = "main",
    array: str = "",
    storage_options: dict[str, Any] | None = None,
    on_batch: Callable[[OnlineGaussianMixture, int], None] | None = None,
) -> OnlineGaussianMixture:
    """Learn what a source has, and what is added to it, each row exactly once.

    The model and the position are saved in one atomic step. Killed at any moment and started
    again, the follower goes on from what was saved last, and the model comes out the same to
    the last bit as if it had never been killed. On SIGTERM it saves and returns.

    Parameters
    ----------
    source : str, path-like, zarr.Array, icechunk.Repository, file or iterable
        A Zarr array that grows by rows (only whole, finished chunks are read); a folder to which
        Zarr, npy or Parquet files are added whose names sort in that order; ``"-"`` for standard
        input, or an open binary file; an Icechunk repository, or ``"icechunk:PATH"``; or an
        iterable of arrays.
    state : str or path-like, default="state.zarr"
        A local path. `streamgmm.load` reads the model in it, at any time.
    model : OnlineGaussianMixture, optional
        What to learn, where there is no state yet. Where there is one, it must be alike.
    once : bool, default=False
        Return when all that is there has been learned, instead of waiting for more.
    interval : float, default=5.0
        Seconds from one look to the next.
    batch_rows : int, default=1000
        Rows that are learned together. Batches begin anew with each chunk, file, commit or item.
    save_rows : int, default=100000
        Rows from one save to the next while there is more to read.
    labels, log_density, alarms : str or path-like, optional
        Where to append each row's label, its log-density in nats, and the alarms, exactly once:
        lines of JSON for a name that ends in .ndjson or .jsonl, else a Zarr array. A row's are
        those of the model before it learned the row; the rows of the warm-up come when it ends.
    partial_chunks : bool, default=False
        Whether rows of a chunk that is not whole are read. What a batch is then depends on when
        the array was looked at.
    skip_refused : bool, default=False
        Whether a batch with NaN or infinity is passed over, instead of ending with an error. Its
        rows are labelled -1, of log-density NaN.
    columns : sequence of str, optional
        Columns of Parquet files.
    format : {"csv", "ndjson", "arrow"}, default="csv"
        Of standard input, or an open file.
    replay : bool, default=True
        Whether standard input or an iterable starts from its first row again when the follower
        does; the rows that were learned are then skipped.
    branch, array : str
        Of an Icechunk repository.
    storage_options : dict, optional
        For the file system of a URL.
    on_batch : callable, optional
        Called with the model and the rows of a batch after each.

    Returns
    -------
    OnlineGaussianMixture

    Raises
    ------
    StateInUseError
        If another follower has this state.
    SourceError
        If the source shrank, or was rewritten behind the position.
    ParameterError, ModelFileError
        If the state is of another model or source, or damaged.
    NonFiniteError
        If a batch has NaN or infinity; all before it is saved.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> batches = [np.random.default_rng(i).normal(size=(500, 2)) for i in range(4)]
    >>> path = tempfile.mkdtemp() + "/state.zarr"
    >>> model = follow(batches, path, OnlineGaussianMixture(1, warm_up=100))
    >>> int(model.monitor_["rows"].sum())
    2000
    """
    if not interval > 0 or batch_rows < 1 or save_rows < 1:
        raise ParameterError("interval, batch_rows and save_rows must be positive")
    place = Place.parse(state)
    feed = open_feed(
        source, batch_rows=batch_rows, partial_chunks=partial_chunks, columns=columns,
        format=format, replay=replay, branch=branch, array=array, storage_options=storage_options,
    )  # fmt: skip
    with only_follower(place), stoppable() as stop:
        followed = open_state(place, model, type(feed).__name__)
        paths = {"labels": labels, "log_density": log_density, "alarms": alarms}
        outputs = {name: Place.parse(path) for name, path in paths.items() if path is not None}
        session = Session(followed, place, outputs, save_rows, skip_refused, on_batch)
        if followed.position is not None:
            feed.check(followed.position)
        try:
            while not stop.asked:
                for unit in stop.each(feed.units(followed.position)):
                    session.learn(unit, feed.name)
                session.save()
                if once or not feed.endless:
                    break
                stop.wait(interval)
        except StreamGMMError:
            session.save()
            raise
    if stop.asked == signal.SIGINT:
        raise KeyboardInterrupt
    return followed.model


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
    if isinstance(source, str) and source == "-":
        source = sys.stdin.buffer
    if hasattr(source, "readline"):
        pieces = read_format(source, format)
        name = getattr(source, "name", "the stream")
        name = "standard input" if name == "<stdin>" else str(name)
        return StreamFeed(pieces, batch_rows=batch_rows, replay=replay, name=name, joined=True)
    if isinstance(source, str) and source.startswith("icechunk:"):
        source = open_repository(source.removeprefix("icechunk:"))
    if type(source).__module__.split(".")[0] == "icechunk":
        return IcechunkFeed(source, branch=branch, array=array, batch_rows=batch_rows)
    if isinstance(source, (str, os.PathLike)):
        place = Place.parse(source, storage_options)
        if place.directory is not None and _is_folder(place.directory):
            return FolderFeed(place, batch_rows=batch_rows, columns=columns)
        return ArrayFeed(place, batch_rows=batch_rows, partial=partial_chunks)
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


class _Stopped(BaseException):
    """A signal came while nothing was being learned."""


class Stop:
    """Whether to end: asked for by a signal, which ends a wait but never a batch."""

    def __init__(self) -> None:
        self.asked = 0
        self._waiting = False

    def __call__(self, signum: int, frame: Any) -> None:
        """Handle a signal."""
        self.asked = signum
        if self._waiting:
            raise _Stopped

    def each(self, units: Iterator[Unit]) -> Iterator[Unit]:
        """The units until it is time to end."""
        while not self.asked:
            try:
                self._waiting = True
                self._end_if_asked()
                unit = next(units)
            except (StopIteration, _Stopped):
                return
            finally:
                self._waiting = False
            yield unit

    def _end_if_asked(self) -> None:
        """End now if the signal came just before it could end a wait."""
        if self.asked:
            raise _Stopped

    def wait(self, seconds: float) -> None:
        """Sleep, or be woken by the signal."""
        try:
            self._waiting = True
            self._end_if_asked()
            time.sleep(seconds)
        except _Stopped:
            pass
        finally:
            self._waiting = False


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Have SIGTERM and Ctrl-C end the follower between batches, in the main thread."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(each, stop) for each in signals]
    try:
        yield stop
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)
