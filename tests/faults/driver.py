"""Runs a command of rnntune over and over, each time disturbed at another write.

At the chosen write the process is killed, or the write fails as on a full disk, or all writes fail
for a while. Then the command is run again, undisturbed, to go on.

    python driver.py JOB.json

The job: `root` (a folder), `where` ('disk' or 's3'), `kind` and `seconds` (see `faults`), `most`
(writes to choose, evenly over all; null: each), `command`, and `again` (what goes on). `{run}` and
`{cache}` in both are new folders for each write. Prints a JSON line for each with the exit
statuses and the files that are left, first for the command without a fault (point 0).
"""

import hashlib
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

from faults import Bucket, DiskFault
from one_process import search_in_this_process

KILLED = 256 - signal.SIGKILL
DRAWN = re.compile(r"[0-9a-f]{12,24}|events\.out.*")
"""Parts of names that are drawn at random."""


class Driver:
    """Runs the points of a job."""

    def __init__(self, job: dict) -> None:
        self.job, self.root = job, Path(job["root"])
        self.bucket = Bucket() if job["where"] == "s3" else None

    def run(self) -> None:
        """All points, each printed as it ends."""
        total = self.outcome(0)
        most = min(self.job["most"] or total, total)
        for number in range(most):  # the middle of each of so many equal stretches
            self.outcome(-(-(2 * number + 1) * total // (2 * most)))

    def outcome(self, point: int) -> int:
        """Run the command with a fault at a write, then again without; the number of writes."""
        name = f"point-{point}"
        local = self.root / name
        local.mkdir()
        base = f"s3://bucket/{name}" if self.bucket else str(local)
        log = self.root / f"{name}.log"
        first, total = self._command(self.job["command"], base, name, point, log)
        struck = 0 < point <= total or first == KILLED
        again, _ = self._command(self.job["again"], base, name, 0, log)
        content = self.bucket.files(name) if self.bucket else _files(local)
        files = {
            DRAWN.sub("*", file): _digest(data.replace(base.encode(), b""))
            for file, data in content.items()
        }
        print(
            json.dumps({
                "point": point, "struck": struck, "first": first, "again": again, "files": files
            }),
            flush=True,
        )  # fmt: skip
        return total

    def _command(self, words, base, name, point, log) -> tuple[int, int]:
        """The exit status of a command in a copy of this process, and how often it wrote."""
        arguments = [word.replace("{run}", f"{base}/run") for word in words]
        arguments = [word.replace("{cache}", f"{base}/cache") for word in arguments]
        kind, seconds = self.job["kind"], self.job["seconds"]
        if self.bucket:
            self.bucket.arm(f"{name}/", kind, point, seconds)
        ready, go = os.pipe()
        child = os.fork()
        if not child:
            os.close(go)
            os.read(ready, 1)
            fault = None if self.bucket else DiskFault(base, kind, point, seconds)
            _run_here(arguments, log, fault)
        if self.bucket:
            self.bucket.pid = child
        os.close(ready)
        os.write(go, b"x")
        os.close(go)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) % 256
        if self.bucket:
            return status, self.bucket.count
        counts = re.findall(r"writes: (\d+)", log.read_text())
        return status, int(counts[-1]) if counts else 0


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _run_here(arguments: list[str], log: Path, fault: DiskFault | None) -> None:
    """Run a command and end this process with its status."""
    status = 70
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        if fault is not None:
            sys.addaudithook(fault)
        status = main(arguments)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 2
    except BaseException:  # a bug; the test sees the traceback
        import traceback

        traceback.print_exc()
    finally:
        os.write(1, f"\nwrites: {fault.count if fault else 0}\n".encode())
        os._exit(status)


def warm_up(words: list[str], folder: Path) -> None:
    """Run the command here once, so that its copies import and compute nothing twice."""
    arguments = [word.replace("{run}", f"{folder}/run") for word in words]
    arguments = [word.replace("{cache}", f"{folder}/cache") for word in arguments]
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        assert main(arguments) == 0
    finally:
        sys.stdout = stdout


if __name__ == "__main__":
    began = time.monotonic()
    job = json.loads(Path(sys.argv[1]).read_text())
    import torch

    from rnntune.cli.main import main
    from rnntune.training import lease

    torch.set_num_threads(1)
    lease.SETTLE_S.update({False: 0.0, True: 0.0})  # nobody else claims these runs
    if job["command"][0] == "tune":
        search_in_this_process()
    warm = Path(job["root"], "warm")
    warm.mkdir()
    warm_up(job["command"], warm)
    Driver(job).run()
    print(f"{time.monotonic() - began:.1f} s", file=sys.stderr)
