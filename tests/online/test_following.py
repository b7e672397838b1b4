"""Following sources: each row once, whenever it was looked at, however often it was killed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import streamgmm
from streamgmm import OnlineGaussianMixture, follow
from streamgmm.errors import (
    ModelFileError,
    NonFiniteError,
    OutputExistsError,
    ParameterError,
    SourceError,
)
from streamgmm.estimators import following as face
from streamgmm.online import learner as learner_module
from streamgmm.online.following import StateInUseError
from streamgmm.online.following.stop import Stop

WARM = 300


def make_rows(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) + 6.0 * rng.integers(0, 2, size=(n, 1))


def new_model(**settings: Any) -> OnlineGaussianMixture:
    return OnlineGaussianMixture(2, warm_up=WARM, n_init=1, random_state=0, **settings)


def make_array(path: Path, rows: np.ndarray, chunk: int = 500) -> zarr.Array:
    array = zarr.create_array(
        str(path), shape=rows.shape, chunks=(chunk, rows.shape[1]), dtype=rows.dtype
    )
    array[:] = rows
    return array


def same(a: OnlineGaussianMixture, b: OnlineGaussianMixture) -> None:
    assert a.n_samples_seen_ == b.n_samples_seen_
    for name in ("weights_", "means_", "covariances_"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for name in ("rows", "log_likelihood", "cusum"):
        np.testing.assert_array_equal(a.monitor_[name], b.monitor_[name])


def test_growing_array_read_whenever_is_the_same(tmp_path: Path) -> None:
    rows = make_rows(4_250)
    whole = make_array(tmp_path / "whole.zarr", rows)
    once = follow(str(tmp_path / "whole.zarr"), tmp_path / "a", new_model(), once=True)
    grown = make_array(tmp_path / "grown.zarr", rows[:700])
    for first, last in ((700, 1_300), (1_300, 1_301), (1_301, 4_000), (4_000, 4_250)):
        follow(grown, tmp_path / "b", new_model(), once=True)
        grown.append(rows[first:last])
    again = follow(grown, tmp_path / "b", once=True)
    assert again.n_samples_seen_ == 4_000  # the last chunk is not whole
    same(once, again)
    same(once, streamgmm.load(tmp_path / "b"))
    assert whole.shape[0] == 4_250
    end = follow(grown, tmp_path / "b", once=True, partial_chunks=True)
    assert end.n_samples_seen_ == 4_250
    assert end.monitor_["rows"].sum() == 4_250


def test_chunks_that_are_not_written_yet_are_left(tmp_path: Path) -> None:
    rows = make_rows(2_000)
    array = make_array(tmp_path / "x.zarr", rows[:1_000])
    array.resize((2_000, 2))  # a writer at work
    model = follow(array, tmp_path / "s", new_model(), once=True)
    assert model.n_samples_seen_ == 1_000
    array[1_000:1_700] = rows[1_000:1_700]
    assert follow(array, tmp_path / "s", once=True).n_samples_seen_ == 1_500
    array[1_700:] = rows[1_700:]
    assert follow(array, tmp_path / "s", once=True).n_samples_seen_ == 2_000


@pytest.mark.parametrize("what", ["shrunk", "first", "last"])
def test_array_changed_behind_the_position(tmp_path: Path, what: str) -> None:
    array = make_array(tmp_path / "x.zarr", make_rows(2_000))
    follow(array, tmp_path / "s", new_model(), once=True)
    if what == "shrunk":
        array.resize((1_000, 2))
    else:
        array[0 if what == "first" else 1_900] += 1.0
    with pytest.raises(SourceError, match="shrunk" if what == "shrunk" else "rewritten"):
        follow(array, tmp_path / "s", once=True)


def write_folder(folder: Path, rows: np.ndarray, kind: str) -> None:
    for i, part in enumerate(np.array_split(rows, 5)):
        name = folder / f"part-{i:03}{kind}"
        if kind == ".npy":
            np.save(name, part)
        elif kind == ".zarr":
            make_array(name, part)
        else:
            parquet = pytest.importorskip("pyarrow.parquet", reason="an extra")
            arrow = pytest.importorskip("pyarrow", reason="an extra")
            table = arrow.table({"a": part[:, 0], "b": part[:, 1]})
            parquet.write_table(table, name, row_group_size=130)


@pytest.mark.parametrize("kind", [".npy", ".zarr", ".parquet"])
def test_folder(tmp_path: Path, kind: str) -> None:
    rows = make_rows(3_003)
    folder = tmp_path / "in"
    folder.mkdir()
    write_folder(folder, rows, kind)
    later = folder / f"part-004{kind}"
    aside = tmp_path / later.name
    later.rename(aside)
    follow(folder, tmp_path / "s", new_model(), once=True)
    aside.rename(later)
    model = follow(folder, tmp_path / "s", once=True)
    assert model.n_samples_seen_ == 3_003
    same(model, follow(folder, tmp_path / "t", new_model(), once=True))
    ((folder / f"part-002{kind}").rename(folder / f"part-0021{kind}"))
    follow(folder, tmp_path / "s", once=True)  # other names, as many files: their rows are known
    (folder / f"part-0021{kind}").rename(tmp_path / "gone")
    with pytest.raises(SourceError, match="added or removed"):
        follow(folder, tmp_path / "s", once=True)


def test_file_of_a_folder_that_is_not_whole_is_left(tmp_path: Path) -> None:
    rows = make_rows(1_000)
    folder = tmp_path / "in"
    folder.mkdir()
    np.save(folder / "a.npy", rows[:600])
    np.save(folder / "b.npy", rows[600:])
    whole = (folder / "b.npy").read_bytes()
    (folder / "b.npy").write_bytes(whole[:-100])
    assert follow(folder, tmp_path / "s", new_model(), once=True).n_samples_seen_ == 600
    (folder / "b.npy").write_bytes(whole)
    assert follow(folder, tmp_path / "s", once=True).n_samples_seen_ == 1_000


def as_text(rows: np.ndarray, kind: str) -> bytes:
    if kind == "csv":
        lines = ["a,b", *(f"{x!r},{y!r}" for x, y in rows.tolist())]
        return "\n".join(lines).encode()
    if kind == "ndjson":
        return "".join(json.dumps({"a": x, "b": y}) + "\n" for x, y in rows.tolist()).encode()
    arrow = pytest.importorskip("pyarrow", reason="an extra")
    table = arrow.table({"a": rows[:, 0], "b": rows[:, 1]})
    sink = io.BytesIO()
    with arrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=170)
    return sink.getvalue()


@pytest.mark.parametrize("kind", ["csv", "ndjson", "arrow"])
def test_stream_formats_are_the_same_rows(tmp_path: Path, kind: str) -> None:
    rows = make_rows(2_345)
    text = as_text(rows, kind)
    model = follow(io.BytesIO(text), tmp_path / "s", new_model(), format=kind)
    batches = [rows[i : i + 1_000] for i in range(0, len(rows), 1_000)]
    same(model, follow(batches, tmp_path / "t", new_model()))
    again = follow(io.BytesIO(text), tmp_path / "s", format=kind)
    assert again.n_samples_seen_ == 2_345  # all of it is known
    more = follow(io.BytesIO(text), tmp_path / "s", format=kind, replay=False)
    assert more.n_samples_seen_ == 2 * 2_345


def test_stream_that_is_another(tmp_path: Path) -> None:
    follow([make_rows(500)], tmp_path / "s", new_model())
    with pytest.raises(SourceError, match="replay=False"):
        follow([make_rows(500, seed=1)], tmp_path / "s")
    with pytest.raises(SourceError, match="ended after"):
        follow([], tmp_path / "s")


@pytest.mark.parametrize("text", [b"1,2\n3,x\n", b"1,2\n3\n"])
def test_bad_line_is_named(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(ValueError, match="line 2"):
        follow(io.BytesIO(text), tmp_path / "s", new_model())


def test_nan_ends_it_or_is_passed_over(tmp_path: Path) -> None:
    rows = make_rows(2_000)
    bad = rows.copy()
    bad[1_100, 1] = np.nan
    batches = [bad[i : i + 500] for i in range(0, 2_000, 500)]
    with pytest.raises(NonFiniteError, match="row 100, column 1"):
        follow(batches, tmp_path / "s", new_model())
    assert streamgmm.load(tmp_path / "s").n_samples_seen_ == 1_000
    model = follow(batches, tmp_path / "s", skip_refused=True)
    assert model.n_samples_seen_ == 1_500
    good = [batches[0], batches[1], batches[3]]
    same(model, follow(good, tmp_path / "t", new_model()))


def test_states_that_are_not_for_this(tmp_path: Path) -> None:
    rows = [make_rows(600)]
    follow(rows, tmp_path / "s", new_model())
    with pytest.raises(ParameterError, match="n_components=2 there, 3 here"):
        follow(rows, tmp_path / "s", OnlineGaussianMixture(3))
    array = make_array(tmp_path / "x.zarr", rows[0])
    with pytest.raises(ParameterError, match="follows StreamFeed"):
        follow(array, tmp_path / "s", once=True)
    with pytest.raises(ParameterError, match="no state"):
        follow(rows, tmp_path / "none")
    streamgmm.GaussianMixture(2).fit(rows[0]).save(tmp_path / "m")
    with pytest.raises(ModelFileError, match="follows nothing"):
        follow(rows, tmp_path / "m")
    meta = tmp_path / "s" / "zarr.json"
    meta.write_text(meta.read_text().replace('"n_rows": 600', '"n_rows": 601'))
    with pytest.raises(ModelFileError, match="damaged"):
        follow(rows, tmp_path / "s")


def test_outputs_behind_urls(tmp_path: Path) -> None:
    array = make_array(tmp_path / "x.zarr", make_rows(1_000))
    url = f"memory://{tmp_path.name}-{os.getpid()}/labels.zarr"
    follow(array, tmp_path / "s", new_model(), once=True, labels=url)
    array.append(make_rows(500, seed=1))
    follow(array, tmp_path / "s", new_model(), once=True, labels=url)
    assert zarr.open_array(url, mode="r").shape == (1_500,)
    with pytest.raises(ParameterError, match="is a URL, where no lines can be appended"):
        follow(array, tmp_path / "t", new_model(), once=True, labels="memory://x/labels.ndjson")


def test_a_folder_by_its_url(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "folder/a.npy", make_rows(600))
    model = follow(f"file://{tmp_path}/folder", tmp_path / "s", new_model(), once=True)
    assert model.n_samples_seen_ == 600


def test_second_follower_is_refused(tmp_path: Path) -> None:
    def batches() -> Any:
        yield make_rows(600)
        with pytest.raises(StateInUseError, match=f"being followed by process {os.getpid()} on "):
            follow([make_rows(600)], tmp_path / "s", new_model())
        yield make_rows(600, seed=1)

    assert follow(batches(), tmp_path / "s", new_model()).n_samples_seen_ == 1_200


@pytest.mark.parametrize("suffix", ["zarr", "ndjson"])
def test_outputs(tmp_path: Path, suffix: str) -> None:
    rows = np.concatenate([make_rows(9_000), make_rows(6_000, seed=1) + 3.0])
    array = make_array(tmp_path / "x.zarr", rows)
    where = {name: tmp_path / f"{name}.{suffix}" for name in ("labels", "log_density", "alarms")}
    model = follow(array, tmp_path / "s", new_model(), once=True, **where)  # type: ignore[arg-type]
    if suffix == "zarr":
        labels = zarr.open_array(str(where["labels"]))[:]
        density = zarr.open_array(str(where["log_density"]))[:]
        alarms = zarr.open_array(str(where["alarms"]))[:, 0].tolist()
    else:
        read = {
            k: [json.loads(line) for line in v.read_text().splitlines()] for k, v in where.items()
        }
        labels = np.array([line["label"] for line in read["labels"]])
        density = np.array([line["log_density"] for line in read["log_density"]])
        alarms = [line["row"] for line in read["alarms"]]
    assert len(labels) == len(density) == 15_000
    level = model.monitor_["log_likelihood"][10:18].mean()  # of 500 rows each, before the change
    assert abs(density[5_000:9_000].mean() - level) < 0.02
    assert alarms == [alarm["row"] for alarm in model.monitor_["alarms"]]
    assert len(alarms) > 0
    with pytest.raises(OutputExistsError):
        follow(array, tmp_path / "t", new_model(), once=True, labels=where["labels"])


class StopAfter(Stop):
    """Asked to end when it has been looked at so many times."""

    def __init__(self, n: int) -> None:
        self.left = n
        super().__init__()

    @property
    def asked(self) -> int:
        self.left -= 1
        return signal.SIGTERM if self.left < 0 else 0

    @asked.setter
    def asked(self, signum: int) -> None:
        pass


def test_a_warm_up_that_is_spread_over_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels come in the order of the rows, each once, whenever the follower is stopped."""
    rows = make_rows(2_000)
    batches = [rows[i : i + 50] for i in range(0, 2_000, 50)]

    def go(name: str) -> OnlineGaussianMixture:
        where = {what: tmp_path / f"{name}-{what}.zarr" for what in ("labels", "log_density")}
        model = OnlineGaussianMixture(2, warm_up=WARM, n_init=3)
        return follow(batches, tmp_path / name, model, save_rows=100, **where)  # type: ignore[arg-type]

    whole = go("whole")
    monkeypatch.setattr(learner_module, "QUOTA", 1_500_000)
    phases = set()
    for n in range(8, 1_000):
        monkeypatch.setattr(face, "stoppable", lambda n=n: nullcontext(StopAfter(n)))
        model = go("part")
        learner = model.learner_
        phases.add((learner.gathered is None, learner.busy))
        labels = zarr.open_array(str(tmp_path / "part-labels.zarr"))
        waiting = sum(len(part) for part in learner.waiting)
        assert labels.shape[0] + waiting == model.n_samples_seen_
        if model.n_samples_seen_ == 2_000:
            break
    assert (False, True) in phases  # stopped while the fit was under way
    same(whole, model)
    for what in ("labels", "log_density"):
        one, two = (
            zarr.open_array(str(tmp_path / f"{name}-{what}.zarr"))[:] for name in ("whole", "part")
        )
        np.testing.assert_array_equal(one, two)
    assert len(one) == 2_000
    density = whole.score_samples(rows)
    assert np.corrcoef(one[:1_000], density[:1_000])[0, 1] > 0.8  # of their rows, in order


