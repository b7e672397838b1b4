"""Tables of a page: a caption, headings with scopes, and values to sort by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from streamgmm.pages.markup import Markup, number, tag

BRIEF = 20  # letters, up to which the name of a row is not broken


class Cell(NamedTuple):
    """What a cell shows, and the number that it is sorted by."""

    shown: Any
    value: float | None = None


def num(value: float, digits: int = 3) -> Cell:
    """A cell with a number."""
    return Cell(number(value, digits), value)


def table(
    caption: str, heads: Sequence[str], rows: Iterable[Sequence[Any]], *, sortable: bool = False
) -> Markup:
    """A table whose first column names the rows.

    A cell is text, a tag, or a `Cell`. Wide tables scroll by themselves, by keyboard too.
    """
    body = []
    numeric = [False] * len(heads)
    for row in rows:
        first, *rest = (each if isinstance(each, Cell) else Cell(each) for each in row)
        cells = [tag("td", cell.shown, class_=_kind(cell), data_v=_raw(cell)) for cell in rest]
        for i, cell in enumerate(rest, 1):
            numeric[i] |= _kind(cell) == "n"
        brief = isinstance(first.shown, str) and len(first.shown) <= BRIEF
        named = tag("th", first.shown, scope="row", data_v=_raw(first), class_=brief and "s")
        body.append(tag("tr", named, cells))
    columns = [
        tag("th", head, scope="col", class_="n" if right and i else None)
        for i, (head, right) in enumerate(zip(heads, numeric, strict=True))
    ]
    return tag(
        "div",
        tag(
            "table",
            tag("caption", tag("span", caption)),
            tag("thead", tag("tr", columns)),
            tag("tbody", body),
            class_="sortable" if sortable else None,
        ),
        class_="wide",
        role="region",
        aria_label=caption,
        tabindex=0,
    )


def facts(pairs: Iterable[tuple[str, Any]]) -> Markup:
    """Names and values, as a list of definitions."""
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs])


def _kind(cell: Cell) -> str | None:
    """Numbers are to the right, and sentences have room."""
    if cell.value is not None:
        return "n"
    return "t" if isinstance(cell.shown, str) and len(cell.shown) > 40 else None


def _raw(cell: Cell) -> str | None:
    return None if cell.value is None else repr(float(cell.value))
