"""What a run shows while it works: a bar on a terminal, a line now and then elsewhere."""

import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

__all__ = [
    "Terminal",
    "default_terminal",
    "format_duration",
    "in_notebook",
    "printable",
    "run_interruptibly",
]
_LINE_S = 10.0
_POLL_S = 0.2
_STOP_S = 5.0
# Control characters but tab and line feed, and what turns the direction of a line around.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""Text of data as a terminal may show it: control characters are written out, as `\x1b`.

    Source: https://owasp.org/www-community/attacks/Log_Injection (escape sequences).
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def run_interruptibly(
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


def format_duration(seconds: float) -> str:
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
        self.console = Console(
            file=sys.stderr,
            quiet=silent,
            highlight=False,
            soft_wrap=True,
            markup=False,  # brackets in a label or a path are no markup
            emoji=False,
        )
        self._live: Live | None = None
        self._last = 0.0
        self._told = ""

    def line(self, text: str) -> None:
        """Show a line that stays."""
        self.console.print(printable(text))

    def warn(self, lines: Iterable[str]) -> None:
        """Show what may be wrong, a line each."""
        for text in lines:
            self.line(f"warning: {text}")

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
        parts = [
            f"epoch {metrics['epoch']}/{metrics['epochs']} {share:4.0%}",
            f"loss {metrics['train_loss']:.4f}",
            f"accuracy {metrics['train_accuracy']:.4f}",
            f"{rate:,.0f} rows/s",
            f"{format_duration(left / max(rate, 1e-9))} left",
        ]
        self.update(self._joined(parts))

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """Show the figures of a finished epoch."""
        parts = [
            f"epoch {metrics['epoch']}/{metrics['epochs']}",
            f"loss {metrics['train_loss']:.3f}",
            f"accuracy {metrics['train_accuracy']:.4f}",
        ]
        if "validation_accuracy" in metrics:
            loss, score = metrics["validation_loss"], metrics["validation_accuracy"]
            name = ""
            if "validation_micro_f1" in metrics:
                name, score = "micro F1 ", metrics["validation_micro_f1"]
            parts.append(f"validation {loss:.3f} {name}{score:.4f}")
        parts.append(f"{metrics['train_rows_per_s']:,.0f} rows/s")
        self.line(self._joined(parts))

    def _joined(self, parts: Sequence[str]) -> str:
        """Parts in one line; on a terminal, in as many as its width asks for."""
        width = self.console.width if self.console.is_terminal else 10_000
        lines = [parts[0]]
        for part in parts[1:]:
            longer = f"{lines[-1]}  {part}"
            if len(longer) <= width:
                lines[-1] = longer
            else:
                lines.append(f"  {part}")
        return "\n".join(lines)


class NotebookTerminal(Terminal):
    """Lines below a cell of a notebook, and progress that is replaced in its place.

    Source: https://ipython.readthedocs.io/en/stable/api/generated/IPython.display.html (display).
    """

    def __init__(self) -> None:
        super().__init__()
        # Else Rich shows each line as a piece of HTML.
        self.console = Console(
            file=sys.stdout,
            highlight=False,
            soft_wrap=True,
            markup=False,
            emoji=False,
            force_jupyter=False,
            force_terminal=False,
        )
        self._handle: Any = None
        self._shown_at = 0.0

    def update(self, text: str, drawn: Any = None) -> None:  # noqa: ARG002
        """Show how far the work is in place of what was shown before, a few times a second."""
        if time.monotonic() - self._shown_at < _POLL_S:
            return
        self._shown_at = time.monotonic()
        shown = {"text/plain": printable(text)}
        if self._handle is None:
            import IPython.display

            display: Any = IPython.display.display
            self._handle = display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)

    def done(self) -> None:
        """Take the progress away."""
        if self._handle is not None:
            self._handle.update({"text/plain": ""}, raw=True)
            self._handle = None


def in_notebook() -> bool:
    """Whether a cell of a notebook calls."""
    shell = sys.modules.get("IPython")
    return shell is not None and hasattr(shell.get_ipython(), "kernel")


def default_terminal() -> Terminal:
    """Where calls from Python show progress: below their cell in a notebook, else nowhere."""
    return NotebookTerminal() if in_notebook() else Terminal(silent=True)
