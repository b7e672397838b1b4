"""What a person waits for: seconds from the call of `fit` to the fitted model.

Run ``python -m benchmarks.time_to_model`` from the root of the repository; ``--only W1 --only 1k``
takes a part of the table, ``--help`` says the rest. Steps and their times go to the standard
error as they happen, the table to the standard output.

What is timed. Default settings, rows in memory, all processors for everybody, everything compiled
before: a fit of a few of the rows comes first, and a fit during which Numba still compiled is
done again. scikit-learn with n_init=1 and n_init=5 and ours take turns in one process; the ratio
is that of n_init=1 to ours. oneDAL (`em_gmm` of daal4py, the extra ``peers``) runs in a process
of its own, full and diag only, from the best of its 20 trials, which is its default, and from 1
trial; it has no stopping rule a row, and is given scikit-learn's.

A turn is a `random_state`, and figures are medians over turns. Ours and n_init=1 have all of them,
the others as many as begin within two minutes of their own. Fits that are quick have more turns.

In brackets stands the mean log-likelihood in nats of 50,000 rows that no fit has seen. For every
library it is computed by the same code, scikit-learn's. "starts" is the share of our time that
goes into finding where to start.

``--seeds 10`` adds, for ours, the median and the lower quartile over that many values of
`random_state` of the log-likelihood a row on the rows of the fit; ``--reference`` the same for
scikit-learn with n_init=5. With ``--repeats 0`` nothing but that is done.

Unset OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE: they slow scikit-learn.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_info

import streamgmm
from benchmarks.fits import (
    Contender,
    fit_ours,
    fit_remotely,
    fit_theirs,
    judge,
    spell,
    step,
    take_turn,
    tell,
)
from benchmarks.kernels import Workload, around, timed
from benchmarks.peers import ONEDAL, fit_onedal, installed
from benchmarks.problems import Problem, draw_problem
from benchmarks.remote import Remote
from streamgmm.passes import default_threads

HELD_OUT = 50_000  # rows
WARM = 20_000  # rows of the fit that compiles
QUICK = 2.0  # seconds of turns below which there are more turns, ten times as many at most
OTHERS = 120.0  # seconds after which those that are not in the ratio have no more turns
PATIENCE = 600.0  # seconds that a fit of another library may take


@dataclass(frozen=True)
class Row:
    """A row of the table. What its workload promises is the ratio that is asked for.

    Without a separation, rows are drawn as in `benchmarks.kernels`: overlapping blobs.
    """

    workload: Workload
    separation: float | None = None
    dtype: str = "float64"

    def __str__(self) -> str:
        """As the table prints it."""
        w = self.workload
        narrow = " float32" if self.dtype == "float32" else ""
        return f"{w.n:,} × {w.d}{narrow}, K={w.k} {w.kind}"

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows to fit, and rows held out."""
        w = self.workload
        if self.separation is None:
            rng = np.random.default_rng(0)
            centres = rng.normal(size=(w.k, w.d))
            X, held_out = around(centres, w.n, rng), around(centres, HELD_OUT, rng)
        else:
            problem = Problem(w.d, w.k, self.separation, w.n)
            _, X, held_out = draw_problem(problem, 0, n_held_out=HELD_OUT)
        return X.astype(self.dtype, copy=False), held_out


ROWS = [
    Row(Workload("W1", 500_000, 16, 16, "full", 15)),
    Row(Workload("W3", 1_000_000, 64, 64, "diag", 8)),
    Row(Workload("W5", 100_000, 32, 16, "full", 10)),
    Row(Workload("W6", 500_000, 16, 16, "tied", 12)),
    Row(Workload("W8", 500_000, 16, 16, "diag", 8)),
    Row(Workload("apart", 1_500_000, 8, 6, "full", 8), separation=3, dtype="float32"),
    Row(Workload("overlap", 300_000, 4, 8, "full", 10), separation=0.7),
    Row(Workload("20k", 20_000, 8, 10, "full", 11)),
    Row(Workload("1k", 1_000, 4, 3, "full", 1)),
]


def take_turns(row: Row, contenders: list[Contender], repeats: int, held_out: np.ndarray) -> None:
    """Fit in turns. The first two contenders are those of the ratio."""
    pair, others = contenders[:2], contenders[2:]
    for seed in range(10 * repeats):
        if seed >= repeats and sum(contender.spent for contender in pair) >= QUICK:
            return
        for contender in pair:
            take_turn(row.workload, contender, seed, held_out)
        for contender in others:
            if not contender.failure and contender.spent < OTHERS:
                take_turn(row.workload, contender, seed, held_out)


def warm(row: Row, X: np.ndarray) -> None:
    """Compile, by fits of a few rows: as they come, and by algorithms that more rows need."""
    w, few = row.workload, np.ascontiguousarray(X[:WARM])
    with step(f"{w.name}: fits of {len(few):,} rows, to compile") as words:
        seconds = timed(lambda: fit_ours(w, few, 0))[0]
        seconds += timed(lambda: fit_ours(w, few, 0, algorithm="incremental", max_iter=2))[0]
        fit_theirs(w, few, 1, 0)
        words.append(f"{spell(seconds)} s ours")


def qualities(row: Row, contender: Contender, seeds: int, X: np.ndarray) -> list[float]:
    """Log-likelihoods a row that fits reach on their own rows."""
    w, values = row.workload, []
    for seed in range(seeds):
        name = f"{w.name}: {contender.name}, quality, random_state={seed}"
        fitted = [turn.model for turn in contender.turns if turn.seed == seed]
        with step(name) as words:
            model = fitted[0] if fitted else contender.fit(seed)
            values.append(judge(w.kind, model, X))
            words.append(f"{values[-1]:.4f} nats a row")
    return values


