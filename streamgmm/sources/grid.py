"""Cubes cut into regions: which are read together, and in which order their samples come."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import ClassVar, NamedTuple

from streamgmm.sources.numbering import Numbers

REGION_BYTES = 1 << 20
"""Small chunks are read together up to so many bytes of rows."""

MOST_REGION_BYTES = 128 << 20
"""Where regions of whole chunks of every variable are larger, some chunks are read twice."""

Edges = tuple[int, ...]


class Region(NamedTuple):
    """A box of samples: its first row in the source, the corner, and how far it goes."""

    start: int
    corner: tuple[int, ...]
    extent: tuple[int, ...]

    @property
    def n_rows(self) -> int:
        """Samples in it."""
        return math.prod(self.extent)

    @property
    def box(self) -> tuple[slice, ...]:
        """The box, as an index."""
        return tuple(slice(c, c + n) for c, n in zip(self.corner, self.extent, strict=True))


@dataclass(frozen=True)
class Grid:
    """Samples of any number of dimensions, cut at `edges` along each.

    Rows are numbered region by region, and in C order within a region. Regions follow one
    another in C order too. So what is appended along the first dimension comes last.

    Attributes
    ----------
    edges : tuple of tuple of int
        For each dimension 0, …, its length.

    Examples
    --------
    >>> grid = Grid(((0, 2, 3), (0, 4)))
    >>> [tuple(region) for region in grid.regions(0, 12)]
    [(0, (0, 0), (2, 4)), (8, (2, 0), (1, 4))]
    """

    shared_by_blocks: ClassVar[bool] = True  # a cluster is sent it once, beside its blocks

    edges: tuple[Edges, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all samples."""
        return tuple(each[-1] for each in self.edges)

    @property
    def largest(self) -> tuple[int, ...]:
        """The extent of the largest region along each dimension."""
        return tuple(max(b - a for a, b in pairwise(each)) for each in self.edges)

    @property
    def regular(self) -> bool:
        """Whether all regions but the last along a dimension are of one size."""
        return all(
            all(b - a == each[1] for a, b in pairwise(each[:-1]))
            and each[-1] - each[-2] <= each[1]
            for each in self.edges
        )

    def regions(self, start: int, stop: int) -> Iterator[Region]:
        """Give the regions that have any of the rows ``start:stop``, in order."""
        rest = math.prod(self.shape[1:])
        before = 0
        for a, b in pairwise(self.edges[0]):
            slab = (b - a) * rest
            if before + slab > start and before < stop:
                first = before
                for spans in product(*map(pairwise, self.edges[1:])):
                    corner = (a, *(lo for lo, _ in spans))
                    region = Region(first, corner, (b - a, *(hi - lo for lo, hi in spans)))
                    first += region.n_rows
                    if first > start and region.start < stop:
                        yield region
            before += slab

    def runs(self, start: int, stop: int, row_bytes: int, target_bytes: int) -> list[list[Region]]:
        """Put regions together, evenly, to runs of at most `target_bytes`, or of one region."""
        regions = list(self.regions(start, stop))
        most = max(1, target_bytes // max(1, math.prod(self.largest) * row_bytes))
        n_runs = -(-len(regions) // most)
        cuts = [len(regions) * i // n_runs for i in range(n_runs + 1)] if n_runs else [0]
        return [regions[a:b] for a, b in pairwise(cuts)]

    def numbers(self, region: Region, a: int, b: int) -> Numbers | None:
        """Which samples the rows ``a:b`` of a region are; None where they are rows of a table."""
        if len(self.edges) == 1:
            return None
        return Numbers(self.shape, region.corner, region.extent, a, b)


def regular_edges(size: int, step: int) -> Edges:
    """Give the edges of chunks of one size.

    >>> regular_edges(7, 3)
    (0, 3, 6, 7)
    """
    return (*range(0, size, step), size)


def common_edges(given: Sequence[Edges]) -> Edges:
    """Give the edges that all have: what lies between is whole chunks of each.

    >>> common_edges([(0, 2, 4, 6, 8), (0, 3, 6, 8)])
    (0, 6, 8)
    """
    return tuple(sorted(set(given[0]).intersection(*given[1:])))


def make_grid(
    shape: tuple[int, ...],
    chunkings: Sequence[Sequence[Edges | None]],
    row_bytes: int,
    together: bool = True,
) -> Grid:
    """Cut samples into regions of whole chunks of every variable.

    Parameters
    ----------
    shape : tuple of int
        Of the samples.
    chunkings : sequence of sequence of (edges or None)
        For each variable its edges along each dimension; None where any cut will do.
    row_bytes : int
        Bytes of a sample.
    together : bool
        Whether small chunks are read together.

    Returns
    -------
    Grid
        Where regions of whole chunks of all variables were larger than ``MOST_REGION_BYTES``
        and than the chunks of the coarsest variable, those chunks.
    """
    edges: list[Edges | None] = []
    for i in range(len(shape)):
        given = [each[i] for each in chunkings]
        known = [each for each in given if each is not None]
        edges.append(common_edges(known) if known else None)
    if _bytes(edges, row_bytes) > MOST_REGION_BYTES:
        edges = list(max(chunkings, key=lambda each: _bytes(each, row_bytes)))
    return Grid(put_together(shape, edges, row_bytes, REGION_BYTES if together else 0))


def _bytes(edges: Iterable[Edges | None], row_bytes: int) -> int:
    return row_bytes * math.prod(
        max(b - a for a, b in pairwise(each)) for each in edges if each is not None
    )


def put_together(
    shape: tuple[int, ...], edges: Sequence[Edges | None], row_bytes: int, most: int
) -> tuple[Edges, ...]:
    """Put small chunks together along the last dimensions, up to `most` bytes.

    How far does not depend on the length of the first dimension, which may grow.
    """
    found = list(edges)
    sizes = [1 if e is None else max(b - a for a, b in pairwise(e)) for e in edges]
    more = True
    for i in reversed(range(len(shape))):
        each = found[i]
        n_chunks = shape[i] if each is None else len(each) - 1
        times = max(1, most // (row_bytes * math.prod(sizes))) if more else 1
        times = min(times, n_chunks if i else REGION_BYTES)
        found[i] = regular_edges(shape[i], times) if each is None else (*each[:-1:times], shape[i])
        sizes[i] *= times
        more = more and times >= n_chunks
    return tuple(each for each in found if each is not None)
