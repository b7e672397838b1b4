"""Whether two checkouts give the same bits, fit by fit.

    python -m benchmarks.same_bits PATH

runs the package of this checkout and that of PATH, each in a process of its own, on the same
rows: four covariance types, fitted by batch EM, incrementally, resumed from a checkpoint, by
selection, online, and by following an array. Every parameter, label, log-density and history
(but seconds) that PATH has is compared, and the state of what learns. Models that PATH has saved
must load here. ``--given`` compares fits from given parameters only, for checkouts that find
other starts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import click
import numpy as np

KINDS = ("full", "tied", "diag", "spherical")
CLOCKS = {"seconds", "timings_", "rows_per_second"}
PARAMETERS = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")


def rows(n: int = 24_000, d: int = 5) -> np.ndarray:
    """Overlapping blobs far from the origin, so that rounding has something to do."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, d)) * 1.5
    labels = rng.integers(4, size=n)
    return 100.0 + centres[labels] + rng.normal(size=(n, d)) * (1 + labels[:, None] / 3)


def digest(value: Any) -> Any:
    """Numbers as digests of their bits; dictionaries entry by entry, less clocks."""
    if isinstance(value, dict):
        return {k: digest(v) for k, v in sorted(value.items()) if k not in CLOCKS}
    if isinstance(value, (list, tuple)) and not all(isinstance(v, float) for v in value):
        return [digest(v) for v in value]
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        return repr(value)
    return sha256(np.ascontiguousarray(array).tobytes() + repr(array.shape).encode()).hexdigest()[
        :16
    ]


def describe(model: Any, X: np.ndarray) -> dict[str, Any]:
    """All that a fitted model is and says of rows."""
    found = {name: digest(getattr(model, name)) for name in PARAMETERS}
    found["log_density"] = digest(model.score_samples(X))
    found["labels"] = digest(model.predict(X))
    found["proba"] = digest(model.predict_proba(X))
    for name in ("history_", "lower_bounds_", "n_iter_", "converged_", "data_seen_"):
        if hasattr(model, name):
            found[name] = digest(getattr(model, name))
    return found


class EndedError(Exception):
    """A fit is ended in the middle."""


def given(kind: str, X: np.ndarray) -> dict[str, Any]:
    """Parameters to start from, which no random number decides."""
    d = X.shape[1]
    precisions = {
        "full": np.tile(np.eye(d), (4, 1, 1)),
        "tied": np.eye(d),
        "diag": np.ones((4, d)),
    }
    return {
        "weights_init": np.full(4, 0.25),
        "means_init": X[:4] + np.arange(4)[:, None] / 8,
        "precisions_init": precisions.get(kind, np.ones(4)) / 4,
    }


