"""Segment a photograph by a Gaussian mixture of far more rows than the workers can hold.

    python workflows/segment_photo.py [FOLDER]        (or: streamgmm demo)

The photograph comes with scikit-learn. A row is the neighbourhood of a pixel: its colour at
three scales, how rough it is at two, and its height in the picture. One photograph has 273,280
pixels, too few to fill a memory; so the camera is made to take more than a hundred frames of
the same scene, each with its own exposure and sensor noise, every second one mirrored. Their
rows go to a Zarr array larger than all the memory that the workers are allowed together.

To do the same to your own data: have the array, start a cluster, and what stands under "the job
itself" is all there is.
"""

from __future__ import annotations

import logging
import math
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import zarr
from dask.utils import parse_bytes
from distributed import Client, LocalCluster, progress, wait
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_image

import streamgmm
from streamgmm.report import save_segments

N_COMPONENTS = 9
COLOUR_SCALES = (1, 2, 4)  # pixels
ROUGHNESS_SCALES = (2, 4)
N_FEATURES = 3 * len(COLOUR_SCALES) + len(ROUGHNESS_SCALES) + 1


def frame(photo, index):
    """Take frame `index` of the scene: red, green and blue in about 0 to 1."""
    random = np.random.default_rng(index)
    picture = photo.astype(np.float32) / 255
    if index > 0:
        picture *= np.float32(random.uniform(0.9, 1.1))
    if index % 2 == 1:
        picture = picture[:, ::-1]
    noise = random.standard_normal(picture.shape, dtype=np.float32)
    return picture + np.float32(0.02) * noise


def neighbourhoods(picture):
    """Describe each pixel by what is around it: float32 (pixels, N_FEATURES)."""
    grey = picture.mean(axis=2)
    columns = [gaussian_filter(picture, (s, s, 0)) for s in COLOUR_SCALES]
    for s in ROUGHNESS_SCALES:
        variance = gaussian_filter(grey**2, s) - gaussian_filter(grey, s) ** 2
        columns.append(0.1 * np.log(np.maximum(variance, 1e-6))[..., None])
    height = np.linspace(1, 0, len(picture), dtype=np.float32)[:, None, None]
    columns.append(np.broadcast_to(height, (*grey.shape, 1)))
    return np.concatenate(columns, axis=2, dtype=np.float32).reshape(-1, N_FEATURES)


def write_frame(path, photo, index):
    """Write the rows of one frame, a chunk of the array."""
    rows = neighbourhoods(frame(photo, index))
    array = zarr.open_array(path, mode="r+")
    array[index * len(rows) : (index + 1) * len(rows)] = rows


def peak_memory():
    """Most bytes that this process has held at any time."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    except (OSError, StopIteration):  # not Linux: what it holds now
        import psutil

        return psutil.Process().memory_info().rss


def plan(n_pixels, n_workers, worker_memory):
    """Give how many frames exceed all memory of the workers, and its bytes."""
    allowed = n_workers * parse_bytes(worker_memory)
    return math.ceil(1.1 * allowed / (4 * N_FEATURES * n_pixels)), allowed


def ignore_interrupt():
    """Leave Ctrl-C, which reaches every process of a terminal, to the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def segment(folder="streamgmm-demo", n_workers=2, worker_memory="700MiB", n_frames=None):
    """Write the rows, fit, label them all, and paint the picture."""
    started = time.perf_counter()
    console = Console()
    folder = Path(folder)
    photo = load_sample_image("china.jpg")
    n_pixels = photo.shape[0] * photo.shape[1]
    enough, allowed = plan(n_pixels, n_workers, worker_memory)
    n_frames = n_frames or enough
    n_rows = n_frames * n_pixels
    size = 4 * N_FEATURES * n_rows
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < 1.2 * size:
        raise OSError(f"'{folder}' needs {1.2 * size / 1e9:.1f} GB of free disk")
    rows, model_path, labels_path, picture_path = (
        str(folder / name) for name in ("rows.zarr", "model.zarr", "labels.zarr", "segments.png")
    )
    console.print(
        f"{n_rows:,} rows of {N_FEATURES} features from {n_frames} frames of a photograph: "
        f"{size / 2**30:.2f} GiB in {rows}\n"
        f"{n_workers} workers of {worker_memory}: {allowed / 2**30:.2f} GiB together",
        highlight=False,
        soft_wrap=True,
    )

    with (
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            memory_limit=worker_memory,
            dashboard_address=":0",
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster) as client,
    ):
        client.register_worker_callbacks(ignore_interrupt)
        zarr.create_array(
            rows,
            shape=(n_rows, N_FEATURES),
            chunks=(n_pixels, N_FEATURES),
            dtype="float32",
            compressors=None,  # noise does not compress
            overwrite=True,
        )
        here = client.scatter(photo, broadcast=True)
        path = str(Path(rows).absolute())
        writing = client.map(lambda i, p: write_frame(path, p, i), range(n_frames), p=here)
        progress(writing) if console.is_terminal else wait(writing)
        client.gather(writing)
        console.print(f"written in {time.perf_counter() - started:.1f} s", highlight=False)

        # The job itself. Passes run on the client that is active.
        with streamgmm.ProgressBar():
            model = streamgmm.GaussianMixture(
                N_COMPONENTS, init_params="k-means++", random_state=0
            ).fit(path)
            labels = model.predict(path, out=labels_path, overwrite=True)
        model.save(model_path, overwrite=True)
        peak = max(client.run(peak_memory).values())

    # The picture is of the first frame.
    labels = labels[:n_pixels].reshape(photo.shape[:2])
    probabilities = model.predict_proba(zarr.open_array(rows, mode="r")[:n_pixels])
    certainty = probabilities.max(axis=1).reshape(photo.shape[:2])
    colours = model.means_[:, :3]
    save_segments(picture_path, photo, labels, colours, certainty)

    table = Table("component", "weight", "mean colour", "pixels")
    pixels = np.bincount(labels.ravel(), minlength=N_COMPONENTS)
    for k in np.argsort(-model.weights_):
        red, green, blue = np.rint(255 * colours[k].clip(0, 1)).astype(int)
        swatch = f"[on rgb({red},{green},{blue})]    [/] #{red:02x}{green:02x}{blue:02x}"
        table.add_row(str(k), f"{model.weights_[k]:.4f}", swatch, f"{pixels[k]:,}")
    console.print(table)
    doubtful = np.mean(certainty < 0.9)
    passes, seconds = model.history_["passes"], model.history_["seconds"]
    speed = n_rows * np.ptp(passes) / np.ptp(seconds) if len(passes) > 1 else math.nan
    console.print(
        f"{'converged' if model.converged_ else 'stopped'} after {model.n_iter_} iterations in "
        f"{passes[-1]:.1f} reads of the array; {speed:,.0f} rows a second\n"
        f"certain of its component to 90% or more: {1 - doubtful:.0%} of the photograph's pixels\n"
        f"peak memory of a worker: {peak / 2**20:.0f} MiB; the array: {size / 2**20:.0f} MiB\n"
        f"{time.perf_counter() - started:.0f} s in all\n\n"
        f"look at   {picture_path}\n"
        f"next      streamgmm info {model_path}\n"
        f"          streamgmm predict {model_path} {rows} --what log-density "
        f"--out {folder / 'density.zarr'} --workers {n_workers}\n"
        f"clean up  by removing {folder} ({size / 1e9:.1f} GB)",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":  # worker processes import this file too
    segment(*sys.argv[1:2])
