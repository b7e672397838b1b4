from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import hypothesis
import pytest

hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Two worker processes with nannies, one for the whole session; no client is active."""
    import dask
    from distributed import LocalCluster

    from tests.forked import Forked

    # Tests kill workers, and Dask gives up one that is lost again while it is being replaced.
    patience = dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"})
    with (
        patience,
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            worker_class=Forked,
            dashboard_address=":0",  # a port that is free, whoever else runs tests
            memory_limit="2GiB",
            silence_logs=logging.CRITICAL,
        ) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server that speaks S3, one for the whole session; what the environment says of it."""
    from tests.daemons import free_port, running

    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(*command, log=tmp_path_factory.mktemp("s3") / "log"):
        yield {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }


@pytest.fixture(scope="module")
def make_bucket(s3_server: dict[str, str]) -> Iterator[Callable[[str], None]]:
    """Make an empty bucket; the environment says where the store is, as for real ones."""
    import boto3
    from botocore.exceptions import BotoCoreError

    from tests.daemons import wait_until

    def make(name: str) -> None:
        def there() -> bool:
            with suppress(BotoCoreError):
                boto3.client("s3").create_bucket(Bucket=name)
                return True
            return False

        wait_until(there, "the store answers")

    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.items():
            patch.setenv(name, value)
        yield make


@pytest.fixture
def client(cluster: Any) -> Iterator[Any]:
    """An active client of that cluster, with both workers there."""
    from distributed import Client

    with Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        yield client
