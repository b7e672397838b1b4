"""Contracts as tests to inherit: for families of components, and for sources of rows.

Derive a class from one of these in a test file, say how to make an object of yours, and pytest
runs every law on it. What breaks a law is said in a sentence, with the smallest case that shows
it. This room alone imports pytest.
"""

from streamgmm.testing.components import ComponentsTests
from streamgmm.testing.sources import SourceTests

__all__ = ["ComponentsTests", "SourceTests"]
