"""One owner at a time: by the kernel's lock, or by a token and a heartbeat."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time

import pytest

from streamgmm.places import Place
from streamgmm.storage import lock
from streamgmm.storage.lock import Lock, LockHeldError


@pytest.fixture(params=["flock", "no flock", "url"])
def place(request, tmp_path, monkeypatch):
    if request.param == "url":
        return Place.parse(f"memory://{tmp_path.name}-{os.getpid()}/lock")
    if request.param == "no flock":

        def refuse(file):
            raise OSError(errno.ENOTSUP, "no locks here")

        monkeypatch.setattr(lock, "_flock", refuse)
    return Place.parse(tmp_path / "lock")


def wait_until(condition):
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_one_at_a_time(place):
    with Lock(place, "it") as one:
        one.check()
        with pytest.raises(LockHeldError) as error:
            Lock(place, "it")
        assert error.value.holder.startswith(f"process {os.getpid()} on ")
        assert not error.value.taken
        one.check()
    with Lock(place, "it") as other:
        assert other.token != one.token


def test_the_heart_beats_and_survives_a_failed_write(place, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    real, failed = Lock._write, []

    def write(self):
        if self._record["beat"] == 2 and not failed:
            failed.append(True)
            raise OSError(errno.EIO, "for a moment")
        real(self)

    monkeypatch.setattr(Lock, "_write", write)
    with Lock(place, "it") as held:
        wait_until(lambda: held._read().get("beat", 0) >= 4)
        held.check()
    assert failed
    assert held._read()["token"] == ""


def test_whoever_was_taken_over_learns_so_and_writes_no_more(place, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    one = Lock(place, "it")
    taken = one._record | {"token": "another", "host": "elsewhere", "pid": 7}

    def noticed():
        """Whether the heart has stopped; a beat that had begun before may write once more."""
        if place.directory is None:
            import zarr

            zarr.open_group(place.store(), mode="a").update_attributes(taken)
        else:
            place.directory.write_text(json.dumps(taken))
        one._heart.join(0.2)
        return not one._heart.is_alive()

    wait_until(noticed)
    with pytest.raises(LockHeldError, match="process 7 on elsewhere") as error:
        one.check()
    assert error.value.taken
    one.release()
    assert one._read()["token"] == "another"


@pytest.mark.parametrize("text", ["", "12345", "{", '{"pid": 3'])
def test_a_record_that_is_none_is_no_owner(tmp_path, text):
    (tmp_path / "lock").write_text(text)
    with Lock(Place.parse(tmp_path / "lock"), "it") as held:
        held.check()


KILLED = """
import os, sys
from streamgmm.places import Place
from streamgmm.storage import lock
if sys.argv[2] == "no flock":
    def refuse(file):
        raise OSError("no locks here")
    lock._flock = refuse
lock.Lock(Place.parse(sys.argv[1]), "it")
os._exit(9)
"""


@pytest.mark.parametrize("kind", ["flock", "no flock"])
def test_the_lock_of_a_killed_process_is_taken_at_once(tmp_path, kind):
    path = tmp_path / "lock"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), kind], check=False)
    assert done.returncode == 9
    assert json.loads(path.read_text())["token"]
    with Lock(Place.parse(path), "it") as held:
        held.check()
