"""`rnntune report`: the page of a run, of several runs, or of a run that is still going on."""

import argparse
import json
import time
from typing import Any

from rnntune import storage
from rnntune.errors import ConfigError

__all__ = ["add_report_arguments", "report_command"]
_REFRESH_S = 5


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders; several are compared")
    parser.add_argument("--output", metavar="FILE", help="default: report.html in the run folder")
    parser.add_argument(
        "--watch", action="store_true", help="write it again every few seconds until the run ends"
    )


def report_command(args: argparse.Namespace) -> int:
    """Write the report page of runs."""
    from rnntune.report.page import write_report

    if args.watch and len(args.runs) > 1:
        raise ConfigError(f"--watch follows one run, not {len(args.runs)}")
    target = _watch(args) if args.watch else write_report(args.runs, args.output)
    print(json.dumps({"report": target}) if args.json else target)
    return 0


def _watch(args: argparse.Namespace) -> str:
    """Write the page of a run again and again, and a last time when the run has ended."""
    from rnntune.console import Terminal
    from rnntune.report.page import write_report

    terminal: Any = None
    run = args.runs[0]
    while not storage.exists(storage.join(run, "result.json")):
        target = write_report([run], args.output, refresh_s=_REFRESH_S)
        if terminal is None:
            terminal = Terminal()
            terminal.line(f"{target} follows {run}; Ctrl-C ends that")
        time.sleep(_REFRESH_S)
    return write_report([run], args.output)
