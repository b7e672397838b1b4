"""All that a report shows of a model and its rows, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError, MissingExtraError
from streamgmm.fitting.quantiles import new_digest
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.passes.base import OnBlock
from streamgmm.sources import Source
from streamgmm.summaries.audit import Audit, AuditRequest
from streamgmm.summaries.cells import CellCounts, CellRequest, rows_in_cells
from streamgmm.summaries.findings import (
    Expected,
    Findings,
    FindingsRequest,
    expect,
    findings_of_draws,
)
from streamgmm.summaries.histograms import Grid, Histograms, lay_grid
from streamgmm.summaries.look import check_weight, look
from streamgmm.summaries.moments import ComponentMoments, contrasts, moments_of, separation
from streamgmm.summaries.quantiles import QuantileRequest, Quantiles

FEATURES = 4  # in pictures: those that separate the components most
TOLD = 6  # components that are told apart along the data
PROFILED = 8  # features, and components, whose quantiles are taken


@dataclass(frozen=True, eq=False)
class Portrait:
    """A mixture, and what it says of all rows of a source; None where there is none.

    `separation` (D,) and `contrasts` (K, D) are of the model alone; `columns` are the features of
    the pictures, in the bins of `grid`. `own` are the findings of rows that were drawn of the
    model. `profiles` are quantiles of the features that separate most, in that order, in the
    heaviest components; None without crick, too.
    """

    mixture: Mixture
    moments: ComponentMoments
    separation: Floats
    contrasts: Floats
    columns: NDArray[np.intp]
    grid: Grid
    expected: Expected
    own: Findings
    name: str = ""
    n_samples: int = 0
    histograms: Histograms | None = None
    cells: CellCounts | None = None
    findings: Findings | None = None
    audit: Audit | None = None
    profiles: Quantiles | None = None


def portray(
    mixture: Mixture,
    source: Source | None = None,
    *,
    block_size: int | str = "auto",
    n_threads: int | None = None,
    on_block: OnBlock | None = None,
) -> Portrait:
    """Look at a model, and at all rows of a source in one pass.

    Rows with values that are not finite are counted, and left out of the rest.

    Raises
    ------
    DataError
        If the rows are of another width, cannot be of the family, or none has weight.
    """
    moments = moments_of(mixture)
    apart = separation(mixture, moments)
    columns = np.sort(np.argsort(-apart, kind="stable")[:FEATURES])
    known: dict[str, Any] = {
        "mixture": mixture,
        "moments": moments,
        "separation": apart,
        "contrasts": contrasts(mixture, moments),
        "columns": columns,
        "grid": lay_grid(mixture, columns.tolist()),
        "expected": expect(mixture),
    }
    known["own"] = findings_of_draws(mixture, known["expected"])
    if source is None:
        return Portrait(**known)
    k = mixture.n_components
    told = np.sort(np.argsort(-mixture.weights, kind="stable")[:TOLD])
    cells = rows_in_cells(source.n_samples, 60)
    wanted = [
        known["grid"],
        CellRequest(cells, told, k, known["expected"].limit),
        FindingsRequest(k, known["expected"]),
        AuditRequest(mixture.n_features),
        *_profiled(mixture, apart),
    ]
    histograms, counts, findings, audit, *profiles = look(
        source, mixture, wanted, omit=True, block_size=block_size, n_threads=n_threads,
        on_block=on_block,
    )  # fmt: skip
    if audit.n_rows and audit.with_gaps == audit.n_rows:
        raise DataError(
            f"{source.name}: every row has a gap or an infinite value, so there is nothing to show"
        )
    check_weight(findings.weight, source.name)
    seen = {"histograms": histograms, "cells": counts.whole(), "findings": findings}
    seen |= {"audit": audit, "profiles": profiles[0] if profiles else None}
    return Portrait(**known, **seen, name=source.name, n_samples=source.n_samples)


def _profiled(mixture: Mixture, apart: Floats) -> list[QuantileRequest]:
    """The quantiles that are asked for: none where crick is not installed."""
    try:
        new_digest()
    except MissingExtraError:
        return []
    columns = np.argsort(-apart, kind="stable")[:PROFILED]
    order = np.argsort(-mixture.weights, kind="stable")[:PROFILED]
    return [QuantileRequest(columns, np.sort(order[mixture.weights[order] > 0]))]
