"""Rows that come by themselves: standard input, an open file, a Python iterable."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError, ParameterError, SourceError
from streamgmm.online.following.base import Position, Unit, cut, digest_rows
from streamgmm.online.following.folder import import_arrow, rows_of_table

FORMATS = ("csv", "ndjson", "arrow")


class StreamFeed:
    """Rows in the order in which they come, from the first one again after a restart.

    With `replay` what comes after a restart is what came before, from its first row on, and the
    rows that were learned are skipped; without, it goes on where it was left.
    """

    endless = False

    def __init__(
        self, pieces: Iterable[Any], *, batch_rows: int, replay: bool, name: str, joined: bool
    ) -> None:
        self._pieces, self._batch_rows, self._replay = pieces, batch_rows, replay
        self.name, self._joined = name, joined

    def check(self, position: Position) -> None:
        """Nothing can be looked at before it comes; `units` checks the first rows."""

    def units(self, position: Position | None) -> Iterator[Unit]:
        """All that comes, until it ends."""
        row = 0
        learned = 0 if position is None else int(position["row"])
        first = None if position is None else position["first"]
        if not self._replay:
            row = learned
        for rows in self._units():
            after = row + len(rows)
            if row == 0:
                known = digest_rows(rows)
                if first is not None and known != first:
                    raise SourceError(
                        f"{self.name}: its first {len(rows)} rows are not those that were learned "
                        "first; give the same rows from the start, or pass replay=False for rows "
                        "that go on where it was left"
                    )
                first = known
            if after > learned:
                if row < learned:
                    raise SourceError(
                        f"{self.name}: it comes in other pieces than before; give the same "
                        "pieces and batch_rows, or pass replay=False"
                    )
                yield Unit(rows, {"row": after, "first": first})
            row = after
        if row < learned:
            raise SourceError(f"{self.name} ended after {row} rows, but {learned} were learned")

    def _units(self) -> Iterator[NDArray[Any]]:
        if not self._joined:
            for piece in self._pieces:
                for _, rows in cut(as_rows(piece, self.name), self._batch_rows):
                    yield rows
            return
        held: list[NDArray[Any]] = []
        count = 0
        for rows in self._pieces:
            while len(rows):
                held.append(rows[: self._batch_rows - count])
                count += len(held[-1])
                rows = rows[len(held[-1]) :]
                if count == self._batch_rows:
                    yield np.concatenate(held)
                    held, count = [], 0
        if held:
            yield np.concatenate(held)


def as_rows(piece: Any, name: str) -> NDArray[Any]:
    """Rows (n, d) of what an iterable gives: an array, a list, or one row."""
    rows = np.asarray(piece)
    if rows.dtype.kind not in "buif" or rows.ndim not in (1, 2):
        raise DataError(
            f"{name} gave a {type(piece).__name__} of shape {rows.shape} and dtype {rows.dtype}; "
            "arrays of rows and columns, or single rows, of numbers are needed"
        )
    rows = np.atleast_2d(rows)
    return np.ascontiguousarray(rows, np.float32 if rows.dtype == np.float32 else np.float64)


def read_format(file: Any, kind: str) -> Iterator[NDArray[Any]]:
    """Rows of an open binary file in CSV, NDJSON or Arrow's stream format, as they come."""
    if kind not in FORMATS:
        raise ParameterError(f"format={kind!r} is not known; give one of {', '.join(FORMATS)}")
    if kind == "arrow":
        ipc = import_arrow("pyarrow.ipc")
        for batch in ipc.open_stream(file):
            yield rows_of_table(batch, "the stream")
        return
    parse = _csv_line if kind == "csv" else _json_line
    width = None
    columns: list[str] = []
    for number, line in enumerate(iter(file.readline, b""), start=1):
        text = line.decode("utf-8-sig").strip()
        if not text:
            continue
        try:
            values = parse(text, columns)
        except (ValueError, TypeError, KeyError) as error:
            if number == 1 and kind == "csv":
                continue
            raise DataError(f"line {number}: {text[:60]!r} is no row of numbers") from error
        width = width or len(values)
        if len(values) != width:
            raise DataError(f"line {number} has {len(values)} columns where {width} came before")
        yield np.array([values], dtype=np.float64)


def _csv_line(text: str, columns: list[str]) -> list[float]:
    return [float(value) if value.strip() else float("nan") for value in text.split(",")]


def _json_line(text: str, columns: list[str]) -> list[float]:
    values = json.loads(text)
    if isinstance(values, dict):
        if not columns:
            columns.extend(values)
        values = [values[name] for name in columns]
    return [float("nan") if value is None else float(value) for value in values]
