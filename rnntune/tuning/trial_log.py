"""A trial's `log.txt`: what it prints."""

import contextlib
import io
from collections.abc import Iterator

from rnntune import storage

__all__ = ["TrialLog"]


class TrialLog:
    """What a trial prints, written at its epochs and its end.

    Args:
        uri: of the file; what it holds already stays.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._text = io.StringIO()

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        """Take what is printed within."""
        with contextlib.redirect_stdout(self._text), contextlib.redirect_stderr(self._text):
            yield

    def write(self) -> None:
        """Append what is new to the file.

        Raises:
            StorageError: it cannot be written.
        """
        if not self._text.getvalue():
            return
        before = storage.read_text(self._uri) if storage.exists(self._uri) else ""
        storage.write_text(self._uri, before + self._text.getvalue())
        self._text.seek(0)
        self._text.truncate()
