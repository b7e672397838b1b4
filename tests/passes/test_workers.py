"""Clusters that cannot do a fit say so before it starts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr

from streamgmm.errors import (
    ParameterError,
    SchedulerError,
    SourceError,
    StreamGMMWarning,
    WorkerError,
)
from streamgmm.passes import active_client, check_workers, connect, open_executor, workers
from streamgmm.sources import open_source


def test_alike_workers_are_told(client: Any) -> None:
    found = check_workers(client)
    assert set(found) == set(client.scheduler_info(n_workers=-1)["workers"])
    for each in found.values():
        assert each["numpy"] == np.__version__
        assert each["processor"]


@pytest.mark.parametrize("name", ["streamgmm", "python"])
def test_versions_that_must_agree(name: str, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = workers._versions() | {name: "9.9"}
    monkeypatch.setattr(workers, "_versions", lambda: here)
    with pytest.raises(WorkerError, match=rf"{name} is .* on tcp://.*this process has 9\.9"):
        check_workers(client)


def test_versions_that_should_agree(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = workers._versions() | {"numba": "0.1"}
    monkeypatch.setattr(workers, "_versions", lambda: here)
    with pytest.warns(StreamGMMWarning, match=r"numba is .* on tcp://.* this process has 0\.1"):
        check_workers(client)


class Answers:
    """A client whose workers say what they are told to."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers

    class scheduler:
        address = "tcp://there:8786"

    def _run(self) -> None: ...

    def sync(self, func: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self.answers


def test_different_processors_are_told() -> None:
    alike = workers._versions() | {"blind": ""}
    two = {"tcp://a": alike | {"processor": "zen4"}, "tcp://b": alike | {"processor": "skylake"}}
    with pytest.warns(StreamGMMWarning, match=r"different processors \(skylake, zen4\)"):
        check_workers(Answers(two))


def test_a_worker_without_the_package() -> None:
    with pytest.raises(WorkerError, match="tcp://a: No module named 'streamgmm'"):
        check_workers(Answers({"tcp://a": ModuleNotFoundError("No module named 'streamgmm'")}))


def test_no_workers() -> None:
    with pytest.raises(SchedulerError, match="'tcp://there:8786' has no workers"):
        check_workers(Answers({}))


def test_data_that_workers_do_not_see(client: Any, tmp_path: Path) -> None:
    data = zarr.create_array(str(tmp_path / "x.zarr"), data=np.zeros((4000, 2)), chunks=(500, 2))
    blocks = open_source(data).blocks(1 << 12)
    (tmp_path / "x.zarr").rename(tmp_path / "y.zarr")
    with (
        pytest.raises(SourceError, match=r"2 of 2 workers cannot see the data .*shared file"),
        open_executor(blocks),
    ):
        pass


def test_a_scheduler_that_does_not_answer() -> None:
    before = dask.config.get("scheduler", None)
    begin = time.monotonic()
    with pytest.raises(SchedulerError, match=r"'tcp://127\.0\.0\.1:9' within 0\.5 s"):
        connect("tcp://127.0.0.1:9", timeout=0.5)
    with pytest.raises(ConnectionError, match=r"'nonsense://x'"):
        connect("nonsense://x", timeout=0.5)
    assert time.monotonic() - begin < 20
    assert dask.config.get("scheduler", None) == before  # Dask goes on without it
    assert active_client() is None
    with pytest.raises(ParameterError, match="n_workers=0"):
        connect("tcp://127.0.0.1:9", n_workers=0)


def test_fewer_workers_than_awaited(cluster: Any) -> None:
    with pytest.raises(SchedulerError, match="has 2 of 5 workers after 1 s"):
        connect(cluster.scheduler_address, timeout=1, n_workers=5)


def test_a_cluster_without_workers_is_told() -> None:
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=0, dashboard_address=":0") as empty, Client(empty) as client:
        source = open_source(np.zeros((4000, 2)))
        with (
            pytest.warns(StreamGMMWarning, match="no workers yet"),
            open_executor(source.blocks(1 << 12), client=client),
        ):
            pass
