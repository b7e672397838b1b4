"""Tables of components that 80 columns hold: no cell wraps, and what is not shown is counted."""

from __future__ import annotations

import math
import sys
from typing import Any

MOST_ROWS = 60
_EDGES = 3  # characters of padding and border beside each cell


def print_components(described: dict[str, Any]) -> None:
    """Print the components of `describe_model`: weights, and as many parameters as there is room.

    A row is a component; or, where that shows more numbers, a parameter.
    """
    from rich.console import Console
    from rich.table import Table

    components = described["components"]
    names = [name for name in components[0] if name != "weight"]
    moments = names == ["mean", "standard_deviation"]
    heads = _heads(described, names, moments)
    cells = [_cells(component, names, moments) for component in components]
    weights = [f"{component['weight']:.4f}" for component in components]
    numbers = [str(k) for k in range(len(components))]
    console = Console(file=sys.stdout)

    parameters = zip(heads, *cells, strict=True)
    down = [["", *numbers], ["weight", *weights], *(list(each) for each in parameters)]
    columns = zip(numbers, weights, cells, strict=True)
    across = [["", "weight", *heads], *([k, weight, *row] for k, weight, row in columns)]
    shown = _fitting(down, console.width)
    if shown < len(down) and _fitting(across, console.width) == len(across):
        shape, shown, kind = across, len(across), "parameters"
    else:
        shape, kind = down, "components"

    what = "mean ± standard deviation" if moments else ", ".join(names)
    n = len(components)
    table = Table(title=f"{n} component{'s' * (n != 1)}: {what}")
    for column in shape[:shown]:
        table.add_column(column[0], justify="right", no_wrap=True)
    for row in zip(*(column[1 : MOST_ROWS + 1] for column in shape[:shown]), strict=True):
        table.add_row(*row)
    console.print(table)
    if shown < len(shape):
        print(f"and {len(shape) - shown} more parameters of each; --json has all")
    rest = len(shape[0]) - 1 - MOST_ROWS
    if rest > 0:
        print(f"and {rest} more {kind}; --json has all")


def _fitting(columns: list[list[str]], width: int) -> int:
    """How many of the columns fit beside one another; three at least."""
    used, n = 1, 0
    for column in columns:
        used += max(map(len, column)) + _EDGES
        if used > width:
            break
        n += 1
    return max(n, min(3, len(columns)))


def _cells(component: dict[str, Any], names: list[str], moments: bool) -> list[str]:
    """The numbers of a component, as text."""
    import numpy as np

    if moments:
        pairs = zip(component["mean"], component["standard_deviation"], strict=True)
        return [f"{_number(m, 4)} ± {_number(s, 2)}" for m, s in pairs]
    return [_number(value, 4) for name in names for value in np.ravel(component[name])]


def _number(value: float, digits: int) -> str:
    """A number to so many digits; with an exponent only where zeros would be many.

    >>> [_number(x, 2) for x in (0.0, 981.2, 12345.0, 1.5e-7, float("nan"))]
    ['0', '980', '12000', '1.5e-07', 'nan']
    """
    if value == 0 or not math.isfinite(value) or not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits}g}"
    import numpy as np

    return np.format_float_positional(value, precision=digits, fractional=False, trim="-")


def _heads(described: dict[str, Any], names: list[str], moments: bool) -> list[str]:
    """A heading for each number: the feature; or the parameter, and its place in an array."""
    if moments:
        features = described.get("features")
        return features or [f"x{d}" for d in range(described["n_features"])]
    import numpy as np

    found = []
    for name in names:
        values = np.asarray(described["components"][0][name])
        found += [f"{name} {', '.join(map(str, at))}".rstrip() for at in np.ndindex(values.shape)]
    return found
