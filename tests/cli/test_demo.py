"""The demo: a real photograph, a small number of frames of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import zarr
from PIL import Image
from sklearn.datasets import load_sample_image

import streamgmm

ROOT = Path(__file__).parents[2]
N_FRAMES = 2


def test_the_demo_does_what_it_says_and_replaces_its_own_outputs_only(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    for name in ("rows", "labels"):
        zarr.create_array(folder / f"{name}.zarr", data=np.zeros((2, 2)))
    streamgmm.GaussianMixture().fit([[0.0], [1.0]]).save(folder / "model.zarr")

    command = [sys.executable, "-m", "streamgmm", "demo", "--out", str(folder)]
    options = ["--frames", str(N_FRAMES), "--workers", "1"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outputs = {"rows.zarr", "model.zarr", "labels.zarr", "segments.png", "mine.txt"}
    assert {path.name for path in folder.iterdir()} == outputs
    photo = load_sample_image("china.jpg")
    n_pixels = photo.shape[0] * photo.shape[1]

    rows = zarr.open_array(folder / "rows.zarr", mode="r")
    assert rows.shape == (N_FRAMES * n_pixels, 12)
    model = streamgmm.load(folder / "model.zarr")
    labels = zarr.open_array(folder / "labels.zarr", mode="r")[:]
    np.testing.assert_array_equal(labels[:n_pixels], model.predict(rows[:n_pixels]))

    # The picture: the original to the left; beside it, it is like it; then how certain it is.
    picture = np.asarray(Image.open(folder / "segments.png")).astype(float)
    height, width = photo.shape[:2]
    np.testing.assert_array_equal(picture[:height, :width], photo)
    left = (picture.shape[1] - width) // 2
    painted = picture[:height, left : left + width]
    assert np.corrcoef(painted.ravel(), photo.ravel())[0, 1] > 0.85
    certainty = model.predict_proba(rows[:n_pixels]).max(axis=1)
    light = picture[:height, -width:].mean(axis=2).ravel()  # doubtful pixels are light
    assert np.corrcoef(light, certainty)[0, 1] < -0.9

    told = ("mean colour", "reads of the array", "rows a second", "peak memory", "certain of")
    for line in (*told, "next "):
        assert line in done.stdout
    assert f"streamgmm info {folder}/model.zarr" in done.stdout.replace("\\", "/")


def test_the_array_is_larger_than_the_workers_memory():
    scope = {"__name__": "segment_photo"}
    exec((ROOT / "workflows/segment_photo.py").read_text(), scope)
    for n_workers, memory in ((2, "700MiB"), (1, "1GiB"), (4, "500MiB")):
        n_frames, allowed = scope["plan"](273_280, n_workers, memory)
        assert n_frames * 273_280 * scope["N_FEATURES"] * 4 > allowed >= n_workers * 500 * 2**20