SCRIPT = """
import sys, streamgmm
from streamgmm import OnlineGaussianMixture, follow
source, state, labels = sys.argv[1:]
model = OnlineGaussianMixture(2, warm_up=300, n_init=1, random_state=0)
print("ready", flush=True)
follow(source, state, model, once=True, save_rows=1000, labels=labels)
print("done", flush=True)
"""


def start(*arguments: Path | str, script: str = SCRIPT) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    env = os.environ | {"PYTHONWARNINGS": "default"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)


KILLED = """
import os, random, signal, sys
from streamgmm import OnlineGaussianMixture, follow

source, state, labels = sys.argv[1:]
CHANGES = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}
moments = random.Random(5)


def end_at(n, seconds):
    # Soon after the n-th time that a file of the state or of the labels is touched.
    left = [n]

    def look(event, arguments):
        if event in CHANGES and str(arguments[0]).startswith((state, labels)):
            left[0] -= 1
            if left[0] == 0:
                signal.setitimer(signal.ITIMER_REAL, seconds)  # nobody handles its signal

    sys.addaudithook(look)


def go():
    model = OnlineGaussianMixture(2, warm_up=300, n_init=1, random_state=0)
    follow(source, state, model, once=True, save_rows=1000, labels=labels)


for _ in range(8):
    n, seconds = moments.randrange(1, 160), moments.uniform(1e-6, 5e-3)
    pid = os.fork()
    if pid == 0:
        end_at(n, seconds)
        go()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, flush=True)
go()
"""


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """The system ends a follower that writes, over and over: no row is lost, none counts twice."""
    array = make_array(tmp_path / "x.zarr", make_rows(20_000))
    whole = follow(
        array, tmp_path / "a", new_model(), once=True, labels=tmp_path / "a-labels.zarr"
    )
    process = start(tmp_path / "x.zarr", tmp_path / "b", tmp_path / "b-labels.zarr", script=KILLED)
    said = process.communicate()[0].split()
    assert process.returncode == 0
    assert said == [str(int(signal.SIGALRM))] * 8
    again = streamgmm.load(tmp_path / "b")
    assert again.n_samples_seen_ == 20_000
    same(whole, again)
    mine, theirs = (zarr.open_array(str(tmp_path / f"{k}-labels.zarr"))[:] for k in "ab")
    np.testing.assert_array_equal(mine, theirs)


