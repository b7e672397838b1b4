"""What a fit knows between two reads, and what it depends on: for checkpoints."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from streamgmm.errors import CheckpointError
from streamgmm.fitting.ascent import Ascent, Rules
from streamgmm.fitting.settings import FitSettings
from streamgmm.model.mixture import Mixture, Statistics
from streamgmm.model.moments import Moments
from streamgmm.storage.checkpoint import Checkpoint

GLOBAL = np.random.mtrand._rand
"""What ``random_state=None`` stands for: it is another in every process."""

Rows = tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Seen:
    """The rows that a model was fitted to, and what it knows of them.

    `regions` are runs of rows that arrived together, each as its end, the bytes of its blocks
    and the number of its groups; `groups` are the statistics of all groups in order, and
    `overall` the moments of all rows (one diagonal component). `skipped` are runs of rows that
    could not be read.
    """

    name: str
    regions: tuple[tuple[int, int, int], ...]
    groups: tuple[Statistics, ...]
    overall: Moments
    skipped: Rows = ()

    @property
    def n_rows(self) -> int:
        """Rows seen."""
        return self.regions[-1][0]


@dataclass
class Run:
    """What a fit knows between two reads.

    Attributes
    ----------
    name : str
        Of the source.
    overall : Moments
        Of all rows, as pass 0 found them.
    skipped : tuple of (start, stop)
        Rows that could not be read.
    ascents : list of Ascent
    passes : float
        Reads so far.
    random : dict
        State of the random generator after the starts, which were the last to draw from it.
    final : Statistics or None
        At the parameters that are returned, once that is known.
    known : tuple of (start, stop)
        Runs of blocks whose rows were kept, and so were read but once.
    """

    name: str
    overall: Moments
    skipped: Rows
    ascents: list[Ascent]
    passes: float
    random: Any
    final: Statistics | None = None
    known: Rows = ()

    def state(self) -> dict[str, Any]:
        """Values that later reads do not change."""
        return {
            "name": self.name,
            "overall": self.overall,
            "skipped": self.skipped,
            "ascents": [ascent.state() for ascent in self.ascents],
            "passes": self.passes,
            "random": self.random,
            "final": self.final,
            "known": self.known,
        }

    @classmethod
    def restored(cls, state: dict[str, Any] | None, rules: Rules, where: str) -> Run | None:
        """Take up what `state` put down; raises CheckpointError if it is past `max_iter`."""
        if state is None:
            return None
        made = max(len(ascent["steps"]) for ascent in state["ascents"])
        if made > rules.max_iter:
            raise CheckpointError(
                f"the checkpoint '{where}' has made {made} iterations, more than max_iter = "
                f"{rules.max_iter}; raise max_iter, or give another path"
            )
        ascents = [Ascent.restored(each, rules) for each in state["ascents"]]
        skipped, known = (tuple(map(tuple, state.get(name, ()))) for name in ("skipped", "known"))
        run = cls(**state | {"ascents": ascents, "skipped": skipped, "known": known})
        if any(ascent.request is not None for ascent in ascents):
            run.final = None
        return run

    def check_same(self, overall: Moments, name: str, book: Checkpoint | None) -> None:
        """Check that data of another name are the same; raises CheckpointError."""
        names = ("weight", "mean", "scatter")
        differ = [
            name
            for name in names
            if getattr(self.overall, name).tobytes() != getattr(overall, name).tobytes()
        ]
        if differ and book is not None:
            raise CheckpointError(
                f"the checkpoint '{book.name}' is of another fit: it is of {self.name}, whose "
                f"values are not those of {name}; give another path, or remove it to begin anew"
            )


def depends(
    settings: FitSettings,
    random_state: np.random.RandomState,
    start: Mixture | None,
    start_bound: float,
    seen: Seen | None,
) -> dict[str, Any]:
    """Everything but the rows that the result depends on, save `max_iter`, which may be raised."""
    found: dict[str, Any] = asdict(settings)
    del found["max_iter"], found["cache"]
    if start is not None:
        arrays = (start.weights, start.means, start.covariances, np.array(start_bound))
        found["start"] = b"".join(array.tobytes() for array in arrays)
        if seen is not None:
            found["start"] += repr((seen.regions, seen.skipped)).encode()
    elif random_state is not GLOBAL:
        state: Any = random_state.get_state(legacy=False)
        found["random_state"] = repr(state["state"]).encode() + _bytes(state["state"])
    return found


def _bytes(state: Any) -> bytes:
    key = state.get("key")
    return b"" if key is None else key.tobytes()
