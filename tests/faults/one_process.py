"""Searches without Ray: the trials run one after the other in the process of the command.

What a search writes is all there: the journal, the trials' logs and checkpoints, the best model.
"""

import contextlib
import time

from rnntune.errors import StorageError

ATTEMPTS = 4


def search_in_this_process() -> None:
    """Replace what asks a cluster, in this process and what it forks."""
    from rnntune.cluster.resources import Resources
    from rnntune.cluster.shared_storage import check_storage
    from rnntune.data.sharing import hold_split
    from rnntune.training import shared_dataset
    from rnntune.training.local import fit_local
    from rnntune.tuning import api, ensemble_result, plan, session, tuner

    cluster = Resources(nodes=({"CPU": 1.0},), object_store_bytes=10**9)
    for module in (api, plan, shared_dataset):
        module.cluster_resources = lambda: cluster
    api.connect = lambda **_: contextlib.nullcontext()
    api.check_shared_storage = check_storage
    session.await_room = lambda *_, **__: None
    session.share_dataset = lambda *given, **_: shared_dataset.hold_dataset(*given)
    for module in (session, ensemble_result):
        module.share_split = lambda data, split, in_store: hold_split(
            data, split, in_memory=in_store
        )
        module.fit_workers = fit_local
    tuner.run_search = run_search


def run_search(search, context, resources, meanwhile) -> None:
    """What `tuning.tuner.run_search` does with Ray Tune."""
    from rnntune.tuning.journal import TrialState

    search.begin()
    while (spec := search.next()) is not None:
        for _ in range(ATTEMPTS):
            try:
                _run_trial(search, spec, context, meanwhile)
            except (OSError, StorageError):
                time.sleep(0.5)
            else:
                search.on_complete(spec.number)
                break
        else:
            search.end(spec.number, TrialState.FAILED, f"its process ended {ATTEMPTS} times")
    search.finish()


def _run_trial(search, spec, context, meanwhile) -> None:
    import torch

    from rnntune import storage
    from rnntune.tuning.constraints import build_within_limits
    from rnntune.tuning.trial_log import TrialLog
    from rnntune.tuning.trial_loop import Rank, fit_trial, trial_dataset

    config = context.config.override(spec.values)
    log = TrialLog(storage.join(context.uri, spec.name, "log.txt"))
    device = torch.device("cpu")
    feed = trial_dataset(context, spec.values)
    model, size = build_within_limits(config, feed, context.text_length, device, spec.latency_ms)

    def report(epoch) -> None:
        with log.capture():
            print(f"epoch {epoch.metrics['epoch']}")
        log.write()
        search.on_result(spec.number, epoch)
        search.on_step_end()
        meanwhile()

    fit_trial(context, spec, model, size, Rank(device=device, num_cpus=1), report)
