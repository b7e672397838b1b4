"""One unit after another: learned, labelled, and saved from time to time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import NonFiniteError, OutputExistsError, ParameterError
from streamgmm.estimators.online import OnlineGaussianMixture
from streamgmm.model.mixture import Mixture
from streamgmm.online.following.appending import Appender, open_appender
from streamgmm.online.following.base import Unit
from streamgmm.online.following.state import Followed
from streamgmm.online.learner import Learner
from streamgmm.places import Place

FORMS = {
    "labels": ("int32", ("label",)),
    "log_density": ("float64", ("log_density",)),
    "alarms": ("float64", ("row", "kind", "statistic")),
}
ALARM_KINDS = ("likelihood", "occupancy", "means", "covariances", "cusum", "refused")


class Session:
    """What a follower does with units: it changes `followed`, and writes outputs."""

    def __init__(
        self,
        followed: Followed,
        place: Place,
        outputs: dict[str, Place],
        save_rows: int,
        skip_refused: bool,
        on_batch: Callable[[OnlineGaussianMixture, int], None] | None,
    ) -> None:
        self._followed, self._place, self._save_rows = followed, place, save_rows
        self._skip, self._on_batch = skip_refused, on_batch
        self._outputs: dict[str, Appender] = {}
        self._pending: dict[str, list[Any]] = {name: [] for name in outputs}
        self._behind = 0
        self._saved = followed.position
        for name, where in outputs.items():
            output = self._outputs[name] = open_appender(where, *FORMS[name])
            known = followed.written.get(name)
            if known is None and (followed.position is not None or output.size()):
                raise OutputExistsError(
                    f"output '{where}' exists; give another path, or remove it first"
                    if output.size()
                    else f"output '{where}' is new, but rows were learned without it; follow with "
                    "another state"
                )
            output.cut(known or 0)
        missing = sorted(set(followed.written) - set(outputs))
        if missing:
            raise ParameterError(
                f"state '{place}' has written {', '.join(missing)} so far; go on giving where to"
            )

    def learn(self, unit: Unit, name: str) -> None:
        """Learn a unit: the model and the position change together."""
        followed = self._followed
        model = followed.model
        if not model._started():
            self._begin(unit.rows.shape[1])
        rows, learner = unit.rows, model.learner_
        ready = learner.state is not None
        before = model._mixture() if self._labelling and ready else None
        waiting = learner.waiting if self._labelling else []
        last = learner.alarms[-1] if learner.alarms else None
        try:
            model.partial_fit(rows)
        except NonFiniteError as error:
            if not self._skip or (self._labelling and waiting):
                raise NonFiniteError(f"{name}, after {followed.position}: {error}") from error
            followed.refused += len(rows)
            self._note("alarms", [[learner.n_rows, "refused", float(len(rows))]])
            self._label(None, rows)
        else:
            new = list(takewhile(lambda alarm: alarm is not last, reversed(learner.alarms)))
            self._note("alarms", [[a.row, a.kind, a.statistic] for a in reversed(new)])
            if self._labelling and learner.state is not None:
                come = np.concatenate([*waiting, rows])
                still = sum(len(part) for part in learner.waiting)
                self._label(before or model._mixture(), come[: len(come) - still])
        followed.position = unit.position
        self._behind += len(rows)
        if self._on_batch is not None:
            self._on_batch(model, len(rows))
        if self._behind >= self._save_rows:
            self.save()

    def save(self) -> None:
        """Write what waits to be written, then the state: only then is it counted."""
        followed = self._followed
        if followed.position is None or followed.position == self._saved:
            return
        for name, output in self._outputs.items():
            pending = self._pending[name]
            if pending:
                output.append(pending if name == "alarms" else np.concatenate(pending))
                self._pending[name] = []
            followed.written[name] = output.size()
        followed.save(self._place)
        self._saved, self._behind = followed.position, 0

    @property
    def _labelling(self) -> bool:
        return "labels" in self._outputs or "log_density" in self._outputs

    def _begin(self, n_features: int) -> None:
        """Save a state without rows, so that outputs belong to one from their first byte."""
        model = self._followed.model
        model.learner_ = Learner(model._settings(n_features), n_features)
        model.n_features_in_ = n_features
        self._followed.written = dict.fromkeys(self._outputs, 0)
        self._followed.save(self._place)

    def _note(self, name: str, entries: list[list[Any]]) -> None:
        if name in self._outputs:
            if not self._outputs[name].text:
                entries = [[row, ALARM_KINDS.index(kind), value] for row, kind, value in entries]
            self._pending[name] += entries

    def _label(self, mixture: Mixture | None, rows: NDArray[Any]) -> None:
        if not self._labelling:
            return
        if mixture is None:
            labels, density = np.full(len(rows), -1, np.int32), np.full(len(rows), np.nan)
        else:
            posterior = mixture.posterior(np.ascontiguousarray(rows), labels=True)
            labels, density = posterior.labels, posterior.log_density
        for name, values in (("labels", labels), ("log_density", density)):
            if name in self._outputs:
                self._pending[name].append(values)
