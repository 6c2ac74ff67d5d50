"""Run a job file on a Ray cluster through its dashboard; list, read and stop its jobs.

A job is one `train` or `tune` command on the cluster. What travels is this package's source
and the job file; data, models and run folders are on storage that the cluster reaches itself.

Source: https://docs.ray.io/en/latest/cluster/running-applications/job-submission/sdk.html
"""

import argparse
import dataclasses
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rnntune.config.flags import as_flag
from rnntune.config.load import Config, parse_yaml
from rnntune.config.schema import AUTO
from rnntune.config.settings_file import settings_text
from rnntune.errors import ClusterError, ConfigError
from rnntune.location import Location
from rnntune.submission import dashboard
from rnntune.submission.package import pack

__all__ = [
    "Job",
    "add_arguments",
    "add_jobs_arguments",
    "job_logs",
    "list_jobs",
    "run",
    "run_jobs",
    "stop_job",
    "submit",
]
MAX_UPLOAD_BYTES = 10_000_000
"""Largest package and job file together; Ray keeps uploads in the memory of the head node."""
_VERBS = ("train", "tune")
_INTERRUPTED = 130  # the shell's status after Ctrl-C


# the shell's status after Ctrl-C
@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A job that was submitted to a cluster."""

    id: str
    """Submission id, by which logs and stop know it."""
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    started: datetime | None
    """When it was submitted."""
    command: str
    """What it runs."""


def submit(
    job_file: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    address: str | None = None,
    verb: str | None = None,
    flags: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    wait: bool = True,
    max_upload_bytes: int = MAX_UPLOAD_BYTES,
    _command: str | None = None,
) -> int:
    """Run a job file on a cluster.

    The driver reserves nothing, which makes Ray place it on the head node, away from GPUs.

    Args:
        job_file: YAML file, or one configuration of several in it, as for `Config.load`.
        overrides: dotted names to values that replace the file's.
        address: the dashboard, `http://HEAD:8265`; None: `RAY_API_SERVER_ADDRESS`,
            `RAY_ADDRESS` or this machine.
        verb: 'train' or 'tune'; None: 'tune' if the file has a `tune` section, else 'train'.
        flags: `--resume` or `--overwrite`, handed to the command.
        env: environment variables of the job.
        wait: print the log until the job ends; otherwise print its id and return.
        max_upload_bytes: refuse to upload more.
        _command: what to run in place of the verb.

    Returns:
        The job's exit status; 1 if it ended without one, 130 if the wait was interrupted
        (the job goes on), 0 without `wait`.

    Raises:
        ConfigError: the file or an override is not valid, or names a place on this machine.
        ClusterError: the cluster is not reachable, refuses the token, or is another version.

    Source: https://docs.ray.io/en/latest/cluster/running-applications/job-submission/quickstart.html
    """
    overrides = dict(overrides or {})
    text = settings_text(job_file)
    verb = verb or ("tune" if "tune" in parse_yaml(text, job_file) else "train")
    if verb not in _VERBS:
        raise ConfigError(f"a job can {' or '.join(_VERBS)}, not {verb!r}")
    _check_places(Config.load(job_file, overrides))
    command = shlex.join(
        ["python", "-m", "rnntune", verb, "--config", "job.yaml"]
        + [as_flag(name, value) for name, value in overrides.items()]
        + list(flags)
    )
    with tempfile.TemporaryDirectory(prefix="rnntune-job-") as folder:
        pack(Path(folder), text, max_upload_bytes)
        client, url = dashboard.connect(address)
        with dashboard.one_line(url):
            job_id = client.submit_job(
                entrypoint=f"python check.py && {_command or command}",
                runtime_env={"working_dir": folder, "env_vars": dict(env or {})},
                metadata={"command": f"{verb} {Path(job_file).name}"},
                entrypoint_num_cpus=0,
                entrypoint_num_gpus=0,
            )
    where = "" if address is None else f" --address {url}"
    hints = f"log: rnntune jobs logs {job_id}{where}\nstop: rnntune jobs stop {job_id}{where}"
    if not wait:
        print(job_id)
        print(hints, file=sys.stderr)
        return 0
    print(f"submitted {job_id} to {url}", file=sys.stderr, flush=True)
    try:
        return dashboard.follow(client, url, job_id)
    except KeyboardInterrupt:
        print(f"\n{job_id} goes on without you\n{hints}", file=sys.stderr)
        return _INTERRUPTED


def list_jobs(*, address: str | None = None) -> list[Job]:
    """The jobs that were submitted to a cluster, the latest first.

    Raises:
        ClusterError: the cluster is not reachable or refuses the token.
    """
    client, url = dashboard.connect(address)
    with dashboard.one_line(url):
        details = [job for job in client.list_jobs() if job.submission_id]
    details.sort(key=lambda job: job.start_time or 0, reverse=True)
    return [
        Job(
            id=job.submission_id,
            status=job.status.value,
            started=datetime.fromtimestamp(job.start_time / 1000) if job.start_time else None,
            command=(job.metadata or {}).get("command", job.entrypoint),
        )
        for job in details
    ]


def job_logs(job_id: str, *, address: str | None = None, follow: bool = False) -> int:
    """Print a job's log; with `follow` until the job ends.

    Returns:
        0, or with `follow` the job's exit status.

    Raises:
        ClusterError: no such job, or the cluster is not reachable or refuses the token.
    """
    client, url = dashboard.connect(address)
    with dashboard.one_line(url, job_id):
        if not follow:
            print(client.get_job_logs(job_id), end="")
            return 0
        client.get_job_info(job_id)
    try:
        return dashboard.follow(client, url, job_id)
    except KeyboardInterrupt:
        return _INTERRUPTED


def stop_job(job_id: str, *, address: str | None = None, timeout_s: float = 60.0) -> str:
    """Stop a job and wait until it has ended.

    Returns:
        Its final status: STOPPED, or another if it had ended before.

    Raises:
        ClusterError: no such job, or it did not stop in time, or no connection.
    """
    client, url = dashboard.connect(address)
    with dashboard.one_line(url, job_id):
        client.stop_job(job_id)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            status = client.get_job_status(job_id)
            if status.is_terminal():
                return str(status.value)
            time.sleep(0.5)
    raise ClusterError(f"{job_id} was asked to stop but still runs after {timeout_s:g} s")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `submit` takes besides settings."""
    parser.add_argument("job_file", metavar="JOB", help="YAML file of the job")
    parser.add_argument("--output", metavar="RUN", help="shared run folder or URI")
    parser.add_argument("--resume", action="store_true", help="go on with the run in that folder")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in that folder")
    parser.add_argument(
        "--verb",
        choices=_VERBS,
        dest="job_verb",
        help="what to run; by default tune if JOB has a tune section",
    )
    parser.add_argument("--no-wait", action="store_true", help="print the job's id and leave")
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="environment variable of the job; without VALUE this shell's",
    )
    _add_address(parser)


