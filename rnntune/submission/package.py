"""What travels to the cluster with a job: this package's source, the job file, a check."""

import inspect
import shutil
import sys
from importlib import metadata
from pathlib import Path

import rnntune
from rnntune.cluster.releases import NEWEST_RELEASE, OLDEST_RELEASE
from rnntune.errors import ClusterError

__all__ = ["check_script", "misfit", "pack"]
_TORCHTEXT = {"torch": "2.3.1", "torchtext": "0.18.0"}
_STACKS = {
    "3.10": _TORCHTEXT,
    "3.11": _TORCHTEXT,
    "3.12": _TORCHTEXT,
    "3.13": {"torch": "2.13", "tokenizers": "0"},
}
"""For each release of Python, the packages that must have a version or begin with it."""


def pack(folder: Path, job: str, max_bytes: int) -> None:
    """Write into a folder what a job needs: package, job file and a check of the versions.

    Args:
        folder: an empty folder.
        job: text of the job file.
        max_bytes: of all that is in the folder.

    Raises:
        ClusterError: it is more.
    """
    package = Path(rnntune.__file__).parent
    for file in sorted(package.rglob("*")):
        source = file.suffix == ".py" or file.name == "py.typed" or file.parent.name == "template"
        if source and file.is_file():
            copy = folder / package.name / file.relative_to(package)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    (folder / "job.yaml").write_text(job, encoding="utf-8")
    (folder / "check.py").write_text(check_script(), encoding="utf-8")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if size > max_bytes:
        raise ClusterError(
            f"package and job file are {size:,} bytes, more than the {max_bytes:,} that may be "
            "uploaded; put data where the cluster can read it and name it in data.source"
        )


def check_script() -> str:
    """A program that ends with a line on what does not fit where it runs, or quietly."""
    head = "from __future__ import annotations\n\nimport sys\nfrom importlib import metadata\n"
    call = f"misfit({_STACKS!r}, {OLDEST_RELEASE!r}, {NEWEST_RELEASE!r})"
    return f"{head}\n\n{inspect.getsource(misfit)}\n\nsys.exit({call})\n"


def misfit(
    stacks: dict[str, dict[str, str]], oldest_ray: tuple[int, int], newest_ray: tuple[int, int]
) -> str | None:
    """Why the machine that runs this cannot run the job; None if it can.

    Its source alone travels with the job, so it names nothing but `sys` and `metadata`.

    Args:
        stacks: for each release of Python, packages and the versions that theirs begin with.
        oldest_ray: major and minor number of the oldest Ray that will do.
        newest_ray: of the newest.
    """
    python = ".".join(str(part) for part in sys.version_info[:3])
    stack = stacks.get(python.rpartition(".")[0])
    if stack is None:
        releases = ", ".join(stacks)
        return f"rnntune: the cluster runs Python {python}; it must be one of {releases}"
    for name, wanted in stack.items():
        try:
            installed = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            installed = "missing"
        if not f"{installed}.".startswith(f"{wanted}."):
            return (
                f"rnntune: {name} is {installed} on the cluster and must be {wanted}; "
                "install rnntune with its dependencies on every node"
            )
    try:
        installed = metadata.version("ray")
    except metadata.PackageNotFoundError:
        installed = "missing"
    numbers = tuple(int(part) for part in installed.split(".")[:2] if part.isdecimal())
    if not oldest_ray <= numbers <= newest_ray:
        oldest, newest = (".".join(map(str, release)) for release in (oldest_ray, newest_ray))
        return (
            f"rnntune: ray is {installed} on the cluster and must be {oldest} to {newest}; "
            "install rnntune with its dependencies on every node"
        )
    return None
