"""The search for a good configuration: what is planned, run, and left behind."""

import contextlib
import time
from typing import Any

from rnntune.cluster.resources import cluster_resources
from rnntune.cluster.session import connect
from rnntune.cluster.shared_storage import check_shared_storage
from rnntune.config.load import Config
from rnntune.console import Terminal
from rnntune.data.cache import in_use
from rnntune.data.summary import resolve_config
from rnntune.training.result import seconds_of
from rnntune.training.run_folder import RunFolder, RunKind, refuse_inside
from rnntune.training.shared_dataset import report_choices
from rnntune.training.trackers import check_trackers
from rnntune.tuning.ensemble_selection import check_ensemble
from rnntune.tuning.extension import Extension
from rnntune.tuning.journal import Journal
from rnntune.tuning.perturbation import check_population, population_config
from rnntune.tuning.plan import (
    SearchPlan,
    combined_fingerprint,
    place_trials,
    plan_search,
    prepare_all,
    search_fingerprint,
)
from rnntune.tuning.results import TuneResult, journal_table
from rnntune.tuning.sampler import check_searcher
from rnntune.tuning.session import SearchSession
from rnntune.tuning.space_parser import parse_space
from rnntune.tuning.warm_start import open_warm_start, write_warm_start

__all__ = ["plan", "tune"]


def plan(config: Config, *, verbose: bool = False, terminal: Terminal | None = None) -> SearchPlan:
    """What `tune` would do with a configuration, without a trial; the data is prepared.

    Raises:
        ClusterError: not even one trial can be placed, with the numbers.
        RnntuneError: another mistake of the user's.
    """
    terminal = terminal or Terminal(silent=True)
    space = parse_space(config)
    check_searcher(config.tune, space)
    check_ensemble(config.tune, space)
    check_population(config, space)
    config = population_config(config)
    if (warm := open_warm_start(config, space, None)) is not None:
        terminal.line(warm.line())
    with connect(verbose=verbose):
        place_trials(config, space, cluster_resources())
        prepared = prepare_all(config, space, terminal)
        config, _ = resolve_config(config, next(iter(prepared.values())))
        check_population(config, space)  # the number of epochs may have been auto
        return plan_search(config, space, prepared)


def tune(
    config: Config,
    *,
    resume: bool = False,
    more: Extension | None = None,
    overwrite: bool = False,
    verbose: bool = False,
    terminal: Terminal | None = None,
) -> TuneResult:
    """Search for a good configuration; `rnntune.tune` writes its report page, too.

    Args:
        config: all settings; `config.output` names the run folder.
        resume: go on with the search in that folder, with its own configuration.
        more: trials or time beyond those of the search to go on with, finished or not.
        overwrite: replace a run that is there.
        verbose: let Ray log.
        terminal: where to show progress; None: nowhere.

    Raises:
        KeyboardInterrupt: the user stopped it; it can be resumed.
        RnntuneError: a mistake of the user's; see `rnntune.errors`.
    """
    terminal = terminal or Terminal(silent=True)
    begin = time.perf_counter()
    folder, config = RunFolder.open(config, RunKind.TUNE, resume=resume, overwrite=overwrite)
    if more is not None:
        config = more.extend(config)
    elif resume and (result := folder.finished()) is not None:
        terminal.line(f"{folder.uri} is finished already")
        return _found(config, folder, result)
    space = parse_space(config)
    check_searcher(config.tune, space)
    check_ensemble(config.tune, space)
    check_population(config, space)
    config = population_config(config)
    check_trackers(config.train.trackers)
    refuse_inside(folder.uri, config.tune.warm_start, "is or holds the run")
    if (warm := open_warm_start(config, space, folder if resume else None)) is not None:
        terminal.line(warm.line())
    with folder, contextlib.ExitStack() as held:
        if resume:
            folder.go_on(search_fingerprint(config, space))
        with connect(verbose=verbose):
            place_trials(config, space, cluster_resources())
            check_shared_storage([folder.uri, config.data.cache_dir])
            connected = time.perf_counter()
            prepared = prepare_all(config, space, terminal)
            held.enter_context(in_use(each.uri for each in prepared.values()))
            config, choices = resolve_config(config, next(iter(prepared.values())))
            check_population(config, space)  # the number of epochs may have been auto
            report_choices(choices, terminal)
            if warm is not None and not resume:  # the metric may have been auto
                warm = open_warm_start(config, space, None)
            if more is not None:
                folder.extend(config)
            elif not resume:
                fingerprints = {key: each.fingerprint for key, each in prepared.items()}
                folder.begin(config, combined_fingerprint(fingerprints), overwrite=overwrite)
            if warm is not None:
                write_warm_start(warm, folder)
            session = SearchSession(config, folder, space, prepared, terminal, warm)
            if more is not None:
                session.journal.extend()
            ready = time.perf_counter()
            started_at = time.time()
            session.search()
            searched = time.perf_counter()
            result = session.finish()
            evaluated = time.perf_counter()
            waited = max(0.0, (session.first_step_at or started_at) - started_at)
            result["auto"] = {choice.name: [choice.value, choice.reason] for choice in choices}
            result["seconds"] = seconds_of(
                prepare_s=ready - connected,
                startup_s=connected - begin + waited,
                train_s=searched - ready - waited,
                evaluate_s=evaluated - searched,
                total_s=time.perf_counter() - begin,
            )
            folder.write_result(result)
            session.tracking.finish(session.journal.trials, result)
    return _found(config, folder, result)


def _found(config: Config, folder: RunFolder, result: dict[str, Any]) -> TuneResult:
    kept = Journal(folder.inside("trials.jsonl"))
    return TuneResult(
        uri=folder.uri,
        result=result,
        trials=journal_table(config, kept.trials),
        best=Config.load(folder.inside("best.yaml")),
    )
