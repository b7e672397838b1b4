"""Serialization of a learner: plain values for model files, and back."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import numpy as np

from streamgmm.online.adapt import Adapter, Change
from streamgmm.online.drift import Alarm, Monitor
from streamgmm.online.gathering import Gathered
from streamgmm.online.learner import COLUMNS, Batch, Learner
from streamgmm.online.settings import OnlineSettings
from streamgmm.online.state import BlendedState, OnlineState, RunningState
from streamgmm.online.warmup import WarmUp


def to_values(learner: Learner) -> dict[str, Any]:
    """Serialize a learner as numbers, arrays, and lists and dicts of them."""
    adapter = learner.adapter
    return {
        "n_features": learner.n_features,
        "gathered": None if learner.gathered is None else _of_gathered(learner.gathered),
        "queue": [list(batch) for batch in learner.queue],
        "state": None if learner.state is None else _of_state(learner.state),
        "adapter": None if adapter is None else [adapter.held, adapter.due],
        "journal": np.array([*learner.journal], np.float64).reshape(-1, len(COLUMNS)),
        "alarms": [asdict(alarm) for alarm in learner.alarms],
        "changes": [asdict(change) for change in learner.changes],
    }


def from_values(values: dict[str, Any], settings: OnlineSettings) -> Learner:
    """Deserialize a learner, which continues with these settings; inverse of `to_values`.

    It also reads what an earlier release has saved.
    """
    if "held" in values:
        values = _of_format_1(values)
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
    values = {name: getattr(state, name) for name in ("n_features", "n_rows", "mass", "level")}
    if isinstance(state.running, BlendedState):
        blended = {"mixture": state.running.mixture, "statistics": state.running.statistics}
        return values | {"blended": blended, "average": state.average}
    average = None if state.average is None else list(state.average)
    running = [getattr(state.running, each.name) for each in fields(RunningState)]
    monitor = None
    if state.monitor is not None:
        monitor = [getattr(state.monitor, each.name) for each in fields(Monitor)]
    return values | {"running": running, "average": average, "monitor": monitor}


def _to_state(values: dict[str, Any]) -> OnlineState:
    counts = values["n_features"], values["n_rows"], values["mass"]
    average = values["average"]
    if "blended" in values:
        running = BlendedState(**values["blended"])
        return OnlineState(*counts, running, average, level=values["level"])
    monitor = values["monitor"]
    return OnlineState(
        *counts,
        RunningState(*values["running"]),
        None if average is None else tuple(average),
        None if monitor is None else Monitor(*monitor),
        values["level"],
    )


AVERAGE = ("weight", "mean", "scatter")


def _of_format_1(saved: dict[str, Any]) -> dict[str, Any]:
    """What the first format of models has, in the words of this one."""
    state = saved["state"]
    if "tree" in state:
        state = _unpacked(state)
    values: dict[str, Any] = {name: saved[name] for name in ("journal", "alarms", "changes")}
    held = saved["held"]
    values |= {"n_features": state["n_features"], "gathered": None, "queue": [], "state": None}
    values["adapter"] = None if held is None else [held, saved["due"]]
    if state.get("chain") is None:
        names = ("n_rows", "mass")
        empty = np.empty((0, state["n_features"]))
        values["gathered"] = {name: state[name] for name in names} | {
            "rows": state.get("waiting", empty),
            "weight": state.get("waiting_weight"),
            "fit": None,
        }
        return values
    average, monitor = state.get("average"), state.get("monitor")
    values["state"] = {name: state[name] for name in ("n_features", "n_rows", "mass", "level")} | {
        "running": [state["chain"][each.name] for each in fields(RunningState)],
        "average": None
        if average is None
        else [average[n] for n in ("weight", "mean", "scatter")],
        "monitor": None if monitor is None else [monitor[each.name] for each in fields(Monitor)],
    }
    return values


def _unpacked(packed: dict[str, Any]) -> dict[str, Any]:
    """Read a tree of shapes, with all numbers in one array."""
    at = 0

    def fill(part: dict[str, Any]) -> dict[str, Any]:
        nonlocal at
        out: dict[str, Any] = {}
        for name, value in part.items():
            if isinstance(value, dict) and set(value) == {"shape"}:
                shape = tuple(value["shape"])
                size = int(np.prod(shape))
                out[name] = packed["numbers"][at : at + size].reshape(shape).copy()
                at += size
            else:
                out[name] = fill(value) if isinstance(value, dict) else value
        return out

    return fill(packed["tree"])
