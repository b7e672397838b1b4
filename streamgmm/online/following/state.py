"""The state of a follower: the model, the position and the outputs, saved in one atomic step."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamgmm.errors import ModelFileError, ModelNotFoundError, ParameterError
from streamgmm.estimators.loading import load
from streamgmm.estimators.online import OnlineGaussianMixture
from streamgmm.online.following.base import Position
from streamgmm.places import Place
from streamgmm.storage.model import is_unfinished


@dataclass
class Followed:
    """A model and how far it has read; `written` is the size of each output by its path."""

    model: OnlineGaussianMixture
    kind: str
    position: Position | None = None
    written: dict[str, int] = field(default_factory=dict)
    refused: int = 0

    def save(self, place: Place) -> None:
        """Put this in the place of what was saved last."""
        follow = {
            "kind": self.kind,
            "position": self.position,
            "outputs": list(self.written),
            "sizes": list(self.written.values()),
            "refused": self.refused,
        }
        self.model.save_with(place, {"follow_": follow}, overwrite=True)


def open_state(place: Place, model: OnlineGaussianMixture | None, kind: str) -> Followed:
    """Read what was saved, or start with `model`.

    Raises
    ------
    ParameterError
        If the state is of a model with other parameters, or of another kind of source; or if
        there is no state and no model.
    ModelFileError
        If it is no state of a follower, or damaged.
    """
    try:
        unfinished = is_unfinished(place)
    except ModelNotFoundError:
        unfinished = True
    except ModelFileError:
        folder = place.directory
        if folder is None or not folder.is_dir() or any(folder.iterdir()):
            raise
        unfinished = True
    if unfinished:
        if model is None:
            raise ParameterError(
                f"there is no state at '{place}' yet; pass model=OnlineGaussianMixture(…)"
            )
        return Followed(model, kind)
    stored = load(place)
    follow = stored.__dict__.get("follow_")
    if not isinstance(stored, OnlineGaussianMixture) or follow is None:
        raise ModelFileError(
            f"'{place}' holds a {type(stored).__name__} that follows nothing; give another path "
            "for the state"
        )
    if model is not None:
        mine, theirs = model.get_params(deep=False), stored.get_params(deep=False)
        for name, value in theirs.items():
            if repr(mine[name]) != repr(value):
                raise ParameterError(
                    f"state '{place}' is of another model: {name}={value!r} there, "
                    f"{mine[name]!r} here; give its parameters, or another state"
                )
    if follow["kind"] != kind:
        raise ParameterError(
            f"state '{place}' follows {follow['kind']}, not {kind}; give another state"
        )
    written = dict(zip(follow["outputs"], follow["sizes"], strict=True))
    return Followed(stored, kind, follow["position"], written, follow["refused"])
