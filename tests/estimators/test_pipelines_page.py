"""The examples of docs/pipelines.md run, one after the other."""

import re
from pathlib import Path

DOC = Path(__file__).parents[2] / "docs" / "pipelines.md"


def test_examples_of_the_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert len(blocks) >= 5
    names = {}
    for block in blocks:
        exec(block, names)
    said = capsys.readouterr().out
    assert "sklearn's PCA needs all rows of array 'cube.zarr' in memory" in said
