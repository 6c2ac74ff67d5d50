"""What a user can get wrong, as exceptions.

    RnntuneError(ValueError)      the command line prints it as one line and exits with 2
    ├── ConfigError               a key or a value of the configuration
    ├── DataError                 input text, labels, word vectors, the cache
    ├── StorageError              a path or URI that cannot be read or written; may pass
    ├── RunError                  a run folder, checkpoint or model that cannot be used
    ├── ClusterError              the cluster: unreachable, too small, no shared storage
    ├── DivergedError             a loss or gradient that is not a finite number
    └── OverLimitError            a model larger or slower than a search allows

Anything else that escapes is a bug and shows a traceback.
"""

__all__ = [
    "ClusterError",
    "ConfigError",
    "DataError",
    "DivergedError",
    "OverLimitError",
    "RnntuneError",
    "RunError",
    "StorageError",
]


class RnntuneError(ValueError):
    """A mistake that the user can mend; its message is one clear line."""

    @staticmethod
    def reason(error: object) -> str:
        """What an error of another library says, as far as it fits into our line."""
        return str(error).strip().split("\n", 1)[0]


class ConfigError(RnntuneError):
    """A key or value of the configuration is not valid."""


class DataError(RnntuneError):
    """Input data cannot be used."""


class RunError(RnntuneError):
    """A run folder, a checkpoint or a model cannot be used."""


class ClusterError(RnntuneError):
    """The cluster cannot do what was asked."""


class StorageError(RnntuneError):
    """A path or URI cannot be read or written."""


class DivergedError(RnntuneError):
    """The loss or its gradient is not a finite number."""


class OverLimitError(RnntuneError):
    """A model is larger or slower than the search allows.

    Args:
        reason: which, and by how much.
        num_parameters: of the model.
        latency_ms: of the model, where it was measured.
    """

    def __init__(
        self, reason: str, *, num_parameters: int | None = None, latency_ms: float | None = None
    ) -> None:
        super().__init__(reason)
        self.num_parameters, self.latency_ms = num_parameters, latency_ms