def fits(
    kind: str, X: np.ndarray, folder: Path, start: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Batch and incremental fits of an array, with weights, and of float32 in Zarr; resumed."""
    import streamgmm

    weight = np.random.default_rng(1).random(len(X))
    data: dict[str, tuple[Any, Any]] = {
        "array": (X, None), "weighted": (X, weight), "zarr": ("x.zarr", None),
    }  # fmt: skip
    common: dict[str, Any] = {"covariance_type": kind, "random_state": 1, "max_iter": 15} | start
    for algorithm in ("em", "incremental"):
        settings = common | {"algorithm": algorithm, "block_size": 100_000}
        for name, (source, weights) in data.items():
            model = streamgmm.GaussianMixture(4, **settings).fit(source, sample_weight=weights)
            yield f"{kind} {algorithm} {name}", model
        path = folder / f"{kind}-{algorithm}.run"
        model = streamgmm.GaussianMixture(4, checkpoint=str(path), **settings)
        with ended(after=8):
            model.fit(X)
        yield f"{kind} {algorithm} resumed", model.fit(X)
    few = streamgmm.GaussianMixture(4, **common).fit(X[:2000])
    few.set_params(warm_start=True, max_iter=5)
    yield f"{kind} warm start", few.fit(X[:2000])


@contextmanager
def ended(after: int) -> Iterator[None]:
    """Within it a fit is ended before its pass number `after`, which it must have."""
    from streamgmm.passes import local

    real, left = local.LocalExecutor.run, after

    def run(executor: Any, func: Any, context: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            raise EndedError
        return real(executor, func, context, **options)

    local.LocalExecutor.run = run  # type: ignore[method-assign, assignment]
    try:
        yield
    except EndedError:
        pass
    finally:
        local.LocalExecutor.run = real  # type: ignore[method-assign]
    assert left <= 0, "the fit was over before it could be ended"


def learned(kind: str, X: np.ndarray, folder: Path) -> Iterator[tuple[str, Any]]:
    """Models that learn batch by batch, with what they forget and adapt, and merged; followed."""
    import streamgmm

    for name, settings in {
        "online": {},
        "online forgetting": {"half_life": 20_000},
    }.items():
        model = streamgmm.OnlineGaussianMixture(
            4, covariance_type=kind, random_state=1, warm_up=2000, **settings
        )
        for i in range(0, len(X), 500):
            model.partial_fit(X[i : i + 500])
        yield f"{kind} {name}", model
    model = streamgmm.OnlineGaussianMixture(4, covariance_type=kind, random_state=1, warm_up=2000)
    state = folder / f"{kind}-follow.state"
    yield f"{kind} follow", streamgmm.follow("x.zarr", state, model, once=True)


def run(folder: Path, how: str) -> dict[str, Any]:
    """Every result of this process's package, and models saved for the other to load."""
    import zarr

    import streamgmm

    warnings.simplefilter("ignore")
    os.chdir(folder)  # so that the name of the array is the same
    X = rows()
    zarr.create_array(str(folder / "x.zarr"), data=X.astype(np.float32), chunks=(1000, X.shape[1]))
    found: dict[str, Any] = {"package": str(Path(streamgmm.__file__).parent)}
    for kind in KINDS:
        start = given(kind, X) if how == "given" else {}
        work = [fits(kind, X, folder, start)]
        if not start:
            work.append(learned(kind, X, folder))
        for name, model in chain(*work):
            path = folder / f"{name.replace(' ', '-')}.model"
            model.save(path)
            found[name] = describe(model, X)
            group = zarr.open_group(str(path), mode="r")
            found[name]["saved"] = digest({n: array[...] for n, array in group.arrays()})
    if how == "given":
        return found
    chosen = streamgmm.select(X, [2, 3, 4], KINDS, random_state=0, max_iter=20)
    found["select"] = {"table": digest(chosen.table), "best": describe(chosen.best, X)}
    return found


def load(folder: Path) -> dict[str, Any]:
    """What the models say that the other package has saved."""
    import streamgmm

    X = rows()
    return {
        path.stem.replace("-", " "): describe(streamgmm.load(path), X)
        for path in sorted(folder.glob("*.model"))
    }


def differences(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """Where a result differs from what it was before."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a:
            yield from differences(a.get(key), b.get(key), f"{where} / {key}" if where else key)
    elif a != b:
        yield where


@click.command()
@click.argument("other", type=click.Path(exists=True, path_type=Path), required=False)
@click.option("--given", "starts", is_flag=True, help="Only fits from given parameters.")
@click.option("--run", "task", nargs=2, hidden=True)
def main(other: Path | None, starts: bool, task: tuple[str, str] | None) -> None:
    """Compare this checkout with the one at OTHER."""
    if task:
        how, folder = task[0], Path(task[1])
        print(json.dumps(load(folder) if how == "load" else run(folder, how)))
        return
    if other is None:
        raise click.UsageError("give the path of the other checkout")
    here, script = Path(__file__).parents[1], Path(__file__)

    def ask(checkout: Path, how: str, folder: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, str(script), "--run", how, folder], check=True, text=True,
            stdout=subprocess.PIPE, cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)},
        )  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    with tempfile.TemporaryDirectory() as ours, tempfile.TemporaryDirectory() as theirs:
        how = "given" if starts else "found"
        new, old = ask(here, how, ours), ask(other.resolve(), how, theirs)
        packages = new.pop("package"), old.pop("package")
        assert packages[0] != packages[1], f"both have run {packages[0]}"
        differ = list(differences(old, new))
        loaded = ask(here, "load", theirs)
        saved = {n: {k: v for k, v in old[n].items() if k != "saved"} for n in loaded}
        differ += [f"loaded: {each}" for each in differences(saved, loaded)]
    for each in differ:
        print(each)
    n = len(old) + len(loaded)
    print(
        f"{n} results of {packages[1]} and {packages[0]}: {len(differ)} differences"
        if differ
        else f"{n} results, all bits the same"
    )
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
