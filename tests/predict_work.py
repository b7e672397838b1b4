"""A source whose worker really dies; a module of its own, so that workers can import it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DyingBlock:
    """A block that ends its process between two pieces, the first time it is read by anyone."""

    block: Any
    flag: str

    @property
    def start(self):
        return self.block.start

    @property
    def n_rows(self):
        return self.block.n_rows

    @property
    def resident(self):
        return self.block.resident

    def pieces(self):
        for piece in self.block.pieces():
            yield piece
            time.sleep(0.02)
            try:
                os.close(os.open(self.flag, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class DyingSource:
    """A source whose last block dies once."""

    source: Any
    flag: str

    @property
    def name(self):
        return self.source.name

    @property
    def n_samples(self):
        return self.source.n_samples

    @property
    def n_features(self):
        return self.source.n_features

    @property
    def dtype(self):
        return self.source.dtype

    @property
    def nbytes(self):
        return self.source.nbytes

    def blocks(self, target_bytes):
        *rest, last = self.source.blocks(target_bytes)
        return [*rest, DyingBlock(last, self.flag)]
