"""A trial of several workers: Ray Train inside Ray Tune.

Source: https://docs.ray.io/en/latest/train/user-guides/hyperparameter-optimization.html
"""

import dataclasses
import json
import uuid
from collections.abc import Mapping
from typing import Any

from rnntune import storage
from rnntune.cluster.channel import KeyValueChannel
from rnntune.cluster.worker_process import WorkerProcess
from rnntune.training.ray_trainer import torch_trainer
from rnntune.training.watchdog import Heartbeat
from rnntune.training.worker import (
    BEATS,
    FAILURE,
    PROCESSES,
    assigned_cpus,
    build_model,
    report_mistakes,
)
from rnntune.training.worker_watch import WorkerWatch
from rnntune.tuning.constraints import ModelSize, build_within_limits
from rnntune.tuning.reports import REPORT, EpochReport, TrialSpec
from rnntune.tuning.trial_log import TrialLog
from rnntune.tuning.trial_loop import Rank, TrialContext, fit_trial, trial_dataset

__all__ = ["run_trial_workers"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _WorkerJob:
    context: Any  # reference of a TrialContext
    spec: TrialSpec
    size: ModelSize
    channel: KeyValueChannel


def run_trial_workers(spec: TrialSpec, context: TrialContext) -> None:
    """Train a trial with several workers; their epochs are reported to Ray Tune.

    Raises:
        RnntuneError: a worker met a mistake that trying again does not mend.
        OverLimitError: the model is larger or slower than allowed.
    """
    import ray
    import torch
    from ray.tune.integration.ray_train import TuneReportCallback

    config = context.config.override(spec.values)
    feed = trial_dataset(context, spec.values)
    _, size = build_within_limits(
        config, feed, context.text_length, torch.device("cpu"), spec.latency_ms
    )
    channel = KeyValueChannel()
    job = _WorkerJob(context=ray.put(context), spec=spec, size=size, channel=channel)
    notes = storage.join(context.uri, f".ray-{uuid.uuid4().hex[:12]}")
    trainer = torch_trainer(
        _run_worker,
        {"job": job},
        config,
        num_workers=context.workers,
        use_gpu=context.use_gpu,
        resources=context.resources,
        uri=notes,
        callbacks=[TuneReportCallback()],
    )
    with WorkerWatch(channel, config.train.hang_timeout_s, print):
        trainer.fit()
    failure = channel.read().get(FAILURE)
    if failure is not None:
        raise failure


def _run_worker(settings: Mapping[str, _WorkerJob]) -> None:
    """One rank of a trial."""
    job = settings["job"]
    with report_mistakes(job.channel):
        _fit(job)


def _fit(job: _WorkerJob) -> None:
    import ray
    import ray.train
    import ray.train.torch
    import torch

    context: TrialContext = ray.get(job.context)
    config = context.config.override(job.spec.values)
    of_train = ray.train.get_context()
    is_first = of_train.get_world_rank() == 0
    rank = Rank(
        device=ray.train.torch.get_device(),
        num_cpus=assigned_cpus(),
        rank=of_train.get_world_rank(),
        world_size=of_train.get_world_size(),
        heartbeat=Heartbeat((lambda count: job.channel.put(BEATS, count)) if is_first else None),
    )
    job.channel.put(f"{PROCESSES}{rank.rank}", WorkerProcess.this_process())
    torch.manual_seed(config.train.seed)
    model = build_model(config, trial_dataset(context, job.spec.values), rank.device)
    log = TrialLog(storage.join(context.uri, job.spec.name, "log.txt"))

    def report(epoch: EpochReport) -> None:
        if rank.rank == 0:
            print(json.dumps(dict(epoch.metrics)))
            log.write()
        ray.train.report({REPORT: epoch})  # rank 0's reaches Ray Tune; all ranks wait for it

    if rank.rank != 0:
        fit_trial(context, job.spec, model, job.size, rank, report)
        return
    with log.capture():
        fit_trial(context, job.spec, model, job.size, rank, report)
