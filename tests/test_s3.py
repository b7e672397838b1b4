"""A whole job on a store that speaks S3: a server of that protocol, on the loopback address."""

from __future__ import annotations

import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import zarr
from botocore.exceptions import ClientError
from sklearn.exceptions import ConvergenceWarning

import streamgmm
from streamgmm.errors import CheckpointError
from tests.daemons import set_environment, wait_until
from tests.mixtures import draw, random_mixture

X = draw(random_mixture("full", 4, 5, 1, spread=1.0), 60_000, 1)


@pytest.fixture(scope="module")
def bucket(make_bucket: Callable[[str], None]) -> str:
    """The URL of a bucket with the rows in it."""
    make_bucket("jobs")
    array = zarr.create_array("s3://jobs/x.zarr", shape=X.shape, chunks=(5000, 5), dtype="f8")
    array[:] = X
    return "s3://jobs"


def fitted(data: object, **settings: object) -> streamgmm.GaussianMixture:
    chosen = {"algorithm": "incremental", "block_size": "200kB", "random_state": 0} | settings
    return streamgmm.GaussianMixture(4, **chosen).fit(data)


def same(a: streamgmm.GaussianMixture, b: streamgmm.GaussianMixture) -> None:
    for name in ("weights_", "means_", "covariances_"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.fixture
def there(client: Any, s3_server: dict[str, str]) -> Iterator[None]:
    """An active cluster of which each worker's environment says where the store is."""
    client.run(set_environment, s3_server)
    yield
    client.run(set_environment, dict.fromkeys(s3_server))


@pytest.mark.usefixtures("there")
def test_fit_predict_and_save_on_a_cluster(bucket: str, tmp_path: Path) -> None:
    model = fitted(f"{bucket}/x.zarr")
    model.predict(f"{bucket}/x.zarr", out=f"{bucket}/labels.zarr")
    here = zarr.create_array(str(tmp_path / "x.zarr"), data=X, chunks=(5000, 5))
    same(model, fitted(here, n_jobs=1))
    labels = zarr.open_array(f"{bucket}/labels.zarr", mode="r")[:]
    np.testing.assert_array_equal(labels, model.predict(X))
    model.save(f"{bucket}/model.zarr")
    same(streamgmm.load(f"{bucket}/model.zarr"), model)


def test_a_killed_job_goes_on_from_its_checkpoint(bucket: str) -> None:
    data, place = f"{bucket}/x.zarr", f"{bucket}/run.zarr"
    settings = {"tol": 0.0, "max_iter": 15}
    code = (
        "from tests.test_s3 import fitted\n"
        f"fitted({data!r}, checkpoint={place!r}, **{settings!r})\n"
    )

    def committed() -> bool:
        with suppress(ClientError):
            found = boto3.client("s3").get_object(Bucket="jobs", Key="run.zarr/zarr.json")
            return b'"sha256"' in found["Body"].read()
        return False

    job = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    wait_until(committed, "a checkpoint is there")
    assert job.poll() is None, "the fit was over before it could be killed"
    job.send_signal(signal.SIGKILL)
    job.wait()
    with pytest.raises(CheckpointError, match="tol is"):
        fitted(data, checkpoint=place, tol=0.5, max_iter=15)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        same(fitted(data, checkpoint=place, **settings), fitted(data, **settings))
