"""The checkpoint at its place: arrays that are written once, and the metadata that name them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from streamgmm._version import __version__
from streamgmm.errors import CheckpointError
from streamgmm.places import Place
from streamgmm.storage.group import AtomicGroup, DamagedError, describe, digest
from streamgmm.storage.values import Packer, Put, decode, encode, take

FORMAT = "streamgmm checkpoint"
FORMAT_VERSION = 2
LOCK = "lock"
SETS = "sets"
_OWN = {LOCK, SETS, "parts", "zarr.json", "zarr.json.new"}
_HALF_WRITTEN = re.compile(r"zarr\.[^/]*\.partial")
"""What Zarr leaves of metadata when its process is killed before it can move them in place."""

Record = tuple[str, int, list[int]]
"""Where an array is: the part, the offset in it, and the shape."""

Written = dict[int, tuple[NDArray[Any], Record]]
"""Arrays that were written, by id. Each is held, so that no other array can get the same id."""

Entry = tuple[Any, str, Written]
"""A statistic or model, its JSON, and its arrays."""


class CheckpointStore:
    """Reads and writes the states of a fit. What was written before is not written again.

    New arrays are packed into parts, one for each dtype and save. A part is removed once no
    array in it is in use. The metadata at the root hold the state as JSON, a table of the
    statistics and models in it, and the parts. A value that the last state had too is found by
    its identity, so a save takes time for what is new.

    Parameters
    ----------
    place : Place
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._group = AtomicGroup(place)
        self._written: Written = {}
        self._values: dict[int, Entry] = {}  # by id, as the arrays
        self._parts: dict[str, dict[str, Any]] = {}
        self._n_saved = 0

    def look(self) -> None:
        """Check that nothing else is there; raises CheckpointError."""
        folder = self._place.directory
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
            node = self._group.node()
        except NotADirectoryError:
            raise self._wrong("is a file") from None
        except DamagedError as error:
            raise self._damaged(str(error)) from error.__cause__
        if node is None:
            return None
        meta = dict(node.attrs)
        if isinstance(node, zarr.Group) and not meta and set(node.keys()) <= _OWN:
            return None  # its writer was ended before its first commit
        if isinstance(node, zarr.Array) or meta.get("format") != FORMAT:
            kind = "array" if isinstance(node, zarr.Array) else "group"
            raise self._wrong(f"is a Zarr {kind} of something else")
        version = meta.get("format_version", 0)
        if version != FORMAT_VERSION:
            advice = (
                "remove it, or give another path, to fit from the start"
                if version < FORMAT_VERSION
                else "upgrade streamgmm to go on from it"
            )
            raise CheckpointError(
                f"the checkpoint '{self._place}' has format {version}, written by streamgmm "
                f"{meta.get('streamgmm_version')}; streamgmm {__version__} reads format "
                f"{FORMAT_VERSION} only: {advice}"
            )
        if meta.get("sha256") != digest(meta):
            raise self._damaged("its metadata are not what was saved")
        return meta

    def load(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        """Read the state that metadata describe, all of it verified."""
        self._parts = dict(meta["parts"])
        self._remove_litter()
        flat: dict[str, NDArray[Any]] = {}
        for name, wanted in self._parts.items():
            try:
                flat[name] = self._group.read(f"parts/{name}", name, wanted)
            except DamagedError as error:
                raise self._damaged(f"its part '{name}' cannot be read, or is another") from error
        found: dict[str, tuple[NDArray[Any], Record]] = {}

        def get(record: Any) -> NDArray[Any]:
            part, offset, shape = record
            key = json.dumps(record)
            if key not in found:
                found[key] = take(flat[part], offset, shape), (part, offset, shape)
            return found[key][0]

        self._values = {}
        for each in json.loads(meta["values"]):
            arrays: Written = {}

            def note(record: Any, arrays: Written = arrays) -> NDArray[Any]:
                array = get(record)
                arrays[id(array)] = array, tuple(record)
                return array

            value = decode(each, note)
            self._values[id(value)] = value, json.dumps(each), arrays
        values = [value for value, _, _ in self._values.values()]
        state: dict[str, Any] = decode(json.loads(meta["state"]), get, values)
        self._written = {id(array): (array, record) for array, record in found.values()}
        return state

    def save(self, state: Mapping[str, Any], fingerprint: Mapping[str, Any], token: str) -> None:
        """Write the new arrays of a state, commit, then remove parts that are out of use."""
        written: Written = {}
        packer = Packer()
        prefix = f"{token}-{self._n_saved}-"

        def put(_: str, array: NDArray[Any]) -> Record:
            key = id(array)
            if key in self._written:
                written[key] = self._written[key]
            elif key not in written:
                dtype, offset, shape = packer.put(array)
                written[key] = array, (prefix + dtype, offset, shape)
            return written[key][1]

        values: dict[int, Entry] = {}
        index: dict[int, int] = {}

        def share(value: Any) -> int:
            key = id(value)
            if key not in index:
                index[key] = len(index)
                values[key] = self._values.get(key) or _encode_value(value, put)
                written.update(values[key][2])
            return index[key]

        text = json.dumps(encode("checkpoint", state, put, share))
        self._n_saved += 1
        used = {part for _, (part, _, _) in written.values()}
        parts = {name: found for name, found in self._parts.items() if name in used}
        fresh = {prefix + dtype: array for dtype, array in packer.flat().items()}
        try:
            for name, array in fresh.items():
                parts[name] = describe(array)
                self._group.write(f"parts/{name}", array)
                self._group.sync(f"parts/{name}")
            meta = {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "streamgmm_version": __version__,
                "fingerprint": dict(fingerprint),
                "state": text,
                "values": f"[{', '.join(each for _, each, _ in values.values())}]",
                "parts": parts,
            }
            self._group.commit(meta | {"sha256": digest(meta)})
        except BaseException:
            self._remove(fresh)  # rollback
            raise
        dropped = self._parts.keys() - parts.keys()
        self._written, self._values, self._parts = written, values, parts
        self._remove(dropped)

    def _remove_litter(self) -> None:
        """Remove what a process left that was killed between writing a part and the commit."""
        folder = self._place.directory
        if folder is None:
            return
        for path in folder.iterdir():
            if _HALF_WRITTEN.fullmatch(path.name):
                path.unlink(missing_ok=True)
        there = folder / "parts"
        found = {path.name for path in there.iterdir()} if there.is_dir() else set()
        self._remove(found - self._parts.keys())

    def _remove(self, names: Any) -> None:
        self._group.remove([f"parts/{name}" for name in names])

    def _wrong(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"'{self._place}' {what}, not a checkpoint; give another path for it"
        )

    def _damaged(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"the checkpoint '{self._place}' is damaged: {what}; remove it to begin anew"
        )


def _encode_value(value: Any, put: Put) -> Entry:
    arrays: Written = {}

    def note(name: str, array: NDArray[Any]) -> Record:
        arrays[id(array)] = array, put(name, array)
        return arrays[id(array)][1]

    return value, json.dumps(encode("checkpoint", value, note)), arrays
