"""The code of docs/errors_on_rows.md runs, and holds what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.skipif(not DOCS.is_dir(), reason="not part of a source distribution")
def test_the_code_of_the_guide():
    guide = (DOCS / "errors_on_rows.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert len(blocks) == 3
    names = {}
    for block in blocks:
        exec(compile(block, "docs/errors_on_rows.md", "exec"), names)
    assert set(names) >= {"model", "given", "regressor"}
