"""Where a follower is: what it learns, the position and the outputs, saved in one atomic step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from streamgmm.online.following.base import Learns, Position
from streamgmm.online.following.outstanding import Outstanding


@dataclass
class Followed:
    """What is learned, and how far it has read.

    Attributes
    ----------
    begin : callable
        Makes the learner of rows of so many features.
    write : callable
        Saves the learner together with the values that it is given, in the place of what was
        saved last.
    kind : str
        Of the feed.
    learner : Learns or None
        None before the first rows.
    position : dict or None
    written : dict of str to int
        The size of each output, by its name.
    refused : int
        Rows that were passed over.
    outstanding : Outstanding
        Samples of a cube that wait for their labels.
    """

    begin: Callable[[int], Learns]
    write: Callable[[dict[str, Any]], None]
    kind: str
    learner: Learns | None = None
    position: Position | None = None
    written: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    outstanding: Outstanding = field(default_factory=Outstanding)

    def save(self) -> None:
        """Put this in the place of what was saved last."""
        self.write(
            {
                "kind": self.kind,
                "position": self.position,
                "outputs": list(self.written),
                "sizes": list(self.written.values()),
                "refused": self.refused,
                "outstanding": self.outstanding.runs,
            }
        )

    def resume(self, saved: dict[str, Any], learner: Learns) -> None:
        """Go on from what was saved."""
        self.learner, self.position = learner, saved["position"]
        self.written = dict(zip(saved["outputs"], saved["sizes"], strict=True))
        self.refused = saved["refused"]
        self.outstanding = Outstanding(list(saved.get("outstanding", ())))
