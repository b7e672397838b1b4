"""Follow a source: learn what is added to it, exactly once, for as long as it grows.

A `Feed` gives units of rows in a fixed order, each with the position after it. `run` has a
`Learner` learn them, and saves the two in one atomic step.
"""

from __future__ import annotations

from streamgmm.online.following.base import Feed, Position, Unit
from streamgmm.online.following.lock import StateInUseError
from streamgmm.online.following.opening import open_feed
from streamgmm.online.following.run import run
from streamgmm.online.following.session import Session
from streamgmm.online.following.state import Followed
from streamgmm.online.following.transformed import TransformedFeed

__all__ = [
    "Feed",
    "Followed",
    "Position",
    "Session",
    "StateInUseError",
    "TransformedFeed",
    "Unit",
    "open_feed",
    "run",
]
