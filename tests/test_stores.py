"""Everything in stores: URLs with options and Zarr stores, also where requests fail."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import icechunk
import numpy as np
import obstore.store
import pytest
import s3fs
import zarr
from botocore.exceptions import BotoCoreError
from sklearn.exceptions import ConvergenceWarning
from zarr.storage import FsspecStore, MemoryStore, ObjectStore, StorePath

import streamgmm
from streamgmm.errors import (
    ChunkError,
    OutputError,
    OutputExistsError,
    SourceError,
    StoreError,
)
from streamgmm.places import Place, retry
from tests.daemons import wait_until
from tests.mixtures import draw, random_mixture
from tests.unreliable import Proxy, proxy

X = draw(random_mixture("full", 3, 4, 1, spread=1.0), 20_000, 1)
KEYS = {"key": "testing", "secret": "testing"}
FAULTS = {"drop": 0.03, "cut": 0.03, "delay": 0.06, "500": 0.03, "503": 0.03}


@pytest.fixture(scope="module")
def port(s3_server: dict[str, str]) -> int:
    """Of a server that speaks S3, with a bucket."""
    url = s3_server["AWS_ENDPOINT_URL"]
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1",
        aws_access_key_id="testing", aws_secret_access_key="testing",
    )  # fmt: skip

    def there() -> bool:
        with suppress(BotoCoreError):
            client.create_bucket(Bucket="stores")
            return True
        return False

    wait_until(there, "the store answers")
    return int(url.rpartition(":")[2])


@pytest.fixture
def store(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr(retry, "RETRY_SECONDS", (0.01, 0.02, 0.05))
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 3)  # which waits 0.1 s and more between
    with proxy(port) as server:
        yield server


def options(server: Proxy, **more: Any) -> dict[str, Any]:
    config = {"retries": {"max_attempts": 0}, "read_timeout": 4} | more
    client = {"endpoint_url": server.url, "region_name": "us-east-1"}
    return KEYS | {"client_kwargs": client, "config_kwargs": config, "use_listings_cache": False}


def fitted(data: Any, **settings: Any) -> streamgmm.GaussianMixture:
    chosen = {"block_size": "100kB", "random_state": 0, "max_iter": 5, "tol": 0.0} | settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return streamgmm.GaussianMixture(3, **chosen).fit(data)


def same(a: Any, b: Any) -> None:
    for name in ("weights_", "means_", "covariances_"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def learner() -> streamgmm.OnlineGaussianMixture:
    return streamgmm.OnlineGaussianMixture(2, random_state=0, warm_up=1000)


def whole_job(at: Any, folder: Path, **where: Any) -> None:
    """Data, labels, a model, a checkpoint and a follower's state in one store, and as on disk.

    `at(name)` gives a place; `where` are storage options, which go where places are named.
    """
    local = folder / "x.zarr"
    zarr.create_array(str(local), data=X, chunks=(2500, 4))
    place = Place.parse(at("x.zarr"), where.get("storage_options"))
    zarr.create_array(place.store(), data=X, chunks=(2500, 4))
    mask = np.arange(len(X)) % 7 == 0
    zarr.create_array(
        Place.parse(at("mask.zarr"), where.get("storage_options")).store(), data=mask, chunks=4000
    )
    rows = streamgmm.rows(at("x.zarr"), **where)
    assert rows.dtype == np.float64
    model = fitted(rows)
    same(model, fitted(local))
    masked = streamgmm.rows(at("x.zarr"), mask=at("mask.zarr"), **where)
    same(fitted(masked), fitted(streamgmm.rows(local, mask=mask)))

    labels = model.predict(rows, out=at("labels.zarr"), **where)
    assert labels.shape == (len(X),)
    found = Place.parse(at("labels.zarr"), where.get("storage_options")).store()
    np.testing.assert_array_equal(zarr.open_array(found)[:], model.predict(X))
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        model.predict(rows, out=at("labels.zarr"), **where)
    model.predict(rows, out=at("labels.zarr"), overwrite=True, **where)
    np.testing.assert_array_equal(model.score_samples(rows).compute(), model.score_samples(X))

    model.save(at("model.zarr"), **where)
    model.save(at("model.zarr"), overwrite=True, **where)
    same(streamgmm.load(at("model.zarr"), **where), model)

    run = at("run.zarr")
    if where:
        run = StorePath(FsspecStore.from_url(run, **where))
    fitted(rows, checkpoint=run, max_iter=2)
    resumed = fitted(rows, checkpoint=run, max_iter=5)
    same(resumed, model)
    resumed.save(folder / "resumed.zarr")
    assert streamgmm.load(folder / "resumed.zarr").checkpoint is None

    outputs = {"labels": at("new-labels.zarr"), "log_density": at("new-density.zarr")}
    for _ in range(2):
        followed = streamgmm.follow(
            at("x.zarr"), at("state.zarr"), learner(), once=True, **outputs, **where
        )
    expected = streamgmm.follow(local, folder / "state.zarr", learner(), once=True)
    same(followed, expected)
    same(streamgmm.load(at("state.zarr"), **where), expected)
    found = Place.parse(at("new-density.zarr"), where.get("storage_options")).store()
    assert zarr.open_array(found).shape == (len(X),)


@pytest.mark.parametrize("faults", [{}, FAULTS], ids=["sound", "failing"])
def test_s3_by_url_and_options(faults: Any, store: Proxy, tmp_path: Path) -> None:
    store.faults = faults
    name = "failing" if faults else "sound"
    where = {"storage_options": options(store)}
    whole_job(lambda each: f"s3://stores/{name}/{each}", tmp_path, **where)
    assert all(store.seen[kind] > 3 for kind in faults), store.seen


@pytest.mark.parametrize("faults", [{}, FAULTS], ids=["sound", "failing"])
def test_s3_by_obstore(faults: Any, store: Proxy, tmp_path: Path) -> None:
    store.faults = faults
    wait = {"init_backoff": timedelta(0, 0.001), "max_backoff": timedelta(0, 0.01), "base": 2}
    retries = {"max_retries": 1, "backoff": wait, "retry_timeout": timedelta(0, 1)}
    s3 = obstore.store.S3Store(
        "stores", prefix=f"obstore-{len(faults)}", endpoint=store.url, region="us-east-1",
        access_key_id="testing", secret_access_key="testing", client_options={"allow_http": True},
        virtual_hosted_style_request=False, retry_config=retries,
    )  # fmt: skip
    whole_job(lambda each: StorePath(ObjectStore(s3), each), tmp_path)
    assert all(store.seen[kind] > 3 for kind in faults), store.seen


def test_stores_in_memory_and_of_icechunk(tmp_path: Path) -> None:
    repository = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repository.writable_session("main")
    here = {
        "zarr": MemoryStore(),
        "obstore": ObjectStore(obstore.store.MemoryStore()),
        "icechunk": session.store,
    }
    for name, each in here.items():
        (tmp_path / name).mkdir()
        whole_job(lambda key, each=each: StorePath(each, key), tmp_path / name)
    session.commit("a whole job")
    committed = repository.readonly_session("main").store
    model = streamgmm.load(StorePath(committed, "model.zarr"))
    labels = zarr.open_array(committed, path="labels.zarr")[:]
    np.testing.assert_array_equal(labels, model.predict(X))


def test_the_root_of_a_store(tmp_path: Path) -> None:
    model = fitted(X)
    for each in (MemoryStore(), ObjectStore(obstore.store.LocalStore(str(tmp_path)))):
        model.save(each)
        same(streamgmm.load(each), model)
    data = MemoryStore()
    zarr.create_array(data, data=X, chunks=(2500, 4))
    zarr.create_array(str(tmp_path / "x.zarr"), data=X, chunks=(2500, 4))
    same(fitted(data), fitted(tmp_path / "x.zarr"))
    state = MemoryStore()
    for _ in range(2):
        streamgmm.follow(data, state, learner(), once=True)
    assert streamgmm.load(state).n_features_in_ == 4


def test_a_store_says_where_it_is_but_not_its_address() -> None:
    place = Place.parse(StorePath(ObjectStore(obstore.store.MemoryStore()), "a/b"))
    assert place.name == "object_store://MemoryStore/a/b"
    assert place.child("c").name == "object_store://MemoryStore/a/b/c"
    assert place.beside(".lock").name == "object_store://MemoryStore/a/b.lock"
    with pytest.raises(streamgmm.errors.ParameterError, match="has options of its own"):
        Place.parse(MemoryStore(), {"anon": True})
    with pytest.raises(streamgmm.errors.ParameterError, match="a int is no place"):
        Place.parse(5)


def test_credentials_that_fail_are_named(store: Proxy) -> None:
    where = {"storage_options": options(store)}
    model = fitted(X)
    url = "s3://stores/refused"
    zarr.create_array(Place.parse(f"{url}/x.zarr", **where).store(), data=X, chunks=(2500, 4))
    rows = streamgmm.rows(f"{url}/x.zarr", **where)
    store.faults = {"403": 1.0}
    before = sum(store.seen.values())
    with pytest.raises(
        SourceError, match=r"(Forbidden|Access Key).*check the credentials.*storage_options"
    ):
        streamgmm.rows(f"{url}/x.zarr", **where)
    assert sum(store.seen.values()) - before < 8, "what is refused is not asked for again"
    with pytest.raises(ChunkError, match=r"(Forbidden|Access Key).*check the credentials"):
        fitted(rows)
    with pytest.raises(OutputError, match=r"labels.zarr.*check the credentials"):
        model.predict(X, out=f"{url}/labels.zarr", **where)
    with pytest.raises((StoreError, OutputError), match=r"model.zarr.*check the credentials"):
        model.save(f"{url}/model.zarr", **where)
    with pytest.raises(StoreError, match=r"model.zarr.*check the credentials"):
        streamgmm.load(f"{url}/model.zarr", **where)
    with pytest.raises(StoreError, match=r"run.zarr.*check the credentials"):
        fitted(X, checkpoint=StorePath(FsspecStore.from_url(f"{url}/run.zarr", **where)))
    with pytest.raises(StoreError, match=r"state.zarr.*check the credentials"):
        streamgmm.follow([X], f"{url}/state.zarr", learner(), once=True, **where)


@pytest.mark.parametrize("fault", ["drop", "hang", "503"])
def test_a_bucket_that_does_not_answer_is_tried_again_then_named(
    fault: str, store: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    where = {"storage_options": options(store, read_timeout=0.2, connect_timeout=0.2)}
    url = "s3://stores/away"
    place = Place.parse(f"{url}/x.zarr", **where)
    zarr.create_array(place.store(), data=X, chunks=(20_000, 4), overwrite=True)
    rows = streamgmm.rows(f"{url}/x.zarr", **where)
    store.faults, store.seen = {fault: 1.0}, type(store.seen)()
    with pytest.raises(SourceError, match="the store did not answer in 4 tries"):
        streamgmm.rows(f"{url}/x.zarr", **where)
    assert store.seen[fault] >= 4
    with pytest.raises(ChunkError, match=r"chunk 'c/0/0'.*the store did not answer in 4 tries"):
        fitted(rows, on_bad_chunk="skip")
    with pytest.raises(StoreError, match=r"model.zarr.*did not answer in 4 tries"):
        streamgmm.load(f"{url}/model.zarr", **where)


def test_a_store_that_recovers_in_time(store: Proxy) -> None:
    where = {"storage_options": options(store)}
    model = fitted(X)
    store.faults = dict.fromkeys(("500", "drop"), 0.1)
    model.save("s3://stores/recovers.zarr", **where)
    same(streamgmm.load("s3://stores/recovers.zarr", **where), model)
    assert store.seen["500"] + store.seen["drop"] > 2


def test_two_followers_of_one_state_far_away(store: Proxy) -> None:
    where = {"storage_options": options(store)}
    seen = []

    def batches() -> Iterator[np.ndarray[Any, Any]]:
        yield X[:2000]
        with pytest.raises(BlockingIOError, match="is being followed by process"):
            streamgmm.follow([X], "s3://stores/state.zarr", learner(), once=True, **where)
        seen.append(True)

    streamgmm.follow(batches(), "s3://stores/state.zarr", learner(), once=True, **where)
    assert seen
