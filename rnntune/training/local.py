"""One worker on this machine: the loop in the command's own process, without Ray.

The worker is the one that Ray Train would run, with the same checkpoints: a run that began here
goes on through Ray Train and the other way round, to the same weights.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from rnntune.cluster.session import is_connected
from rnntune.config.load import Config
from rnntune.console import Terminal
from rnntune.errors import RunError, StorageError
from rnntune.training.progress import ProgressFollower
from rnntune.training.recovery import CHECKPOINTS
from rnntune.training.result import TrainingOutcome
from rnntune.training.run_folder import RunFolder
from rnntune.training.shared_dataset import SharedDataset
from rnntune.training.watchdog import end_where_it_hangs
from rnntune.training.worker import TrainingWorker, WorkerJob

__all__ = ["fit_local", "runs_locally"]


def runs_locally(config: Config) -> bool:
    """Whether a run needs no Ray: one worker, no cluster named or connected, no other resources.

    With `RAY_ADDRESS=local` a run goes through a cluster of this machine's own.
    """
    train = config.train
    if os.environ.get("RAY_ADDRESS") or is_connected():
        return False
    if train.num_workers != 1 or set(train.resources_per_worker) - {"CPU"}:
        return False
    return train.use_gpu is not True or _has_gpu()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def fit_local(
    config: Config, folder: RunFolder, feed: SharedDataset, terminal: Terminal
) -> TrainingOutcome:
    """Train in this process, and evaluate the test rows once at the end.

    The first Ctrl-C (or SIGTERM, where a program handles it) ends training after the step at
    hand, with a checkpoint; the second one ends it at once.

    Raises:
        KeyboardInterrupt: it was stopped.
        RnntuneError: training failed.
    """
    import torch

    use_gpu = config.train.use_gpu is not False and torch.cuda.is_available()
    follower = ProgressFollower(config, folder, terminal)
    job = WorkerJob(
        config=config,
        feed=feed,
        checkpoints=folder.inside(CHECKPOINTS),
        channel=_Direct(follower),
    )
    device = torch.device("cuda" if use_gpu else "cpu")
    worker = TrainingWorker(job, device=device, num_cpus=_num_cpus(config))
    try:
        advice = f"go on later with --resume {folder.uri}"
        timeout_s = config.train.hang_timeout_s
        with (
            _stop_request() as should_stop,
            end_where_it_hangs(worker.heartbeat, timeout_s, advice),
        ):
            outcome = worker.run(should_stop)
    except StorageError as error:
        raise RunError(
            f"training failed: {error}; go on later with --resume {folder.uri}"
        ) from error
    finally:
        follower.close()
    assert outcome is not None  # this is rank 0
    return outcome


def _num_cpus(config: Config) -> int:
    """CPUs of this process, or as many of them as the configuration gives a worker."""
    from rnntune.training.threads import process_cpus

    wanted = config.train.resources_per_worker.get("CPU")
    return max(1, min(int(wanted or process_cpus()), process_cpus()))


class _Direct:
    """A channel without a cluster: the follower sees a value at once."""

    def __init__(self, follower: ProgressFollower) -> None:
        self._follower = follower

    def put(self, key: str, value: Any, *, wait: bool = False) -> None:  # noqa: ARG002
        """Show a value."""
        self._follower.look({key: value})


@contextlib.contextmanager
def _stop_request() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed meanwhile, in place of an exception in the midst of a step."""
    stopped = threading.Event()
    handlers: dict[int, Any] = {}

    def stop(number: int, _frame: object) -> None:
        stopped.set()
        signal.signal(number, handlers[number])  # the next one ends it at once

    if threading.current_thread() is threading.main_thread():
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            if callable(handler := signal.getsignal(number)):
                handlers[number] = handler
                signal.signal(number, stop)
    try:
        yield stopped.is_set
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
