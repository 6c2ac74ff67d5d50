"""What runs inside a trial: one configuration through the loop, reported epoch by epoch.

A trial of one worker runs in a reused actor of Ray Tune; one of several workers starts them
with a Ray Train trainer of its own. Neither ever holds a test row.
"""

import contextlib
import ctypes
import gc
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping

from rnntune import storage
from rnntune.errors import StorageError
from rnntune.training.watchdog import Watchdog, hang_message
from rnntune.training.worker import assigned_cpus
from rnntune.tuning.constraints import build_within_limits
from rnntune.tuning.reports import REPORT, TRIAL, EpochReport, TrialSpec, trial_end
from rnntune.tuning.trial_folds import fit_folds
from rnntune.tuning.trial_log import TrialLog
from rnntune.tuning.trial_loop import Rank, TrialContext, fit_trial, trial_dataset
from rnntune.tuning.trial_workers import run_trial_workers

__all__ = ["run_trial"]
_M_ARENA_MAX = -8
_LOG_S = 2.0


def run_trial(settings: Mapping[str, TrialSpec], context: TrialContext) -> None:
    """Train one configuration and report each epoch to Ray Tune.

    What goes wrong in it (a loss that is not finite, no memory) is reported as well: the
    search goes on, and the trial is not tried again.

    Args:
        settings: the trial, as `trial`.
        context: what trials have in common.
    """
    import ray.tune

    spec = settings[TRIAL]
    log = TrialLog(storage.join(context.uri, spec.name, "log.txt"))
    with log.capture():
        try:
            print(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
            print(json.dumps(dict(spec.values)))
            if context.workers > 1:
                log.write()
                run_trial_workers(spec, context)
            else:
                _run_alone(spec, context, log)
        except (OSError, StorageError):
            raise  # it may pass, and Ray Tune tries again
        except Exception as error:
            traceback.print_exc()
            ray.tune.report({REPORT: trial_end(error)})
        finally:
            log.write()
            _release_memory()


def _run_alone(spec: TrialSpec, context: TrialContext, log: TrialLog) -> None:
    import ray.tune
    import torch

    config = context.config.override(spec.values)
    device = torch.device("cuda" if context.use_gpu and torch.cuda.is_available() else "cpu")
    feed = trial_dataset(context, spec.values)
    model, size = build_within_limits(config, feed, context.text_length, device, spec.latency_ms)

    def report(epoch: EpochReport) -> None:
        print(json.dumps(dict(epoch.metrics)))
        log.write()
        ray.tune.report({REPORT: epoch})

    def on_hang() -> None:
        print(hang_message(timeout_s))
        threading.Thread(target=log.write, daemon=True).start()  # storage may be what hangs
        time.sleep(_LOG_S)
        os._exit(1)  # Ray Tune starts the trial again, as often as after any crash

    rank = Rank(device=device, num_cpus=assigned_cpus())
    timeout_s = config.train.hang_timeout_s
    with Watchdog(rank.heartbeat, timeout_s, on_hang):
        if config.tune.folds is not None:
            fit_folds(context, spec, size, rank, report)
        else:
            fit_trial(context, spec, model, size, rank, report)


def _release_memory() -> None:
    """Free what a trial leaves in a process that goes on to the next one.

    Each trial runs in a thread of its own, and glibc gives each thread an arena of its own to
    allocate from, which keeps what was freed. Source: `man 3 mallopt` (M_ARENA_MAX), `malloc_trim`.
    """
    gc.collect()  # models hang in cycles
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_ARENA_MAX, 1)
            libc.malloc_trim(0)
