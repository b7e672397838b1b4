"""What a fit knows between two reads, and what it depends on: for checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from streamgmm.errors import CheckpointError
from streamgmm.fitting.ascent import Ascent
from streamgmm.fitting.reading import Bundle, Scores
from streamgmm.fitting.rules import Rules
from streamgmm.fitting.sample import Summary
from streamgmm.fitting.settings import FitSettings
from streamgmm.model.components import Family
from streamgmm.model.families import settings_of
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
    could not be read. `shape` is that of the samples of a cube.
    """

    name: str
    regions: tuple[tuple[int, int, int], ...]
    groups: tuple[Statistics, ...]
    overall: Moments
    skipped: Rows = ()
    shape: tuple[int, ...] | None = None

    @property
    def n_rows(self) -> int:
        """Rows seen."""
        return self.regions[-1][0]


@dataclass
class Run:
    """What a fit, or a selection, knows between two reads; empty before the first.

    Attributes
    ----------
    name : str
        Of the source.
    random : dict
        State of the random generator after all that was drawn from it.
    overall : Moments or None
        Of all rows, as pass 0 found them.
    skipped : tuple of (start, stop)
        Rows that could not be read.
    sample : Summary or None
        What pass 0 found, until there is a start for every candidate.
    families : list of dict
        Settings of the family of each candidate, as pass 0 has completed them.
    contests : list of dict
        The states of contests under way.
    starts : list of Mixture, list of Mixture, or str
        Of each candidate so far: where it starts, or why it cannot.
    facts : list of (int, str)
        Of each candidate: how many starts were tried, and why it was enough.
    ascents : list of Ascent
        Of all candidates in order; of one there may be several.
    passes : float
        Reads so far.
    read : float
        The share of the rows that pass 0 read.
    final : Scores or None
        At the parameters that are returned, once that is known.
    known : tuple of (start, stop)
        Runs of blocks whose rows were kept, and so were read but once.
    seconds : dict of str to float
        What each part has taken.
    """

    name: str
    random: Any = None
    overall: Moments | None = None
    skipped: Rows = ()
    sample: Summary | None = None
    families: list[dict[str, Any]] = field(default_factory=list)
    contests: list[dict[str, Any]] = field(default_factory=list)
    starts: list[list[Mixture] | str] = field(default_factory=list)
    facts: list[tuple[int, str]] = field(default_factory=list)
    ascents: list[Ascent] = field(default_factory=list)
    passes: float = 0.0
    read: float = 0.0
    final: Scores | None = None
    known: Rows = ()
    seconds: dict[str, float] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """Values that later reads do not change."""
        state = {each.name: getattr(self, each.name) for each in fields(self)}
        sample, final = self.sample, self.final
        return state | {
            "sample": None
            if sample is None
            else {each.name: getattr(sample, each.name) for each in fields(sample)},
            "families": list(self.families),
            "contests": list(self.contests),
            "starts": list(self.starts),
            "facts": list(self.facts),
            "ascents": [ascent.state() for ascent in self.ascents],
            "final": None
            if final is None
            else [final.training.each, final.held, final.rows, *final.tables],
            "seconds": dict(self.seconds),
        }

    @classmethod
    def restored(cls, state: dict[str, Any] | None, rules: Rules, where: str) -> Run | None:
        """Restore what `state` gave; raises CheckpointError if it is past `max_iter`."""
        if state is None:
            return None
        made = max((len(ascent["steps"]) for ascent in state["ascents"]), default=0)
        if made > rules.max_iter:
            raise CheckpointError(
                f"the checkpoint '{where}' has made {made} iterations, more than max_iter = "
                f"{rules.max_iter}; raise max_iter, or give another path"
            )
        ascents = [Ascent.restored(each, rules) for each in state["ascents"]]
        run = cls(
            **state
            | {
                "ascents": ascents,
                "skipped": _rows(state["skipped"]),
                "known": _rows(state["known"]),
                "sample": None if state["sample"] is None else _summary(state["sample"]),
                "facts": [(tried, why) for tried, why in state["facts"]],
                "final": None if state["final"] is None else _scores(*state["final"]),
            }
        )
        if any(ascent.request is not None for ascent in ascents):
            run.final = None
        return run

    def check_same(self, overall: Moments, name: str, checkpoint: Checkpoint | None) -> None:
        """Check that data of another name are the same; raises CheckpointError."""
        names = ("weight", "mean", "scatter")
        differ = [
            name
            for name in names
            if getattr(self.overall, name).tobytes() != getattr(overall, name).tobytes()
        ]
        if differ and checkpoint is not None:
            raise CheckpointError(
                f"the checkpoint '{checkpoint.name}' is of another fit: it is of {self.name}, "
                f"whose values are not those of {name}; give another path, or remove it to begin "
                "anew"
            )


def _rows(runs: Sequence[Sequence[int]]) -> Rows:
    return tuple((int(start), int(stop)) for start, stop in runs)


def _summary(state: dict[str, Any]) -> Summary:
    return Summary(**state | {"skipped": _rows(state["skipped"])})


def _scores(
    training: Sequence[Statistics], held: Any, rows: Moments | None, *tables: Any
) -> Scores:
    return Scores(Bundle(tuple(training)), held, rows, tables)


def depends(
    candidates: Sequence[FitSettings],
    random_state: np.random.RandomState,
    start: Mixture | None = None,
    start_bound: float = -np.inf,
    seen: Seen | None = None,
) -> dict[str, Any]:
    """Everything but the rows that the result depends on, save `max_iter`, which may be raised."""
    first = candidates[0]
    found: dict[str, Any] = {each.name: getattr(first, each.name) for each in fields(first)}
    for name in ("max_iter", "cache", "family", "given"):
        del found[name]
    if first.assignment == "soft":  # which checkpoints of earlier releases do not say
        del found["assignment"]
    found |= {f"{name}_init": values for name, values in first.given.items()}
    families = [_named(c.family) for c in candidates]
    found |= {k: v for k, v in families[0].items() if all(f.get(k) == v for f in families)}
    if len(candidates) > 1:
        found["candidates"] = [
            [c.n_components, *(v for k, v in family.items() if k not in found)]
            for c, family in zip(candidates, families, strict=True)
        ]
        del found["n_components"]
    if start is not None:
        arrays = (start.weights, *start.components.arrays().values(), np.array(start_bound))
        found["start"] = b"".join(array.tobytes() for array in arrays)
        if seen is not None:
            found["start"] += repr((seen.regions, seen.skipped)).encode()
    elif random_state is not GLOBAL:
        state: Any = random_state.get_state(legacy=False)
        found["random_state"] = _bytes(state["state"])
    return found


def _named(family: Family) -> dict[str, Any]:
    """The kind of a family, and its settings."""
    return {"family": type(family).__name__, **settings_of(family)}


def _bytes(state: dict[str, Any]) -> bytes:
    """The state of a generator of random numbers; as text, its array would be abridged."""
    values = (
        v.tobytes() if isinstance(v, np.ndarray) else repr(v).encode() for v in state.values()
    )
    return b",".join(values)
