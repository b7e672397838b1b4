"""What a session is to do: a fit is a job with one candidate, a selection one with many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamgmm.clustering.rows import rehearse_moves
from streamgmm.fitting.effort import Effort
from streamgmm.fitting.rules import Rules
from streamgmm.fitting.run import Seen
from streamgmm.fitting.sample import Holdout, SamplePlan
from streamgmm.fitting.settings import FitSettings
from streamgmm.fitting.starts import own_starts
from streamgmm.kernels.ahead import Work
from streamgmm.model.mixture import Mixture
from streamgmm.model.rehearsal import rehearse
from streamgmm.passes import default_threads
from streamgmm.sources import Block, Source

Draw = Callable[[Any, Any, FitSettings, np.random.RandomState], list[Mixture]]
"""Starts of a candidate from sampled rows (m, D) and their weights (m,) or None."""


@dataclass(frozen=True)
class Job:
    """What a session is to do.

    Attributes
    ----------
    candidates : sequence of FitSettings
        They differ in their mixtures alone.
    rules : Rules
        How all of them climb.
    plan : SamplePlan
        How pass 0 samples.
    efforts : sequence of Effort
        What the starts of each candidate may do. None for starts as scikit-learn draws them.
    seed : int
        Of the starts that are compared.
    given : Mixture or None
        Where the person wants to start; `bound` is its lower bound.
    seen : Seen or None
        What `given` knows of the rows before the last group of blocks.
    holdout : Holdout or None
    needs : mapping
        Whatever the result depends on but the rows.
    batches : sequence of sequence of int
        Candidates that share reads.
    draw : callable
        Starts where none are compared; `why` is what is said of their number.
    restarts : int
        How many candidates in a row are the same, each with starts of its own.
    """

    source: Source
    blocks: Sequence[Block]
    groups: Sequence[range]
    candidates: Sequence[FitSettings]
    rules: Rules
    plan: SamplePlan
    efforts: Sequence[Effort | None]
    seed: int
    needs: Mapping[str, Any]
    batches: Sequence[Sequence[int]] = ((0,),)
    given: Mixture | None = None
    bound: float = -np.inf
    seen: Seen | None = None
    holdout: Holdout | None = None
    draw: Draw = own_starts
    why: str = "scikit-learn's own, since rows are few"
    restarts: int = 1

    @property
    def partial(self) -> bool:
        """Whether pass 0 keeps a part of the rows."""
        return self.plan.size < self.source.n_samples

    def compiled_later(self, n_threads: int | None) -> list[Work]:
        """Give what another process can compile while this one finds starts, if it may.

        It is EM, and of k-means what is needed last.
        """
        if self.given is not None or (n_threads or default_threads()) == 1:
            return []
        dtype = np.dtype(np.float32 if self.source.dtype == np.float32 else np.float64)
        em = self.candidates[0].family, dtype, self.source.n_features
        return [(rehearse, em), (rehearse_moves, ())]
