"""A search run by Ray Tune: its tuner, its environment, and what it leaves behind in storage."""

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from ray.tune import FailureConfig, RunConfig, TuneConfig, Tuner, with_parameters, with_resources

from rnntune import storage
from rnntune.console import run_interruptibly
from rnntune.tuning.ray_adapter import (
    JournalCallback,
    JournalScheduler,
    JournalSearcher,
    SearchStopper,
    trial_name,
    tune_environment,
)
from rnntune.tuning.search import Search
from rnntune.tuning.trial import run_trial
from rnntune.tuning.trial_loop import TrialContext

if TYPE_CHECKING:
    from ray.tune.execution.placement_groups import PlacementGroupFactory

__all__ = ["run_search"]
_TRIAL_PREFIX = "trial-"


def run_search(
    search: Search,
    context: TrialContext,
    resources: "PlacementGroupFactory",
    meanwhile: Callable[[], None],
) -> None:
    """Try configurations until all are tried, time is up or the user stops it.

    Args:
        search: what to try.
        context: what trials have in common.
        resources: of a trial.
        meanwhile: called now and then.

    Raises:
        KeyboardInterrupt: after the trials were stopped.
    """
    search.begin()
    with tune_environment(search.max_concurrent):
        tuner = Tuner(
            with_resources(with_parameters(run_trial, context=context), resources),
            tune_config=TuneConfig(
                search_alg=JournalSearcher(search),
                scheduler=JournalScheduler(search),
                num_samples=search.most_starts,
                reuse_actors=context.workers == 1,
                trial_name_creator=trial_name,
                trial_dirname_creator=trial_name,
            ),
            run_config=run_config(search),
        )
        outcome = run_interruptibly(tuner.fit, meanwhile, search.stop)
    if isinstance(outcome, BaseException):
        raise outcome
    search.finish()
    for name in storage.list_folder(search.uri):  # what Ray wrote for a restore of its own
        if not name.startswith(_TRIAL_PREFIX):
            storage.delete(storage.join(search.uri, name))


def run_config(search: Search) -> RunConfig:
    """Ray Tune's settings of a search; they name a folder that is new each time.

    Ray would go on with what it sees in an old one.
    """
    filesystem, path = storage.locate(search.uri)
    return RunConfig(
        name=f".ray-{uuid.uuid4().hex[:12]}",
        storage_path=path,
        storage_filesystem=filesystem,
        failure_config=FailureConfig(max_failures=search.config.train.max_failures),
        callbacks=[JournalCallback(search)],
        stop=SearchStopper(search),
        verbose=0,
    )
