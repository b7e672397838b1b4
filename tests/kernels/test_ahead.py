"""Several processes that compile: each kernel once, and none is left behind."""

import os
import pickle
import subprocess
import sys
import time

import pytest

from streamgmm.kernels import ahead


def python(source, folder, **more):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder), **more}
    return subprocess.Popen(
        [sys.executable, "-c", source], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_of_two_processes_that_need_a_kernel_one_compiles_it(tmp_path):
    source = """
from streamgmm.clustering.rows import moving, rehearse_moves
rehearse_moves()
print(sum(moving.move.stats.cache_misses.values()))
"""
    both = [python(source, tmp_path) for _ in range(2)]
    assert sorted(run.communicate(timeout=300)[0].strip() for run in both) == ["0", "1"]


@pytest.mark.parametrize("switch", ["1", "0"])
def test_another_process_compiles_what_is_needed_later_and_ends_with_the_call(tmp_path, switch):
    source = """
import time
import numpy as np
from pathlib import Path
from streamgmm.clustering.rows import moving, rehearse_moves
from streamgmm.kernels import ahead, scatters
ahead._processors = lambda: 2
helpers, start = [], ahead._Helper.start
def noted(self):
    start(self)
    helpers.append(self._process)
ahead._Helper.start = noted
with ahead.compiling_ahead([(rehearse_moves, ())]):
    assert not helpers  # nothing is compiled yet
    one = np.zeros((1, 1, 1))
    scatters.merged(one, one, np.zeros(1), np.zeros((1, 1)), one.copy())
    until = time.monotonic() + 240
    while helpers and not [*Path(moving.move._cache.cache_path).glob("centres.move*.nbc")]:
        assert time.monotonic() < until
        time.sleep(0.05)
    rehearse_moves()
ended = all(helper.poll() is not None for helper in helpers)
print(len(helpers), ended, sum(moving.move.stats.cache_misses.values()))
"""
    run = python(source, tmp_path, STREAMGMM_COMPILE_AHEAD=switch)
    expected = "1 True 0" if switch == "1" else "0 True 1"
    assert run.communicate(timeout=300)[0].strip() == expected


def test_it_ends_with_the_process_that_started_it():
    run = subprocess.Popen([sys.executable, "-m", ahead.__name__], stdin=subprocess.PIPE)
    given = pickle.dumps([(time.sleep, (600,))])
    run.stdin.write(len(given).to_bytes(8, "little") + given)
    run.stdin.close()  # as the system does for a process that was killed
    assert run.wait(timeout=120) == 0


def test_work_that_cannot_be_sent_is_done_here(monkeypatch):
    helper = ahead._Helper([(lambda: None, ())])
    helper.start()
    assert helper._process is None
    helper.stop()
    monkeypatch.setattr(sys, "executable", "/usr/bin/an-application")
    assert not ahead._possible()


def test_one_at_a_time(monkeypatch):
    monkeypatch.setattr(ahead, "_processors", lambda: 2)
    with ahead.compiling_ahead([(print, ())]), ahead.compiling_ahead([(print, ())]):
        assert ahead._ONE.locked()
    assert not ahead._ONE.locked()
