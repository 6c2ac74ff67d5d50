"""What a run shows while it works: a bar on a terminal, a line now and then elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

__all__ = ["Terminal", "duration", "in_thread"]

_LINE_S = 10.0
_POLL_S = 0.2
_STOP_S = 5.0


def in_thread(
    call: Callable[[], Any],
    meanwhile: Callable[[], None],
    stop: Callable[[], None] | None = None,
) -> Any:
    """The result, or the exception, of a call in a thread, so that Ctrl-C stays ours.

    Args:
        call: what takes long.
        meanwhile: called a few times a second.
        stop: called on Ctrl-C; the call then has a few seconds to end.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_POLL_S)
            meanwhile()
    except KeyboardInterrupt:
        if stop is not None:
            stop()
            thread.join(_STOP_S)
        raise
    return outcome[0]


def duration(seconds: float) -> str:
    """Seconds as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Terminal:
    """Lines and progress on standard error.

    Args:
        silent: show nothing.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self.console = Console(file=sys.stderr, quiet=silent, highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._last = 0.0
        self._told = ""

    def line(self, text: str) -> None:
        """Show a line that stays."""
        self.console.print(text, markup=False)

    def update(self, text: str, drawn: Callable[[], RenderableType] | None = None) -> None:
        """Show how far the work is: in place on a terminal, else a line every few seconds.

        Args:
            text: the line.
            drawn: gives what a terminal shows instead.
        """
        if self.console.is_terminal:
            if self._live is None:
                self._live = Live(console=self.console, transient=True, refresh_per_second=8)
                self._live.start()
            self._live.update(drawn() if drawn else Text(text))
        elif text != self._told and time.monotonic() - self._last >= _LINE_S:
            self._last = time.monotonic()
            self._told = text
            self.line(text)

    def done(self) -> None:
        """Take the progress away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def training(self, metrics: Mapping[str, Any]) -> None:
        """Show the running figures of an epoch."""
        done = (metrics["epoch"] - 1) * metrics["epoch_rows"] + metrics["rows"]
        left = metrics["epochs"] * metrics["epoch_rows"] - done
        share = metrics["rows"] / max(metrics["epoch_rows"], 1)
        rate = metrics["train_rows_per_s"]
        self.update(
            f"epoch {metrics['epoch']}/{metrics['epochs']} {share:4.0%}  "
            f"loss {metrics['train_loss']:.4f}  accuracy {metrics['train_accuracy']:.4f}  "
            f"{rate:,.0f} rows/s  {duration(left / max(rate, 1e-9))} left"
        )

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """Show the figures of a finished epoch."""
        validation = ""
        if "validation_accuracy" in metrics:
            validation = (
                f"  validation loss {metrics['validation_loss']:.4f} "
                f"accuracy {metrics['validation_accuracy']:.4f}"
            )
        self.line(
            f"epoch {metrics['epoch']}/{metrics['epochs']}  loss {metrics['train_loss']:.4f}  "
            f"accuracy {metrics['train_accuracy']:.4f}{validation}  "
            f"{metrics['train_rows_per_s']:,.0f} rows/s"
        )
