"""Every error and warning that streamgmm raises on purpose.

Each error also derives from the built-in it is a kind of, so ``except ValueError`` keeps
working. A message says what is wrong, where, and what to do about it.
"""

from __future__ import annotations


class StreamGMMError(Exception):
    """Base of every deliberate error of this package."""


class DataError(StreamGMMError, ValueError):
    """Rows that cannot be used: wrong shape, dtype, width, weights or too few of them."""


class DataTypeError(StreamGMMError, TypeError):
    """Data of a kind that has no rows of numbers in it: sparse, objects, no array at all."""


class NonFiniteError(DataError):
    """Rows that hold NaN or infinity; the message names the array and the rows."""


class SourceError(StreamGMMError, ValueError):
    """A path, URL or object that is not an array of rows."""


class SourceNotFoundError(FileNotFoundError, SourceError):
    """A path or URL at which there is nothing."""


class ChunkError(StreamGMMError, OSError):
    """A stored chunk that cannot be read or decoded; the message names the chunk."""


class StoreError(StreamGMMError, ConnectionError):
    """A store that refuses access, or does not answer; the message says what to look at."""


class WorkerLostError(StreamGMMError, RuntimeError):
    """A block whose task ended its worker again and again, most often for want of memory."""


class SchedulerError(StreamGMMError, ConnectionError):
    """A cluster that does not answer, or that has no workers; the message names the address."""


class WorkerError(StreamGMMError, RuntimeError):
    """A worker that cannot take part: another version of this package, or of Python."""


class PlanError(MemoryError, StreamGMMError):
    """A fit that the memory it is given cannot hold; the message says what to change."""


class ParameterError(StreamGMMError, ValueError):
    """A setting, or an initial parameter, outside what is allowed."""


class MissingExtraError(ParameterError, ImportError):
    """Something that needs a package which is not installed; the message names the extra."""


class DegenerateComponentError(StreamGMMError, ValueError):
    """A component that its rows do not determine; the message names it."""


class SingularCovarianceError(DegenerateComponentError):
    """A component whose covariance is not positive definite."""


class OutputExistsError(StreamGMMError, FileExistsError):
    """An output path that is already taken."""


class OutputError(StreamGMMError, OSError):
    """An output that could not be written whole; nothing that looks finished is left."""


class ModelFileError(StreamGMMError, ValueError):
    """A stored model that is damaged, of a newer format, or no model at all."""


class ModelNotFoundError(FileNotFoundError, ModelFileError):
    """A path or URL at which there is no model."""


class CheckpointError(StreamGMMError, ValueError):
    """A checkpoint of another fit, of another job that is still writing it, or a damaged one."""


class StreamGMMWarning(UserWarning):
    """Base of the warnings of this package."""
