"""`train`: prepared data, the loop here or on workers, and the folder that a run leaves."""

import contextlib
import time

from rnntune.cluster.resources import cluster_resources
from rnntune.cluster.session import connect
from rnntune.cluster.shared_storage import check_shared_storage, check_storage
from rnntune.config.load import Config
from rnntune.console import Terminal
from rnntune.data.cache import in_use
from rnntune.data.diagnosis import diagnose_data
from rnntune.data.preprocess import data_fingerprint, prepare
from rnntune.data.summary import resolve_config
from rnntune.training.diagnosis import diagnose_training
from rnntune.training.local import fit_local, runs_locally
from rnntune.training.model_card import write_model_card
from rnntune.training.placement import place_workers
from rnntune.training.ray_trainer import fit_workers
from rnntune.training.recovery import check_checkpoints
from rnntune.training.result import RunResult, finish_run, seconds_of
from rnntune.training.run_folder import RunFolder, RunKind
from rnntune.training.shared_dataset import (
    hold_dataset,
    report_choices,
    report_skipped_rows,
    share_dataset,
)
from rnntune.training.trackers import RunTrackers, check_trackers

__all__ = ["train"]


def train(
    config: Config,
    *,
    resume: bool = False,
    overwrite: bool = False,
    verbose: bool = False,
    terminal: Terminal | None = None,
) -> RunResult:
    """Train a classifier; `rnntune.train` writes its report page, too.

    Args:
        config: all settings; `config.output` names the run folder.
        resume: go on with the run in that folder, with its own configuration.
        overwrite: replace a run that is there.
        verbose: let Ray log.
        terminal: where to show progress; None: nowhere.

    Raises:
        RnntuneError: a mistake of the user's; see `rnntune.errors`.
    """
    terminal = terminal or Terminal(silent=True)
    begin = time.perf_counter()
    folder, config = RunFolder.open(config, RunKind.TRAIN, resume=resume, overwrite=overwrite)
    if resume and (result := folder.finished()) is not None:
        terminal.line(f"{folder.uri} is finished already")
        return RunResult(uri=folder.uri, result=result)
    check_trackers(config.train.trackers)
    local = runs_locally(config)
    with folder, contextlib.ExitStack() as held:
        if resume:
            folder.go_on(data_fingerprint(config.data))
            check_checkpoints(folder.uri, terminal.line)
        with contextlib.nullcontext() if local else connect(verbose=verbose):
            if local:
                check_storage([folder.uri, config.data.cache_dir])
            else:
                place_workers(config, cluster_resources())
                check_shared_storage([folder.uri, config.data.cache_dir])
            connected = time.perf_counter()
            prepared = prepare(config.data, terminal.line, verbose=verbose)
            held.enter_context(in_use([prepared.uri]))
            report_skipped_rows(prepared, terminal)
            config, choices = resolve_config(config, prepared)
            report_choices(choices, terminal)
            warnings = diagnose_data(prepared)
            terminal.warn(warnings)
            if not resume:
                folder.begin(config, prepared.fingerprint, overwrite=overwrite)
            feed = (hold_dataset if local else share_dataset)(config, prepared, terminal)
            ready, ready_at = time.perf_counter(), time.time()
            outcome = (fit_local if local else fit_workers)(config, folder, feed, terminal)
            result = finish_run(config, folder, prepared, feed, outcome)
            if outcome.refit_rows:
                rows = f"{outcome.refit_rows:,} training plus validation rows"
                terminal.line(f"trained again on {rows}; validation scores are those before")
            found = diagnose_training(outcome.history, outcome.predictions, prepared.classes)
            terminal.warn(found)
            result["warnings"] = warnings + found
            result["auto"] = {choice.name: [choice.value, choice.reason] for choice in choices}
            result["seconds"] = seconds_of(
                prepare_s=ready - connected,
                startup_s=connected - begin + max(0.0, outcome.first_step_at - ready_at),
                train_s=outcome.train_s,
                evaluate_s=outcome.evaluate_s,
                total_s=time.perf_counter() - begin,
            )
            write_model_card(folder, config, prepared, result)
            folder.write_result(result)
            RunTrackers(config, folder, terminal).finish(result)
    return RunResult(uri=folder.uri, result=result)
