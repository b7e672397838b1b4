"""HTML as nested tags, in which text cannot be anything but text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any

VOID = {"meta", "br", "hr", "img"}
LONGEST = 60  # letters of a name in a page
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]+")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """A tag with its children and attributes.

    Children are tags, text (escaped), numbers, None, or iterables of these. Of attributes, None
    and False leave them out, True has no value; `_` is `-` in names, and one at the end is left
    out (``class_``, ``aria_label``). Names are of this package, never of the data.

    >>> tag("p", "a < b", tag("b", 3), class_="x")
    '<p class="x">a &lt; b<b>3</b></p>'
    """
    said = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{said}>")
    return Markup(f"<{name}{said}>{render(children)}</{name}>")


def render(child: Any) -> Markup:
    """Anything that a tag may hold, as HTML."""
    if child is None:
        return Markup("")
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return Markup(html.escape(clean(child)))
    if isinstance(child, Iterable):
        return Markup("".join(render(each) for each in child))
    return Markup(html.escape(str(child)))


def _attribute(key: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(clean(str(value)))}"'


def clean(text: str) -> str:
    """Text without what would break lines, reverse their direction, or be no character."""
    return _CONTROLS.sub(" ", text)


def short(text: str, length: int = LONGEST) -> str:
    """A name that fits in a line: the middle of a long one is left out.

    >>> short("a" * 10_000, 7)
    'aaa…aaa'
    """
    text = " ".join(clean(text).split()) or "(no name)"
    if len(text) <= length:
        return text
    head = length // 2
    return f"{text[:head]}…{text[-(length - head - 1) :]}"


def number(value: float, digits: int = 3) -> str:
    """A number for people: digits that matter, thousands apart.

    >>> number(1234567), number(0.00012345), number(float("nan")), number(-2.5)
    ('1,234,567', '0.000123', '–', '−2.5')
    """
    if value != value:
        return "–"
    size = abs(value)
    if size == float("inf"):
        text = "∞"
    elif (size >= 1000 and size < 1e15) or (size == int(size) and size < 1e15):
        text = f"{size:,.0f}"
    elif size != 0 and (size >= 1e15 or size < 1e-5):
        text = f"{size:.{digits - 1}e}"
    else:
        text = f"{size:.{digits}g}"
    return f"−{text}" if value < 0 and text.strip("0.") else text


def percent(share: float) -> str:
    """A share as text.

    >>> percent(0.1234), percent(1e-7), percent(1.0), percent(0.0)
    ('12 %', 'under 0.001 %', '100 %', '0 %')
    """
    if share != share:
        return "–"
    if share >= 0.9995 or share <= 0:
        return f"{100 * share:.0f} %"
    return "under 0.001 %" if share < 1e-5 else f"{100 * share:.{3 if share > 0.99 else 2}g} %"


def plural(n: float, one: str, many: str = "") -> str:
    """A number of things.

    >>> plural(1, "row"), plural(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{number(n)} {one if n == 1 else many or one + 's'}"
