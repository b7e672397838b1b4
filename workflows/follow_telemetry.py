"""Three processes on one array: one writes telemetry, one learns it, one reads the model.

    python workflows/follow_telemetry.py [FOLDER] [--rows 60000]

Two thirds of the way the machine that is measured changes: one of its states moves by two
standard deviations. The follower sounds the alarm and the model moves along. The picture shows
the log-likelihood of each batch before it was learned, the alarm, and the statistic behind it.

To follow your own data have an array that something appends to, and run
``streamgmm follow DATA --state STATE -k 3``; any process may load STATE at any time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np
import zarr

import streamgmm

CHUNK = 1_000
# Temperature, current and vibration: idle, working, straining.
MEANS = np.array([[20.0, 1.0, 0.0], [60.0, 3.0, 5.0], [75.0, 9.0, 5.0]])
SPREAD = np.array([[2.0, 0.3, 1.0], [4.0, 0.8, 2.0], [3.0, 1.0, 2.0]])


def measure(n: int, changed: bool, rng: np.random.Generator) -> np.ndarray:
    """Temperature, current and vibration of a machine in one of three states."""
    label = rng.choice(3, size=n, p=[0.5, 0.35, 0.15])
    means = MEANS.copy()
    if changed:
        means[1] += 2 * SPREAD[1]
    return means[label] + SPREAD[label] * rng.normal(size=(n, 3))


def write(path: str, n_rows: int) -> None:
    """Append to the array, a little at a time, as an instrument does."""
    rng = np.random.default_rng(0)
    array = zarr.open_array(path, mode="r+")
    while array.shape[0] < n_rows:
        n = int(rng.integers(200, 1_800))
        changed = array.shape[0] >= n_rows * 2 // 3
        end = n_rows if changed else n_rows * 2 // 3
        array.append(measure(min(n, end - array.shape[0]), changed, rng).astype("f4"))
        time.sleep(0.01)


def learn(path: str, state: str, alarms: str) -> None:
    """Follow the array until told to end."""
    model = streamgmm.OnlineGaussianMixture(3, half_life=10_000.0, warm_up=5_000, random_state=0)
    streamgmm.follow(path, state, model, interval=0.1, save_rows=2_000, alarms=alarms)


def read(state: str, done: int) -> None:
    """Load the model as it is, again and again, while it is learned."""
    seen = -1
    while seen < done:
        try:
            model = streamgmm.load(state)
        except streamgmm.errors.ModelFileError:
            if seen >= 0:
                raise
            time.sleep(0.1)  # there is no model yet
            continue
        if model.n_samples_seen_ != seen and model.n_samples_seen_ >= 5_000:
            seen = model.n_samples_seen_
            hot = float(model.means_[:, 0].max())
            print(f"reader: {seen:,} rows learned, hottest state at {hot:.1f} degrees", flush=True)
        time.sleep(0.2)


def draw(model: streamgmm.OnlineGaussianMixture, change: int, path: Path) -> None:
    """Save a picture of what was noticed; needs the plot extra."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    seen = model.monitor_
    rows = np.cumsum(seen["rows"])
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(9, 5.5))
    above.plot(rows, seen["log_likelihood"], lw=1)
    above.set_ylabel("log-likelihood a row,\nbefore it was learned (nats)")
    below.semilogy(rows, np.maximum(seen["means"], 1e-1), lw=1, label="means")
    below.semilogy(rows, np.maximum(seen["likelihood"], 1e-1), lw=1, label="likelihood")
    below.set_ylabel("drift statistic")
    below.set_xlabel("rows")
    for axis in (above, below):
        axis.axvline(change, color="0.6", ls="--", lw=1, label="the change")
        for i, alarm in enumerate({alarm["row"]: alarm for alarm in seen["alarms"]}.values()):
            axis.axvline(alarm["row"], color="C3", lw=1, label="alarm" if i == 0 else None)
    below.legend(loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default="streamgmm-telemetry", type=Path)
    parser.add_argument("--rows", type=int, default=60_000)
    given = parser.parse_args(arguments)
    n_rows, folder = given.rows // CHUNK * CHUNK, given.folder
    folder.mkdir(parents=True, exist_ok=True)
    data, state, alarms = (
        str(folder / name) for name in ("telemetry.zarr", "state.zarr", "alarms.ndjson")
    )
    if Path(data).exists() or Path(state).exists():
        print(f"'{folder}' has a run in it already; give another folder", file=sys.stderr)
        return 2
    zarr.create_array(data, shape=(0, 3), chunks=(CHUNK, 3), dtype="f4")

    processes = multiprocessing.get_context("spawn")
    writer = processes.Process(target=write, args=(data, n_rows))
    follower = processes.Process(target=learn, args=(data, state, alarms))
    reader = processes.Process(target=read, args=(state, n_rows))
    for process in (writer, follower, reader):
        process.start()
    while reader.is_alive() and follower.is_alive():
        reader.join(1.0)
    reader.terminate()
    follower.terminate()  # SIGTERM: it saves what it has, and ends
    for process in (writer, follower):
        process.join()

    model = streamgmm.load(state)
    change = n_rows * 2 // 3
    found = [alarm for alarm in model.monitor_["alarms"] if alarm["row"] > change]
    print(f"{model.n_samples_seen_:,} rows learned; the change was after row {change:,}")
    for alarm in found[:1]:
        print(f"first alarm after it: row {alarm['row']:,}, by the {alarm['kind']}")
    draw(model, change, folder / "drift.png")
    print(f"picture: {folder / 'drift.png'}")
    return 0 if found and follower.exitcode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
