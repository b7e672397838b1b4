"""One unit after another: learned, labelled, and saved from time to time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import NonFiniteError, OutputExistsError, ParameterError
from streamgmm.model.mixture import Mixture
from streamgmm.online.batches import checked
from streamgmm.online.drift import KINDS, Alarm
from streamgmm.online.following.appending import Appender, open_appender
from streamgmm.online.following.base import Layers, Learns, Unit
from streamgmm.online.following.outstanding import Outstanding
from streamgmm.online.following.state import Followed
from streamgmm.places import Place

FORMS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "labels": ("int32", ("label",)),
    "log_density": (None, ("log_density",)),  # the rows' dtype
    "alarms": ("float64", ("row", "kind", "statistic")),
}
ALARM_KINDS = (*KINDS, "refused")


class Session:
    """What a follower does with each unit: teach the learner, write outputs, save.

    Attributes
    ----------
    followed : Followed
        The learner and the position.
    """

    def __init__(
        self,
        followed: Followed,
        place: Place,
        outputs: dict[str, Place],
        save_rows: int,
        skip_refused: bool = False,
        on_batch: Callable[[int], None] = lambda n_rows: None,
        layers: Layers | None = None,
    ) -> None:
        self.followed, self._save_rows = followed, save_rows
        self._skip, self._on_batch = skip_refused, on_batch
        self._outputs: dict[str, Appender] = {}
        self._pending: dict[str, list[Any]] = {name: [] for name in outputs}
        self._behind = 0
        self._changed = False
        self._cube = layers is not None
        for name, where in outputs.items():
            form = FORMS[name]
            shape = None if name == "alarms" else layers
            output = self._outputs[name] = open_appender(where, *form, shape)
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
        followed, rows = self.followed, unit.rows
        for output in self._outputs.values():
            output.begin(rows.dtype)
        learner = followed.learner or self._begin(rows.shape[1])
        if unit.kept is not None and self._labelling:
            followed.outstanding.add(unit.kept)
        try:
            batches = checked(rows, learner.n_features, learner.most_rows, name)
            if len(rows):
                self._teach(learner, lambda: learner.learn(batches), rows)
        except NonFiniteError as error:
            if not self._skip or (self._labelling and learner.waiting):
                raise NonFiniteError(f"{name}, after {followed.position}: {error}") from error
            followed.refused += len(rows)
            self._note([[learner.n_rows, "refused", float(len(rows))]])
            self._label(None, rows)
        self._pass_over(followed.outstanding.gaps())
        followed.position = unit.position
        self._behind += len(rows)
        self._changed = True
        self._on_batch(len(rows))
        if self._behind >= self._save_rows:
            self.save()

    @property
    def busy(self) -> bool:
        """Whether a warm-up's fit is under way, which `go_on` continues."""
        return self.followed.learner is not None and self.followed.learner.busy

    def go_on(self) -> None:
        """Continue the warm-up's fit for less than a second."""
        learner = self.followed.learner
        assert learner is not None
        self._teach(learner, learner.go_on, np.empty((0, learner.n_features)))
        self._changed = True

    def save(self) -> None:
        """Write pending outputs, then the state, which is what counts after a crash."""
        followed = self.followed
        if not self._changed:
            return
        for name, output in self._outputs.items():
            pending = self._pending[name]
            if pending:
                output.append(pending if name == "alarms" else np.concatenate(pending))
                self._pending[name] = []
            followed.written[name] = output.size()
        followed.save()
        self._changed, self._behind = False, 0

    def _teach(
        self, learner: Learns, teach: Callable[[], list[Alarm]], rows: NDArray[Any]
    ) -> None:
        """Teach the learner, and label the rows that are no longer waiting after that."""
        before = learner.mixture() if self._labelling and learner.state is not None else None
        waiting = learner.waiting if self._labelling else []
        alarms = teach()
        self._note([[alarm.row, alarm.kind, alarm.statistic] for alarm in alarms])
        if self._labelling and learner.state is not None:
            there = np.concatenate([*waiting, rows])
            n_waiting = sum(len(part) for part in learner.waiting)
            self._label(before or learner.mixture(), there[: len(there) - n_waiting])

    @property
    def _labelling(self) -> bool:
        return "labels" in self._outputs or "log_density" in self._outputs

    def _begin(self, n_features: int) -> Learns:
        """Save a state without rows before the first output is written."""
        followed = self.followed
        followed.learner = followed.begin(n_features)
        followed.written = dict.fromkeys(self._outputs, 0)
        followed.save()
        return followed.learner

    def _note(self, entries: list[list[Any]]) -> None:
        """Queue alarms for writing: row, kind and statistic."""
        if "alarms" in self._outputs:
            if not self._outputs["alarms"].text:
                entries = [[row, ALARM_KINDS.index(kind), value] for row, kind, value in entries]
            self._pending["alarms"] += entries

    def _label(self, mixture: Mixture | None, rows: NDArray[Any]) -> None:
        if not self._labelling:
            return
        if mixture is None:
            labels, density = np.full(len(rows), -1, np.int32), np.full(len(rows), np.nan)
        else:
            posterior = mixture.posterior(np.ascontiguousarray(rows), labels=True)
            labels, density = posterior.labels, posterior.log_density
        if self._cube:
            runs = list(self.followed.outstanding.runs)
            labels = self.followed.outstanding.take(labels, -1)
            density = Outstanding(runs).take(density, np.nan)
        self._add(labels, density)

    def _pass_over(self, n_gaps: int) -> None:
        """Label samples that have no rows."""
        if n_gaps:
            self._add(np.full(n_gaps, -1, np.int32), np.full(n_gaps, np.nan))

    def _add(self, labels: NDArray[Any], density: NDArray[Any]) -> None:
        for name, values in (("labels", labels), ("log_density", density)):
            if name in self._outputs:
                self._pending[name].append(values)
