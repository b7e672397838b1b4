"""Pictures of what a model says."""

from streamgmm.report.bound import save_staircase, trace_bound
from streamgmm.report.picture import save_segments

__all__ = ["save_segments", "save_staircase", "trace_bound"]
