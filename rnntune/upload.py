"""What travels to the cluster with a job: this package's source, the job file, a check."""

import inspect
import shutil
import sys
from importlib import metadata
from pathlib import Path

from rnntune.errors import ClusterError

__all__ = ["check_script", "misfit", "pack"]

_PINNED = ("ray", "torch", "torchtext")


def pack(folder: Path, job: str, max_bytes: int) -> None:
    """Write into a folder what a job needs: package, job file and a check of the versions.

    Args:
        folder: an empty folder.
        job: text of the job file.
        max_bytes: of all that is in the folder.

    Raises:
        ClusterError: it is more.
    """
    package = Path(__file__).parent
    for file in sorted(package.rglob("*")):
        if file.suffix == ".py" or file.name == "py.typed":
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
    pins = {name: metadata.version(name).partition("+")[0] for name in _PINNED}
    head = "from __future__ import annotations\n\nimport sys\nfrom importlib import metadata\n"
    return f"{head}\n\n{inspect.getsource(misfit)}\n\nsys.exit(misfit({pins!r}))\n"


def misfit(pins: dict[str, str]) -> str | None:
    """Why the machine that runs this cannot run the job; None if it can.

    Its source alone travels with the job, so it names nothing but `sys` and `metadata`.
    """
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        found = ".".join(str(part) for part in sys.version_info[:3])
        return f"rnntune: the cluster runs Python {found}; it must be 3.10, 3.11 or 3.12"
    for name, wanted in pins.items():
        try:
            found = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            found = "missing"
        if found != wanted:
            return (
                f"rnntune: {name} is {found} on the cluster and must be {wanted}; "
                "install rnntune with its dependencies on every node"
            )
    return None
