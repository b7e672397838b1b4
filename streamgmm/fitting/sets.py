"""Where a fit keeps the components that its rows look at, from one read to the next."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from streamgmm.errors import PlanError
from streamgmm.model.truncation.sets import Memory, Sets, set_dtype
from streamgmm.passes.memory import memory_here
from streamgmm.places import Place, ZarrStore
from streamgmm.sources import Source
from streamgmm.storage.checkpoint import SETS
from streamgmm.storage.checkpoint.sets import StoredSets

_SHARE = 8  # of the memory that there is, which they may take


@contextmanager
def open_sets(
    source: Source,
    family: Any,
    k: int,
    checkpoint: str | os.PathLike[str] | ZarrStore | None,
    cluster: Any,
) -> Iterator[Sets]:
    """Sets of a fit of K components: in its checkpoint, in memory, or in a temporary folder.

    Raises
    ------
    PlanError
        If the passes run on a cluster and there is no checkpoint, which all workers can reach.
    """
    if checkpoint is not None:
        yield StoredSets(Place.parse(checkpoint).child(SETS))
        return
    if cluster is not None:
        raise PlanError(
            f"{source.name}: with truncation, a fit on a cluster keeps the candidates of all rows "
            "in its checkpoint: pass checkpoint=, a place that all workers can reach"
        )
    room = memory_here() // _SHARE
    if not room or 2 * source.n_samples * family.set_size * set_dtype(k).itemsize <= room:
        yield Memory()
        return
    with tempfile.TemporaryDirectory(prefix="streamgmm-sets-") as folder:
        yield StoredSets(Place.parse(folder))
