"""Files and folders on any file system that pyarrow knows: local paths, `s3://`, `gs://`.

A `uri` is a local path or a URI, as a string; `Location` takes it apart. What is written
appears whole or not at all: local files are written aside and moved, objects appear when
their upload ends.
"""

import os
import re
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs

from rnntune.errors import RnntuneError, StorageError
from rnntune.location import Location

__all__ = [
    "copy_folder",
    "delete",
    "exists",
    "file_sizes",
    "file_version",
    "folder_size",
    "holds_secret",
    "join",
    "list_folder",
    "local_copy",
    "locate",
    "mask_secret",
    "read_bytes",
    "read_text",
    "write_bytes",
    "write_text",
]

_SECRET = re.compile(r"(://)[^/?#@\s]*:(?!\d+/)[^?#@\s]+@")


def holds_secret(uri: str) -> bool:
    """Whether a URI holds a password, as `s3://KEY:SECRET@bucket` does."""
    return _SECRET.search(uri) is not None


def mask_secret(text: str) -> str:
    """A text without the names and passwords of its URIs."""
    return _SECRET.sub(r"\1***@", text)


def join(uri: str, *names: str) -> str:
    """Append path components to a path or URI; the query of a URI stays at its end."""
    return str(Location.parse(uri) / "/".join(names))


def locate(uri: str) -> tuple[fs.FileSystem, str]:
    """Resolve a path or URI.

    Returns:
        The file system and the path on it.

    Raises:
        StorageError: the URI's scheme or form is not known to pyarrow.

    Source: https://arrow.apache.org/docs/python/filesystems.html (AWS_ENDPOINT_URL is honoured).
    """
    if holds_secret(uri):
        raise StorageError(
            f"{mask_secret(uri)}: a URI with a password would reach files and logs; set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what your storage reads, instead"
        )
    location = Location.parse(uri)
    if not location.is_remote:
        return fs.LocalFileSystem(), location.absolute().path
    try:
        return _remote(uri)
    except (ValueError, OSError) as error:
        raise StorageError(f"cannot open {uri}: {RnntuneError.reason(error)}") from error


def _remote(uri: str) -> tuple[fs.FileSystem, str]:
    parts = urlsplit(uri)
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
    filesystem, path = fs.FileSystem.from_uri(uri)
    return filesystem, path


def exists(uri: str) -> bool:
    """Whether a file or folder is there."""
    filesystem, path = locate(uri)
    info = _guarded(uri, filesystem.get_file_info, path)
    return bool(info.type != fs.FileType.NotFound)


def file_version(uri: str) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds; (-1, 0) where no file is."""
    filesystem, path = locate(uri)
    info = _guarded(uri, filesystem.get_file_info, path)
    return (info.size, info.mtime_ns or 0) if info.is_file else (-1, 0)


def file_sizes(uri: str) -> dict[str, int]:
    """Names and sizes in bytes of the files in a folder; empty if there is no such folder."""
    filesystem, path = locate(uri)
    selector = fs.FileSelector(path, allow_not_found=True)
    infos = _guarded(uri, filesystem.get_file_info, selector)
    return {info.base_name: info.size for info in infos if info.is_file}


def folder_size(uri: str) -> tuple[int, float]:
    """Bytes of all files in a folder and below it, and when the latest changed, since 1970."""
    filesystem, path = locate(uri)
    selector = fs.FileSelector(path, allow_not_found=True, recursive=True)
    infos = [i for i in _guarded(uri, filesystem.get_file_info, selector) if i.is_file]
    newest_ns = max((info.mtime_ns or 0 for info in infos), default=0)
    return sum(info.size for info in infos), newest_ns / 1e9


def list_folder(uri: str) -> list[str]:
    """Names in a folder, sorted; empty if there is no such folder."""
    filesystem, path = locate(uri)
    selector = fs.FileSelector(path, allow_not_found=True)
    return sorted(info.base_name for info in _guarded(uri, filesystem.get_file_info, selector))


def read_bytes(uri: str) -> bytes:
    """The bytes of a file.

    Raises:
        StorageError: it cannot be read.
    """
    filesystem, path = locate(uri)

    def read() -> bytes:
        with filesystem.open_input_stream(path, compression=None) as stream:
            return bytes(stream.readall())

    return bytes(_guarded(uri, read))


def read_text(uri: str) -> str:
    """The UTF-8 text of a file.

    Raises:
        StorageError: it cannot be read, or is not UTF-8.
    """
    try:
        return read_bytes(uri).decode("utf-8")
    except UnicodeDecodeError as error:
        raise StorageError(f"{uri}: not UTF-8 ({error.reason} at byte {error.start})") from error


def write_bytes(uri: str, data: bytes) -> None:
    """Write a file whole or not at all, making its folder if need be.

    Raises:
        StorageError: it cannot be written; nothing is left behind.
    """
    filesystem, path = locate(uri)
    if isinstance(filesystem, fs.LocalFileSystem):
        _guarded(uri, _write_local, Path(path), data)
        return

    def upload() -> None:
        with filesystem.open_output_stream(path, compression=None) as stream:
            stream.write(data)

    _guarded(uri, upload)


def _write_local(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        aside.write_bytes(data)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_text(uri: str, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    write_bytes(uri, text.encode("utf-8"))


def copy_folder(source: str, target: str) -> None:
    """Copy a folder's files (with subfolders) to another folder."""
    source_fs, source_path = locate(source)
    target_fs, target_path = locate(target)
    if isinstance(target_fs, fs.LocalFileSystem):
        Path(target_path).mkdir(parents=True, exist_ok=True)

    def copy() -> None:
        fs.copy_files(
            source_path, target_path, source_filesystem=source_fs, destination_filesystem=target_fs
        )

    _guarded(target, copy)


def local_copy(uri: str, folder: str) -> str:
    """A local folder with the files of `uri`: itself when local, else copied to `folder`."""
    if not Location.parse(uri).is_remote:
        return locate(uri)[1]
    copy_folder(uri, folder)
    return folder


def delete(uri: str) -> None:
    """Delete a file or a folder with all that is in it, if it exists."""
    filesystem, path = locate(uri)
    kind = _guarded(uri, lambda: filesystem.get_file_info(path).type)
    is_local = isinstance(filesystem, fs.LocalFileSystem)
    if is_local and Path(path).is_symlink():
        _guarded(uri, os.remove, path)  # what a link leads to is not ours
    elif kind == fs.FileType.Directory:
        _guarded(uri, shutil.rmtree if is_local else filesystem.delete_dir, path)
    elif kind == fs.FileType.File:
        _guarded(uri, os.remove if is_local else filesystem.delete_file, path)


def _guarded(uri: str, call: Callable[..., Any], *args: Any) -> Any:
    try:
        return call(*args)
    except FileNotFoundError as error:
        raise StorageError(f"{uri}: no such file or folder") from error
    except OSError as error:
        raise StorageError(f"{uri}: {RnntuneError.reason(error)}") from error
