"""Files and folders on any file system that pyarrow knows: local paths, `s3://`, `gs://`.

A place is written as a string, a local path or a URI. What is written appears whole or not
at all: local files are written aside and moved, objects appear when their upload ends.
"""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs

from rnntune.errors import RnntuneError

__all__ = ["StorageError", "copy_folder", "delete", "exists", "is_remote", "join", "list_folder"]
__all__ += ["local_copy", "locate", "read_bytes", "read_text", "write_bytes", "write_text"]


class StorageError(RnntuneError):
    """A place cannot be read or written."""


def is_remote(place: str) -> bool:
    """Whether `place` is a URI other than `file://`."""
    return "://" in place and not place.startswith("file://")


def join(place: str, *names: str) -> str:
    """Append path components to a place; the query of a URI stays at its end."""
    base, mark, query = place.partition("?") if is_remote(place) else (place, "", "")
    return "/".join([base.rstrip("/"), *names]) + mark + query


def locate(place: str) -> tuple[fs.FileSystem, str]:
    """Resolve a place.

    Returns:
        The file system and the path on it.

    Raises:
        StorageError: the URI's scheme or form is not known to pyarrow.

    Source: https://arrow.apache.org/docs/python/filesystems.html (AWS_ENDPOINT_URL is honoured).
    """
    if not is_remote(place):
        path = place.removeprefix("file://")
        return fs.LocalFileSystem(), str(Path(path).expanduser().absolute())
    try:
        return _remote(place)
    except (ValueError, OSError) as error:
        raise StorageError(f"cannot open {place}: {RnntuneError.reason(error)}") from error


def _remote(place: str) -> tuple[fs.FileSystem, str]:
    parts = urlsplit(place)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if parts.scheme == "s3" and endpoint and "endpoint_override" not in parts.query:
        where = urlsplit(endpoint)
        system = fs.S3FileSystem(
            endpoint_override=where.netloc,
            scheme=where.scheme,
            region=os.environ.get("AWS_REGION", os.environ.get("AWS_DEFAULT_REGION", "us-east-1")),
            force_virtual_addressing=False,
        )
        return system, f"{parts.netloc}{parts.path}".rstrip("/")
    filesystem, path = fs.FileSystem.from_uri(place)
    return filesystem, path


def exists(place: str) -> bool:
    """Whether a file or folder is there."""
    filesystem, path = locate(place)
    info = _guarded(place, filesystem.get_file_info, path)
    return bool(info.type != fs.FileType.NotFound)


def list_folder(place: str) -> list[str]:
    """Names in a folder, sorted; empty if there is no such folder."""
    filesystem, path = locate(place)
    selector = fs.FileSelector(path, allow_not_found=True)
    return sorted(info.base_name for info in _guarded(place, filesystem.get_file_info, selector))


def read_bytes(place: str) -> bytes:
    """The bytes of a file.

    Raises:
        StorageError: it cannot be read.
    """
    filesystem, path = locate(place)

    def read() -> bytes:
        with filesystem.open_input_stream(path, compression=None) as stream:
            return bytes(stream.readall())

    return bytes(_guarded(place, read))


def read_text(place: str) -> str:
    """The UTF-8 text of a file."""
    return read_bytes(place).decode("utf-8")


def write_bytes(place: str, data: bytes) -> None:
    """Write a file whole or not at all, making its folder if need be.

    Raises:
        StorageError: it cannot be written; nothing is left behind.
    """
    filesystem, path = locate(place)

    def write() -> None:
        aside = path
        if isinstance(filesystem, fs.LocalFileSystem):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            aside = f"{path}.{uuid.uuid4().hex[:8]}.part"
        try:
            with filesystem.open_output_stream(aside, compression=None) as stream:
                stream.write(data)
            if aside != path:
                filesystem.move(aside, path)
        except BaseException:
            if aside != path:
                Path(aside).unlink(missing_ok=True)
            raise

    _guarded(place, write)


def write_text(place: str, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    write_bytes(place, text.encode("utf-8"))


def copy_folder(source: str, target: str) -> None:
    """Copy a folder's files (with subfolders) to another place."""
    source_fs, source_path = locate(source)
    target_fs, target_path = locate(target)
    if isinstance(target_fs, fs.LocalFileSystem):
        Path(target_path).mkdir(parents=True, exist_ok=True)

    def copy() -> None:
        fs.copy_files(
            source_path, target_path, source_filesystem=source_fs, destination_filesystem=target_fs
        )

    _guarded(target, copy)


def local_copy(place: str, folder: str) -> str:
    """A local folder with the files of `place`: itself when local, else copied to `folder`."""
    if not is_remote(place):
        return locate(place)[1]
    copy_folder(place, folder)
    return folder


def delete(place: str) -> None:
    """Delete a file or a folder with all that is in it, if it exists."""
    filesystem, path = locate(place)
    kind = _guarded(place, lambda: filesystem.get_file_info(path).type)
    if kind == fs.FileType.Directory:
        _guarded(place, filesystem.delete_dir, path)
    elif kind == fs.FileType.File:
        _guarded(place, filesystem.delete_file, path)


def _guarded(place: str, call: Callable[..., Any], *args: Any) -> Any:
    try:
        return call(*args)
    except FileNotFoundError as error:
        raise StorageError(f"{place}: no such file or folder") from error
    except OSError as error:
        raise StorageError(f"{place}: {RnntuneError.reason(error)}") from error
