"""What a user can get wrong, as exceptions.

    RnntuneError(ValueError)      the command line prints it as one line and exits with 2
    ├── ConfigError               a key or a value of the configuration
    ├── DataError                 input text, labels, word vectors, the cache
    ├── RunError                  a run folder, checkpoint or model that cannot be used
    └── ClusterError              the cluster: unreachable, too small, no shared storage

Anything else that escapes is a bug and shows a traceback.
"""

__all__ = ["ClusterError", "ConfigError", "DataError", "RnntuneError", "RunError"]


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
