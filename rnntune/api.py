"""`rnntune.train` and `rnntune.tune`: runs with their report page, and progress in notebooks.

The commands call the same two.
"""

import dataclasses
from typing import TYPE_CHECKING, TypeVar

from rnntune.config.load import Config
from rnntune.console import Terminal, default_terminal

if TYPE_CHECKING:
    from rnntune.training.result import RunResult
    from rnntune.tuning.extension import Extension
    from rnntune.tuning.results import TuneResult

__all__ = ["train", "tune"]
_Result = TypeVar("_Result", bound="RunResult")


def train(
    config: Config,
    *,
    resume: bool = False,
    overwrite: bool = False,
    verbose: bool = False,
    terminal: Terminal | None = None,
) -> "RunResult":
    """Train a classifier as the command `rnntune train` does.

    Args:
        config: all settings; `config.output` names the run folder.
        resume: go on with the run in that folder, with its own configuration.
        overwrite: replace a run that is there.
        verbose: let Ray log.
        terminal: where to show progress; None: in the notebook that calls, else nowhere.

    Returns:
        What the run left; a notebook shows its report page.

    Raises:
        RnntuneError: a mistake of the user's; see `rnntune.errors`.
    """
    from rnntune.training import api

    terminal = terminal or default_terminal()
    flags = {"resume": resume, "overwrite": overwrite, "verbose": verbose}
    return _reported(api.train(config, **flags, terminal=terminal), terminal)


def tune(
    config: Config,
    *,
    resume: bool = False,
    more: "Extension | None" = None,
    overwrite: bool = False,
    verbose: bool = False,
    terminal: Terminal | None = None,
) -> "TuneResult":
    """Search for a good configuration as the command `rnntune tune` does.

    Args:
        config: all settings; `config.output` names the run folder.
        resume: go on with the search in that folder, with its own configuration.
        more: trials or time beyond those of the search to go on with, finished or not.
        overwrite: replace a run that is there.
        verbose: let Ray log.
        terminal: where to show progress; None: in the notebook that calls, else nowhere.

    Returns:
        What the search left; a notebook shows its report page.

    Raises:
        KeyboardInterrupt: the user stopped it; it can be resumed.
        RnntuneError: a mistake of the user's; see `rnntune.errors`.
    """
    from rnntune.tuning import api

    terminal = terminal or default_terminal()
    flags = {"resume": resume, "overwrite": overwrite, "verbose": verbose}
    return _reported(api.tune(config, more=more, **flags, terminal=terminal), terminal)


def _reported(result: _Result, terminal: Terminal) -> _Result:
    """A run's result with its page, which trackers keep, too; without one it is none the worse."""
    from rnntune.report.page import written_report
    from rnntune.training.run_folder import RunFolder
    from rnntune.training.trackers import RunTrackers

    report, problem = written_report(result.uri)
    if problem is not None:
        terminal.line(problem)
    else:
        folder = RunFolder(result.uri)
        RunTrackers(folder.config(), folder, terminal).add_report()
    return dataclasses.replace(result, report=report)
