"""Where a fit keeps the components that its rows look at, from one read to the next."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from streamgmm.errors import PlanError
from streamgmm.fitting.memory import format_size, n_sums, workers_of
from streamgmm.fitting.settings import FitSettings
from streamgmm.model.truncation.sets import Carried, Memory, Sets, set_dtype
from streamgmm.passes import blocks_in_task
from streamgmm.passes.memory import memory_here, memory_of
from streamgmm.places import Place, ZarrStore
from streamgmm.sources import Block, Source
from streamgmm.storage.checkpoint import SETS
from streamgmm.storage.checkpoint.sets import StoredSets

_SHARE = 8  # of the memory of this process that sets may take
_CLUSTER_SHARE = (
    4  # of that of all workers, and of this machine's for what scheduler and client keep
)
_TASK_BYTES = 12 << 10  # what a scheduler keeps of the tasks of a block in one read (measured: 11)


@contextmanager
def open_sets(
    source: Source,
    blocks: Sequence[Block],
    settings: FitSettings,
    checkpoint: str | os.PathLike[str] | ZarrStore | None,
    cluster: Any,
    n_climbs: int = 1,
) -> Iterator[Sets]:
    """Sets of a fit: in its checkpoint, in memory, or in a temporary folder.

    On a cluster without a checkpoint they are in the memory of the workers. `n_climbs` share
    the reads.

    Raises
    ------
    PlanError
        If the workers cannot hold them, or the scheduler not what is needed to make them again.
    """
    if checkpoint is not None:
        yield StoredSets(Place.parse(checkpoint).child(SETS))
        return
    k, size = settings.n_components, getattr(settings.family, "set_size", 1)
    n_bytes = 2 * n_climbs * source.n_samples * size * set_dtype(k).itemsize
    if cluster is not None:
        _refuse_too_large(source, blocks, settings, cluster, n_climbs, n_bytes)
        yield Carried()
        return
    room = memory_here() // _SHARE
    if not room or n_bytes <= room:
        yield Memory()
        return
    with tempfile.TemporaryDirectory(prefix="streamgmm-sets-") as folder:
        yield StoredSets(Place.parse(folder))


def _refuse_too_large(
    source: Source,
    blocks: Sequence[Block],
    settings: FitSettings,
    cluster: Any,
    n_climbs: int,
    n_bytes: int,
) -> None:
    """Refuse sets for which a checkpoint is the better place; see `open_sets`."""
    advice = "pass checkpoint=, a place that all workers can reach"
    room = (memory_of(cluster) or 0) // _CLUSTER_SHARE
    if room and n_bytes > room:
        raise PlanError(
            f"{source.name}: with truncation={getattr(settings.family, 'truncation', 1)} the "
            f"candidates of all rows take {format_size(n_bytes)} on the workers, which may use "
            f"{format_size(room)} for them; {advice}, or start more workers"
        )
    k, d = settings.n_components, source.n_features
    model = 8 * (2 * n_sums(settings.family, k, d) + 16 * k) * n_climbs
    n_tasks = -(-len(blocks) // blocks_in_task(len(blocks), workers_of(cluster)[0]))
    resident = blocks[0].resident  # then the client keeps the models too
    each = model * (1 + resident) + n_tasks * _TASK_BYTES
    room = memory_here() // _CLUSTER_SHARE
    if room and settings.max_iter * each > room:
        fewer = f", or max_iter={room // each}" if room >= each else ""
        raise PlanError(
            f"{source.name}: with truncation, a scheduler keeps what {settings.max_iter} reads "
            f"begin with, {format_size(settings.max_iter * each)}, to make again what a lost "
            f"worker held, and may use {format_size(room)} for it; {advice}{fewer}"
        )
