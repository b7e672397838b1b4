"""What a picture of a mixture is made of: density, ellipses, and curves of one feature."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.model.moments import Floats
from streamgmm.report.display import halo, plain, style_of
from streamgmm.summaries.marginals import Marginal

SHARES = (0.5, 0.9)  # of a Gaussian's rows within its ellipses
FEW = 8  # components, up to which each has two ellipses


def draw_density(ax: Any, x: Floats, y: Floats, counts: Floats | None, bar: bool) -> None:
    """Counts of rows (len(x) - 1, len(y) - 1) between edges, in grey on a scale of logarithms."""
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    used = np.empty(0) if counts is None else counts[counts > 0]
    if len(used):
        greys = LinearSegmentedColormap.from_list("rows", ["#e9e9e9", "#4d4d4d"])
        norm = LogNorm(used.min(), max(used.max(), 1.01 * used.min()))
        shown: Any = np.ma.masked_less_equal(np.transpose(counts), 0)  # type: ignore[arg-type]
        mesh = ax.pcolormesh(x, y, shown, cmap=greys, norm=norm, rasterized=True)
        if bar:
            scale = ax.figure.colorbar(mesh, ax=ax, pad=0.02)
            scale.set_label("rows in a bin", color="0.25")
            scale.outline.set_visible(False)
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(y[0], y[-1])
    plain(ax)


def draw_ellipses(
    ax: Any, components: NDArray[np.intp], means: Floats, covariances: Floats, small: bool
) -> None:
    """Ellipses of two features: means (S, 2) and covariances (S, 2, 2); numbers at the means."""
    angle = np.linspace(0, 2 * np.pi, 90)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    spans = np.ptp(np.array([ax.get_xlim(), ax.get_ylim()]), axis=1)
    reach = spans * (0.09 if small else 0.045)
    taken: list[Any] = []
    for place, (k, mean, covariance) in enumerate(
        zip(components, means, covariances, strict=True)
    ):
        values, vectors = np.linalg.eigh(covariance)
        axes = vectors * np.sqrt(np.maximum(values, 0))
        style = style_of(place)
        for share in SHARES if len(components) <= FEW else SHARES[1:]:
            line = mean[:, None] + np.sqrt(-2 * np.log(1 - share)) * axes @ circle
            width = (1.2 if small else 2.0) if share == SHARES[-1] else (0.7 if small else 1.1)
            ax.plot(*line, lw=width, path_effects=halo(width + 1.4), zorder=3, **style)
        if all(np.any(np.abs(mean - other) > reach) for other in taken):
            taken.append(mean)
            ax.annotate(
                str(k), mean, color=style["color"], ha="center", va="center", weight="bold",
                fontsize="x-small" if small else "medium", path_effects=halo(), zorder=4,
                annotation_clip=True,
            )  # fmt: skip


def draw_curves(
    ax: Any,
    edges: Floats,
    rows: Floats | None,
    found: Marginal,
    components: NDArray[np.intp],
    small: bool,
) -> None:
    """A one-dimensional mixture and its parts, over the density of all rows (len(edges) - 1,)."""
    top = float(found.total.max(initial=0))
    if rows is not None:
        ax.stairs(rows, edges, fill=True, color="0.85", label="all rows")
        top = max(top, float(rows.max(initial=0)))
    span = float(edges[-1] - edges[0])
    taken: list[float] = []
    for place, (k, part) in enumerate(zip(components, found.parts, strict=True)):
        style = style_of(place)
        ax.plot(found.points, part, lw=0.8 if small else 1.4, zorder=3, **style)
        peak = int(part.argmax())
        at = float(found.points[peak])
        clear = all(abs(at - other) > 0.04 * span for other in taken)
        if not small and clear and part[peak] > 0.02 * top:
            taken.append(at)
            ax.annotate(
                str(k), (at, part[peak]), color=style["color"], ha="center", va="bottom",
                weight="bold", path_effects=halo(), zorder=4,
            )  # fmt: skip
    ax.plot(
        found.points, found.total, color="0.1", lw=0.9 if small else 1.6, zorder=2,
        label="the mixture",
    )  # fmt: skip
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(0, 1.12 * top if top > 0 else 1)
    plain(ax)
    if not small:
        ax.legend(frameon=False, fontsize="small")
