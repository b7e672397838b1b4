"""Fingerprints of the data and settings of a fit, to tell whether a checkpoint is of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamgmm.errors import ChunkError
from streamgmm.passes import Executor
from streamgmm.sources import Block, Source, underlying, unwrapped

PROBES = 4
"""Blocks whose first piece is hashed, and compared when a fit goes on."""

_OPAQUE = {
    "blocks": "the cut of the rows into blocks differs",
    "values": "the values of the data differ",
    "transform": "what the rows are transformed by differs",
    "mask": "the mask differs",
    "start": "the model that the fit starts from differs",
    "random_state": "random_state differs",
}


@dataclass(frozen=True)
class Digests:
    """SHA-256 of some rows, block by block."""

    each: tuple[str, ...]

    def merge(self, other: Digests) -> Digests:
        """Both."""
        return Digests(self.each + other.each)


def probe_block(_: None, block: Block) -> Digests:
    """SHA-256 of the first piece of a block: rows and weights."""
    found = hashlib.sha256()
    try:
        piece = next(iter(block.pieces()), None)
    except ChunkError:
        return Digests(("unreadable",))
    if piece is None:  # all are left out
        return Digests(("nothing",))
    found.update(piece.rows.tobytes())
    if piece.sample_weight is not None:
        found.update(piece.sample_weight.tobytes())
    return Digests((found.hexdigest(),))


def mask_of_block(_: None, block: Block) -> Digests:
    """SHA-256 of the mask of a block of a cube, all of it."""
    cube = unwrapped(block)
    found = hashlib.sha256()
    for i in range(len(cube.regions)):
        found.update(np.packbits(cube.masked(i)).tobytes())
    return Digests((found.hexdigest(),))


def fingerprint(
    source: Source,
    blocks: Sequence[Block],
    n_groups: int,
    executor: Executor,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Give the fingerprint of a fit as JSON. Reads a few pieces of the data, and all of a mask.

    Parameters
    ----------
    source, blocks, n_groups, executor
        The rows, and how they are read.
    settings : mapping
        Whatever else the result depends on: numbers, strings, None, and arrays or bytes, which
        are hashed.
    """
    n = len(blocks)
    chosen = sorted({round(i * (n - 1) / (PROBES - 1)) for i in range(PROBES)})
    probes: Digests = executor.run(probe_block, None, blocks=chosen, afresh=True)
    transform = getattr(source, "transform", None)
    by = {} if transform is None else {"transform": transform.digest}
    masked: dict[str, str] = {}
    if getattr(underlying(source), "mask", None) is not None:
        masks: Digests = executor.run(mask_of_block, None, afresh=True)
        masked["mask"] = _digest(masks.each)
    return (
        {
            "shape": [source.n_samples, source.n_features],
            "dtype": source.dtype.name,
            "blocks": _digest([[b.start, b.n_rows] for b in blocks], n_groups),
            "values": _digest(probes.each),
        }
        | by
        | masked
        | {name: _plain(value) for name, value in settings.items()}
    )


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Say what differs between two fingerprints.

    >>> differences({"tol": 0.1, "values": "a", "k": 2}, {"tol": 0.2, "values": "b", "k": 2})
    ['tol is 0.1 there and 0.2 here', 'the values of the data differ']
    """
    found = []
    for name in dict.fromkeys((*there, *here)):
        a, b = there.get(name), here.get(name)
        if a == b:
            continue
        if name in _OPAQUE:
            found.append(_OPAQUE[name])
        elif any(isinstance(value, str) and value.startswith("sha256:") for value in (a, b)):
            found.append(f"{name} differs")
        else:
            found.append(f"{name} is {_show(a)} there and {_show(b)} here")
    return found


def _show(value: Any) -> str:
    return str(tuple(value)) if isinstance(value, list) else repr(value)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = np.ascontiguousarray(value).tobytes()
    return _digest(value) if isinstance(value, bytes) else value


def _digest(*values: Any) -> str:
    found = hashlib.sha256()
    for value in values:
        found.update(value if isinstance(value, bytes) else repr(value).encode())
    return "sha256:" + found.hexdigest()