LINE = "{:7} {:34} {:>5} {:>6} {:>7}"
HEADINGS = ("", "rows, K", "asked", "ratio", "starts")
NAMES = ("ours", "sklearn n_init=1", "sklearn n_init=5", "oneDAL 1 trial", "oneDAL")


def table_line(cells: Sequence[str]) -> str:
    """A line of the table."""
    fixed, more = cells[: len(HEADINGS)], cells[len(HEADINGS) :]
    return LINE.format(*fixed) + "".join(f" {cell:>18}" for cell in more)


def row_cells(row: Row, contenders: Sequence[Contender]) -> list[str]:
    """What the table says about a row."""
    ours, theirs = contenders[:2]
    cells = [f"{row.workload.target:g}×", "-", "-"]
    if ours.turns:
        cells[1] = f"{theirs.seconds / ours.seconds:.1f}×"
        timings = [t.model.timings for t in ours.turns if t.model.timings]
        if timings:
            cells[2] = f"{median(t['starts'] / t['total'] for t in timings):.0%}"
    known = {contender.name: contender.cell() for contender in contenders}
    return [row.workload.name, str(row), *cells, *(known.get(name, "-") for name in NAMES)]


@contextmanager
def contending(row: Row, X: np.ndarray, peers: bool) -> Iterator[list[Contender]]:
    """Those that fit these rows, ours first and then scikit-learn's default."""
    w = row.workload
    fits = [partial(fit_ours, w, X), partial(fit_theirs, w, X, 1), partial(fit_theirs, w, X, 5)]
    with ExitStack() as stack:
        if peers and w.kind in ONEDAL.kinds and ONEDAL in installed():
            arguments = (X, w.k, w.kind)
            remote = Remote(fit_onedal, arguments, default_threads(), PATIENCE)
            stack.enter_context(closing(remote))
            fits += [partial(fit_remotely, remote, trials) for trials in (1, 20)]
        yield [Contender(name, fit) for name, fit in zip(NAMES, fits, strict=False)]


def one(
    row: Row, repeats: int, seeds: int, reference: bool, peers: bool
) -> tuple[list[str], dict[str, Any]]:
    """Lines for a row, and all that is known of it."""
    w = row.workload
    with step(f"{w.name}: drawing {row}") as words:
        seconds, (X, held_out) = timed(row.draw)
        words.append(f"{spell(seconds)} s")
    warm(row, X)
    with contending(row, X, peers and repeats > 0) as contenders:
        take_turns(row, contenders, repeats, held_out)
    judged = [c for c in contenders if c.name == "ours" or (reference and c.name == NAMES[2])]
    quality = {c.name: qualities(row, c, seeds, X) for c in judged if seeds}
    lines = [table_line(row_cells(row, contenders))] if repeats else []
    for name, values in quality.items():
        low, middle = np.percentile(values, [25, 50])
        lines.append(
            f"{w.name}: {name}, nats a row on the rows of the fit: median {middle:.4f}, "
            f"lower quartile {low:.4f} ({seeds} seeds)"
        )
    kept = asdict(w) | {"separation": row.separation, "dtype": row.dtype, "quality": quality}
    kept["medians"] = {c.name: c.seconds for c in contenders if c.turns}
    kept["turns"] = {c.name: [turn.plain() for turn in c.turns] for c in contenders}
    kept["failures"] = {c.name: c.failure for c in contenders if c.failure}
    return lines, kept


def machine() -> dict[str, Any]:
    """What it ran with."""
    blas = [b for b in threadpool_info() if b["user_api"] == "blas"]
    found = {"threads": default_threads(), "streamgmm": streamgmm.__version__}
    found |= {name: version(name) for name in ("numpy", "scikit-learn", "numba")}
    if ONEDAL in installed():
        found[ONEDAL.name] = ONEDAL.version
    kernels = {f"{b['internal_api']} {b['version']} {b.get('architecture')}" for b in blas}
    return found | {"blas": sorted(kernels)}


@click.command(help=__doc__)
@click.option("--only", multiple=True, help="Rows by name, for example W1 or 1k.")
@click.option("--repeats", default=3, show_default=True, help="Turns, at least.")
@click.option("--seeds", default=0, show_default=True, help="Seeds to state the quality over.")
@click.option(
    "--reference", is_flag=True, help="State the quality of scikit-learn, n_init=5, too."
)
@click.option("--no-peers", is_flag=True, help="Without oneDAL.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Where to put raw results.")
def main(
    only: tuple[str, ...],
    repeats: int,
    seeds: int,
    reference: bool,
    no_peers: bool,
    file: Path | None,
) -> None:
    unknown = set(only) - {row.workload.name for row in ROWS}
    if unknown:
        raise click.BadParameter(
            f"no row is called {', '.join(sorted(unknown))}", param_hint="--only"
        )
    if "OPENBLAS_CORETYPE" in os.environ:
        tell("OPENBLAS_CORETYPE is set, which may slow scikit-learn: unset it to compare")
    warnings.simplefilter("ignore", ConvergenceWarning)  # told in the steps
    results: dict[str, Any] = {"machine": machine(), "rows": []}
    if repeats:
        click.echo(table_line([*HEADINGS, *NAMES]))
    for row in ROWS:
        if only and row.workload.name not in only:
            continue
        lines, kept = one(row, repeats, seeds, reference, not no_peers)
        click.echo("\n".join(lines))
        results["rows"].append(kept)
        if file:  # after each row, so that what ends early leaves what it has
            file.write_text(json.dumps(results, indent=1))
    click.echo(", ".join(f"{name} {value}" for name, value in results["machine"].items()))


if __name__ == "__main__":
    main()
