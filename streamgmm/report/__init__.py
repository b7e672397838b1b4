"""Pictures of what a model says."""

from streamgmm.report.picture import save_segments

__all__ = ["save_segments"]
