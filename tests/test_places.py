"""Paths and URLs are parsed in one place."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamgmm.errors import ParameterError
from streamgmm.places import Place


@pytest.mark.parametrize("given", ["a/b.zarr", Path("a/b.zarr")])
def test_a_path(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Place.parse(given)
    assert (place.name, place.directory) == ("a/b.zarr", tmp_path / "a/b.zarr")
    assert Place.parse(place) is place
    assert place.child("c").directory == tmp_path / "a/b.zarr/c"
    assert place.store(read_only=True).read_only
    assert not (tmp_path / "a").exists()
    with pytest.raises(ParameterError, match=r"storage_options are for URLs; 'a/b.zarr' is a loc"):
        Place.parse(given, {"anon": True})


@pytest.mark.parametrize("scheme", ["file", "local"])
def test_a_file_url_is_a_path(scheme):
    place = Place.parse(f"{scheme}:///data/a%20b.zarr")
    assert (place.name, place.directory) == ("/data/a b.zarr", Path("/data/a b.zarr"))


@pytest.mark.parametrize("url", ["memory://x/y", "simplecache::memory://x/y"])
def test_a_url(url):
    place = Place.parse(url)
    assert (place.name, place.directory) == (url, None)
    assert str(place.child("z")) == f"{url}/z"


def test_urls_that_cannot_be_opened(monkeypatch):
    with pytest.raises(ParameterError, match="'nowhere://x' cannot be opened"):
        Place.parse("nowhere://x").store()

    def missing(*args, **kwargs):
        raise ImportError("install it")

    import zarr

    monkeypatch.setattr(zarr.storage.FsspecStore, "from_url", missing)
    with pytest.raises(ParameterError, match=r"not installed: install it; .*streamgmm\[remote\]"):
        Place.parse("s3://x").store()