def test_sigterm_saves_and_ends(tmp_path: Path) -> None:
    make_array(tmp_path / "x.zarr", make_rows(3_000))
    script = SCRIPT.replace("once=True", "interval=60").replace("1000", "10**9")
    process = start(tmp_path / "x.zarr", tmp_path / "s", tmp_path / "l.zarr", script=script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            if streamgmm.load(tmp_path / "s").n_samples_seen_ == 3_000:
                break
        except (ValueError, OSError):
            pass
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=300)[0] == "done\n"
    assert process.returncode == 0
    assert streamgmm.load(tmp_path / "s").n_samples_seen_ == 3_000


def test_icechunk_branch_by_its_commits(tmp_path: Path) -> None:
    icechunk = pytest.importorskip("icechunk", reason="an extra")
    storage = icechunk.local_filesystem_storage(str(tmp_path / "repo"))
    repository = icechunk.Repository.create(storage)
    rows = make_rows(2_150)

    def commit(first: int, last: int) -> None:
        session = repository.writable_session("main")
        if first == 0:
            array = zarr.create_array(
                session.store, name="x", shape=(0, 2), chunks=(400, 2), dtype="f8"
            )
        else:
            array = zarr.open_array(session.store, path="x")
        array.append(rows[first:last])
        session.commit(f"rows {first}:{last}")

    commit(0, 700)
    model = follow(repository, tmp_path / "s", new_model(), array="x", once=True)
    assert model.n_samples_seen_ == 700
    commit(700, 701)
    commit(701, 2_150)
    model = follow(repository, tmp_path / "s", array="x", once=True)
    assert model.n_samples_seen_ == 2_150
    same(model, follow(repository, tmp_path / "t", new_model(), array="x", once=True))
    session = repository.writable_session("main")
    zarr.open_array(session.store, path="x")[2_149] = 0.0
    session.commit("rewritten")
    with pytest.raises(SourceError, match="rewritten"):
        follow(repository, tmp_path / "s", array="x", once=True)