def add_jobs_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `jobs` takes: `list`, `logs JOB` and `stop JOB`."""
    actions = parser.add_subparsers(dest="action", required=True)
    _add_address(actions.add_parser("list", help="jobs on the cluster, the latest first"))
    logs = actions.add_parser("logs", help="print a job's log")
    logs.add_argument("--follow", action="store_true", help="until the job ends")
    stop = actions.add_parser("stop", help="stop a job and wait for its end")
    for action in (logs, stop):
        action.add_argument("job_id", metavar="ID", help="as `rnntune jobs list` shows it")
        _add_address(action)


def run(args: argparse.Namespace) -> int:
    """`submit` with the arguments of `add_arguments` and `overrides`."""
    return submit(
        args.job_file,
        args.overrides,
        address=args.address,
        verb=args.job_verb,
        flags=[f"--{name}" for name in ("resume", "overwrite") if getattr(args, name)],
        env=dict(_variable(item) for item in args.env),
        wait=not args.no_wait,
    )


def run_jobs(args: argparse.Namespace) -> int:
    """`jobs list`, `jobs logs` or `jobs stop` with the arguments of `add_jobs_arguments`."""
    if args.action == "logs":
        return job_logs(args.job_id, address=args.address, follow=args.follow)
    if args.action == "stop":
        print(f"{args.job_id} {stop_job(args.job_id, address=args.address)}")
        return 0
    jobs = list_jobs(address=args.address)
    for job in jobs:
        started = f"{job.started:%Y-%m-%d %H:%M:%S}" if job.started else "-"
        print(f"{job.id}  {job.status:<9}  {started:<19}  {job.command}")
    if not jobs:
        print("no jobs", file=sys.stderr)
    return 0


def _add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--address",
        help=f"the cluster's dashboard, http://HEAD:8265; by default RAY_ADDRESS "
        f"or {dashboard.DEFAULT_ADDRESS}",
    )


def _variable(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not equals and name not in os.environ:
        raise ConfigError(f"--env {name}: this shell has no such variable; give {name}=VALUE")
    return name, value if equals else os.environ[name]


def _check_places(config: Config) -> None:
    if config.output is None or Location.parse(config.output).is_relative:
        raise ConfigError(
            f"output: {config.output or 'runs/'} would be deleted with the job; give --output as a "
            "URI or an absolute path that the whole cluster shares, such as s3://bucket/run"
        )
    source, vectors = config.data.source, config.model.word_vectors or ""
    uris = {
        "data.source": "" if source in ("sample", "ag_news") else source,
        "data.test_source": config.data.test_source,
        "data.cache_dir": config.data.cache_dir,
        "tune.warm_start": ",".join(config.tune.warm_start),
        "model.word_vectors": "" if vectors == AUTO or vectors.startswith("glove.") else vectors,
    }
    for name, listed in uris.items():
        for uri in listed.split(",") if listed else ():
            if Location.parse(uri.strip()).is_relative:
                raise ConfigError(
                    f"{name}: {uri} is relative to this machine; give a URI or an absolute path "
                    "that the whole cluster reaches"
                )
