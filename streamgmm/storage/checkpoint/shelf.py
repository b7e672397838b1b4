"""The checkpoint at its place: values that are written once, and metadata that name them."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm._version import __version__
from streamgmm.errors import CheckpointError, ModelFileError
from streamgmm.storage.checkpoint.values import Record, decode, encode, flatten, restore
from streamgmm.storage.place import Place, describe, digest

FORMAT = "streamgmm checkpoint"
FORMAT_VERSION = 2
_OWN = {"lock", "parts", "zarr.json", "zarr.json.new"}
_HALF_WRITTEN = re.compile(r"zarr\.[^/]*\.partial")
"""What Zarr leaves of metadata when its process is killed before it can move them in place."""


class Shelf:
    """Reads and writes the states of a fit, each value once.

    Parameters
    ----------
    place : Place
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._kept: dict[int, tuple[Any, Record]] = {}  # by identity; the value keeps it unique
        self._parts: dict[str, dict[str, Any]] = {}
        self._n_saved = 0

    def look(self) -> None:
        """Check that nothing else is there; raises CheckpointError."""
        folder = self._place.directory
        if folder is not None and folder.is_file():
            raise self._wrong("is a file")
        self.meta()
        if folder is not None and folder.is_dir():
            found = {path.name for path in folder.iterdir()} - _OWN
            others = sorted(name for name in found if not _HALF_WRITTEN.fullmatch(name))
            if others:
                raise self._wrong(f"is a directory that holds '{others[0]}'")

    def meta(self) -> dict[str, Any] | None:
        """Metadata of the checkpoint that is there, verified; None if there is none."""
        import zarr

        try:
            node = self._place.node()
        except ModelFileError as error:
            raise CheckpointError(str(error)) from error
        if node is None:
            return None
        meta = dict(node.attrs)
        if isinstance(node, zarr.Group) and not meta and set(node.keys()) <= _OWN:
            return None  # begun by a process that was ended before its first state was whole
        if isinstance(node, zarr.Array) or meta.get("format") != FORMAT:
            kind = "array" if isinstance(node, zarr.Array) else "group"
            raise self._wrong(f"is a Zarr {kind} of something else")
        if meta["format_version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"the checkpoint '{self._place.name}' was written by streamgmm "
                f"{meta['streamgmm_version']}; streamgmm {__version__} does not know its format"
            )
        if meta.get("sha256") != digest(meta):
            raise self._damaged("its metadata are not what was saved")
        return meta

    def load(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        """Read the state that metadata describe, all of it verified."""
        self._parts = dict(meta["parts"])
        self._sweep_up()
        arrays: dict[str, NDArray[Any]] = {}
        for name, wanted in self._parts.items():
            try:
                arrays[name] = self._place.read(f"parts/{name}", name, wanted)
            except ModelFileError as error:
                raise self._damaged(f"its part '{name}' cannot be read, or is another") from error
        records = [Record(*each) for each in json.loads(meta["values"])]
        values = [restore(r.what, arrays[r.part].reshape(-1)[r.offset :]) for r in records]
        self._kept = {id(v): (v, r) for v, r in zip(values, records, strict=True)}
        state: dict[str, Any] = decode(json.loads(meta["state"]), values)
        return state

    def save(self, state: Mapping[str, Any], fingerprint: Mapping[str, Any], token: str) -> None:
        """Write what is new in a state, then the metadata, then drop what is out of use."""
        kept: dict[int, tuple[Any, Record]] = {}
        index: dict[int, int] = {}
        fresh: dict[str, list[NDArray[Any]]] = {}
        sizes: dict[str, int] = {}

        def put(value: Any) -> int:
            key = id(value)
            if key not in index:
                index[key] = len(index)
                if key in self._kept:
                    kept[key] = self._kept[key]
                else:
                    what, arrays = flatten(value)
                    part = f"{token}-{self._n_saved}-{arrays[0].dtype.name}"
                    offset = sizes.get(part, 0)
                    flat = [array.reshape(-1) for array in arrays]
                    fresh.setdefault(part, []).extend(flat)
                    sizes[part] = offset + sum(array.size for array in flat)
                    kept[key] = value, Record(part, offset, what)
            return index[key]

        text = json.dumps(encode(state, put))
        self._n_saved += 1
        used = {record.part for _, record in kept.values()}
        parts = {name: found for name, found in self._parts.items() if name in used}
        try:
            for name, pieces in fresh.items():
                array = np.concatenate(pieces)
                parts[name] = describe(array)
                self._place.write(f"parts/{name}", array)
                self._place.settle(f"parts/{name}")
            meta = {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "streamgmm_version": __version__,
                "fingerprint": dict(fingerprint),
                "state": text,
                "values": json.dumps([[r.part, r.offset, r.what] for _, r in kept.values()]),
                "parts": parts,
            }
            self._place.commit(meta | {"sha256": digest(meta)})
        except BaseException:
            self._remove(fresh)
            raise
        dropped = self._parts.keys() - parts.keys()
        self._kept, self._parts = kept, parts
        self._remove(dropped)

    def _sweep_up(self) -> None:
        """Drop what a process left that was killed between writing and naming a part."""
        if self._place.directory is not None:
            for path in self._place.directory.iterdir():
                if _HALF_WRITTEN.fullmatch(path.name):
                    path.unlink(missing_ok=True)
            folder = self._place.directory / "parts"
            found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
            self._remove(found - self._parts.keys())

    def _remove(self, names: Any) -> None:
        """Drop parts that nothing names; what cannot be dropped is only litter."""
        for name in names:
            if self._place.directory is not None:
                shutil.rmtree(self._place.directory / "parts" / name, ignore_errors=True)
            else:
                with contextlib.suppress(Exception):
                    self._place.remove([f"parts/{name}"])

    def _wrong(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"'{self._place.name}' {what}, not a checkpoint; give another path for it"
        )

    def _damaged(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"the checkpoint '{self._place.name}' is damaged: {what}; remove it to begin anew"
        )
