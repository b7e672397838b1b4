"""What a learner knows as plain values, and back: for model files."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import numpy as np

from streamgmm.online.adapt import Adapter, Change
from streamgmm.online.drift import Alarm, Monitor
from streamgmm.online.gathering import Gathered
from streamgmm.online.learner import COLUMNS, Batch, Learner
from streamgmm.online.settings import OnlineSettings
from streamgmm.online.stepwise import OnlineState, RunningState
from streamgmm.online.warmup import WarmUp
from streamgmm.storage.checkpoint.values import decode, encode, flatten, restore


def to_values(learner: Learner) -> dict[str, Any]:
    """JSON and one array of float64, from which `from_values` makes the same learner."""
    adapter = learner.adapter
    values = {
        "n_features": learner.n_features,
        "gathered": None if learner.gathered is None else _of_gathered(learner.gathered),
        "queue": [tuple(batch) for batch in learner.queue],
        "state": None if learner.state is None else _of_state(learner.state),
        "adapter": None if adapter is None else [adapter.held, adapter.due],
        "journal": np.array([*learner.journal], np.float64).reshape(-1, len(COLUMNS)),
        "alarms": [asdict(alarm) for alarm in learner.alarms],
        "changes": [asdict(change) for change in learner.changes],
    }
    kinds: list[list[Any]] = []
    flat: list[Any] = [np.empty(0)]

    def put(value: Any) -> int:
        what, arrays = flatten(value)
        kinds.append(what)
        flat.extend(np.asarray(array, np.float64).ravel() for array in arrays)
        return len(kinds) - 1

    return {"tree": encode(values, put), "kinds": kinds, "numbers": np.concatenate(flat)}


def from_values(packed: dict[str, Any], settings: OnlineSettings) -> Learner:
    """The learner that `to_values` was given; its warm-up's fit goes on with these settings."""
    found, at, numbers = [], 0, np.asarray(packed["numbers"])
    for what in packed["kinds"]:
        value = restore(what, numbers[at:])
        size = sum(array.size for array in flatten(value)[1])
        at += size
        found.append(value.astype(what[1]) if what[0] == "array" else value)
    values = decode(packed["tree"], found)
    learner = Learner(settings, values["n_features"])
    learner.gathered = None
    if values["gathered"] is not None:
        learner.gathered = _to_gathered(values["gathered"], values["n_features"], settings)
    learner.queue = tuple(Batch(*batch) for batch in values["queue"])
    if values["state"] is not None:
        learner.state = _to_state(values["state"])
    if values["adapter"] is not None:
        learner.adapter = Adapter(*values["adapter"])
    learner.journal.extend(values["journal"].tolist())
    learner.alarms.extend(Alarm(**alarm) for alarm in values["alarms"])
    learner.changes.extend(
        Change(**change | {"components": tuple(change["components"])})
        for change in values["changes"]
    )
    return learner


def _of_gathered(gathered: Gathered) -> dict[str, Any]:
    rows, weight = gathered.joined()
    fit = None if gathered.fit is None else gathered.fit.state()
    return {
        "n_rows": gathered.n_rows,
        "mass": gathered.mass,
        "rows": rows,
        "weight": weight,
        "fit": fit,
    }


def _to_gathered(values: dict[str, Any], n_features: int, settings: OnlineSettings) -> Gathered:
    rows, weight = values["rows"], values["weight"]
    n_rows, mass = values["n_rows"], values["mass"]
    if values["fit"] is not None:
        fit = WarmUp.restored(settings, rows, weight, values["fit"])
        return Gathered(n_features, n_rows, mass, (), fit)
    each = np.ones(len(rows)) if weight is None else weight
    return Gathered(n_features, n_rows, mass, ((rows, each),) if len(rows) else ())


def _of_state(state: OnlineState) -> dict[str, Any]:
    average = None if state.average is None else list(state.average)
    running = [getattr(state.running, each.name) for each in fields(RunningState)]
    monitor = None
    if state.monitor is not None:
        monitor = [getattr(state.monitor, each.name) for each in fields(Monitor)]
    values = {name: getattr(state, name) for name in ("n_features", "n_rows", "mass", "level")}
    return values | {"running": running, "average": average, "monitor": monitor}


def _to_state(values: dict[str, Any]) -> OnlineState:
    average, monitor = values["average"], values["monitor"]
    return OnlineState(
        values["n_features"],
        values["n_rows"],
        values["mass"],
        RunningState(*values["running"]),
        None if average is None else tuple(average),
        None if monitor is None else Monitor(*monitor),
        values["level"],
    )
