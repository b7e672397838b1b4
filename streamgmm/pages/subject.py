"""What a report is about: a model, how it came to be, and what it says of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from streamgmm.pages.markup import short
from streamgmm.summaries.portrait import Portrait


@dataclass(frozen=True, eq=False)
class Subject:
    """A fitted model as its report sees it.

    Parameters
    ----------
    kind : str
        Name of the estimator's class.
    called : str
        The call that makes such an estimator.
    names : sequence of str
        Of the features, as the data have them.
    portrait : Portrait
    history, monitor, selection : mapping or None
        As ``history_``, ``monitor_`` and the table of a selection.
    converged : bool or None
    n_seen : int
        Rows that it was fitted to, or has learned; 0 where that is not known.
    commands : sequence of str
        What makes the model and the report again.
    versions : mapping of str to str
    """

    kind: str
    called: str
    names: Sequence[str]
    portrait: Portrait
    history: Mapping[str, Any] | None = None
    monitor: Mapping[str, Any] | None = None
    selection: Mapping[str, Any] | None = None
    converged: bool | None = None
    n_seen: int = 0
    commands: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def k(self) -> int:
        """Components."""
        return self.portrait.mixture.n_components

    @property
    def d(self) -> int:
        """Features."""
        return self.portrait.mixture.n_features

    @property
    def weights(self) -> Any:
        """Weights (K,)."""
        return self.portrait.mixture.weights

    @property
    def family(self) -> str:
        """What the components are, in words."""
        name = self.portrait.mixture.family.name
        gaussian = {"full", "tied", "diag", "spherical"}
        return f"{name} Gaussian" if name in gaussian else str(name).replace("_", " ")

    def name(self, d: int, length: int = 40) -> str:
        """A feature's name, short enough for a line."""
        return short(str(self.names[d]), length)

    def heaviest(self, most: int) -> Any:
        """Numbers of the heaviest components that have weight, in their order."""
        order = np.argsort(-self.weights, kind="stable")[:most]
        return np.sort(order[self.weights[order] > 0])
