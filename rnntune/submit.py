"""Run a job file on a Ray cluster through its dashboard; list, read and stop jobs there.

A job is one `train` or `tune` command on the cluster. What travels is this package's source
and the job file; data, models and run folders are on storage that the cluster reaches itself.

Source: https://docs.ray.io/en/latest/cluster/running-applications/job-submission/sdk.html
"""

import argparse
import dataclasses
import math
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from rnntune import dashboard, storage
from rnntune.config import Config, parse_yaml
from rnntune.errors import ClusterError, ConfigError
from rnntune.upload import pack

__all__ = ["Job", "add_arguments", "add_jobs_arguments", "job_logs", "list_jobs"]
__all__ += ["parse_overrides", "run", "run_jobs", "stop_job", "submit"]

MAX_UPLOAD_BYTES = 10_000_000
"""Largest package and job file together; Ray keeps uploads in the memory of the head node."""

_VERBS = ("train", "tune")
_FLAGS = ("--resume", "--overwrite")
_SHORT_NAMES = {"data": "data.source"}
_INTERRUPTED = 130  # the shell's status after Ctrl-C


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
        job_file: YAML file, as for `Config.load`.
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
    text = storage.read_text(job_file)
    verb = verb or ("tune" if "tune" in parse_yaml(text, job_file) else "train")
    if verb not in _VERBS:
        raise ConfigError(f"a job can {' or '.join(_VERBS)}, not {verb!r}")
    _check_places(Config.load(job_file, overrides))
    command = shlex.join(
        ["python", "-m", "rnntune", verb, "--config", "job.yaml"]
        + [f"--{name}={_as_text(value)}" for name, value in overrides.items()]
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
    print(f"submitted {job_id} to {dashboard.shown_url(url)}", file=sys.stderr, flush=True)
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


def parse_overrides(tokens: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Read `--section.name VALUE` (or `=VALUE`, in YAML) and the flags of a run.

    Returns:
        Dotted names to values, and the flags.

    Raises:
        ConfigError: a token is neither, or has no value.
    """
    overrides: dict[str, Any] = {}
    flags = []
    rest = iter(tokens)
    for token in rest:
        if token in _FLAGS:
            flags.append(token)
            continue
        if not token.startswith("--"):
            raise ConfigError(f"unexpected {token!r}; a setting is written --section.name VALUE")
        name, equals, value = token[2:].partition("=")
        if not equals:
            value = next(rest, "--")
            if value.startswith("--"):
                raise ConfigError(f"--{name} needs a value")
        try:
            overrides[_SHORT_NAMES.get(name, name)] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--{name} {value!r} is not YAML") from error
    return overrides, flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `submit` takes; what is left over goes to `run` as overrides."""
    parser.add_argument("job_file", metavar="JOB", help="YAML file of the job")
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


def run(args: argparse.Namespace, rest: Sequence[str] = ()) -> int:
    """`submit` with the arguments of `add_arguments` and the overrides left over."""
    overrides, flags = parse_overrides(rest)
    return submit(
        args.job_file,
        overrides,
        address=args.address,
        verb=args.job_verb,
        flags=flags,
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


def _as_text(value: Any) -> str:
    """The value as YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=math.inf)
    return text.removesuffix("...\n").removesuffix("\n")


def _check_places(config: Config) -> None:
    if config.output is None or not _outside_job(config.output):
        raise ConfigError(
            f"output: {config.output or 'runs/'} would be deleted with the job; give --output as a "
            "URI or an absolute path that the whole cluster shares, such as s3://bucket/run"
        )
    places = {
        "data.source": config.data.source not in ("sample", "ag_news") and config.data.source,
        "data.test_source": config.data.test_source,
        "data.cache_dir": config.data.cache_dir,
        "model.word_vectors": _as_file(config.model.word_vectors),
    }
    for name, place in places.items():
        if place and not _outside_job(place):
            raise ConfigError(
                f"{name}: {place} is relative to this machine; give a URI or an absolute path "
                "that the whole cluster reaches"
            )


def _outside_job(place: str) -> bool:
    return storage.is_remote(place) or place.removeprefix("file://").startswith(("/", "~"))


def _as_file(word_vectors: str | None) -> str | None:
    """None for a name that torchtext knows, such as 'glove.6B.50d'."""
    if word_vectors and ("/" in word_vectors or Path(word_vectors).exists()):
        return word_vectors
    return None
