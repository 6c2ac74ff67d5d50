"""What lies in folders: files and folders by name and pattern, and what a file is known by."""

import dataclasses
import fnmatch
import hashlib
from typing import Any

from pyarrow import fs

from rnntune import storage
from rnntune.data.formats.class_folders import list_texts
from rnntune.errors import DataError, RnntuneError
from rnntune.location import Location

__all__ = ["file_digest", "file_info", "file_suffix", "is_folder", "list_entries", "match_files"]
_HASHED_BYTES = 8 << 30  # larger local files are known by size and time alone
_PACKED = (".gz", ".bz2", ".zst", ".lz4")


def file_info(uri: str) -> fs.FileInfo:
    """Kind, size and time of a file or folder.

    Raises:
        DataError: its file system does not answer.
    """
    try:
        filesystem, path = storage.locate(uri)
        return filesystem.get_file_info(path)
    except (OSError, RnntuneError) as error:
        raise DataError(f"{uri}: {RnntuneError.reason(error)}") from error


def is_folder(uri: str) -> bool:
    """Whether a path or URI is a folder."""
    return bool(file_info(uri).type == fs.FileType.Directory)


def file_suffix(file: str) -> str:
    """The end of a file's name in small letters, without that of a compressed file."""
    suffixes = Location.parse(file).suffixes
    if suffixes and suffixes[-1] in _PACKED:
        del suffixes[-1]
    return suffixes[-1] if suffixes else ""


def file_digest(file: str) -> list[Any]:
    """What a file is known by: name and digest, or, on other machines, size and time.

    Raises:
        DataError: it cannot be read.
    """
    info = file_info(file)
    if info.type == fs.FileType.Directory:
        return [file, *([each.base_name, each.size, each.mtime_ns] for each in list_texts(file))]
    if info.type != fs.FileType.File:
        raise DataError(f"{file}: no such file")
    if Location.parse(file).is_remote or info.size > _HASHED_BYTES:
        return [file, info.size, info.mtime_ns]
    digest = hashlib.blake2b()
    filesystem, path = storage.locate(file)
    try:
        with filesystem.open_input_stream(path, compression=None) as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {RnntuneError.reason(error)}") from error
    return [Location.parse(file).name, digest.hexdigest()]


def list_entries(uri: str) -> tuple[list[str], list[str]]:
    """Files and folders in a folder, sorted; hidden ones are left out."""
    filesystem, path = storage.locate(uri)
    try:
        infos = filesystem.get_file_info(fs.FileSelector(path))
    except OSError as error:
        raise DataError(f"{uri}: {RnntuneError.reason(error)}") from error
    shown = sorted(
        (str(info.base_name), info.type)
        for info in infos
        if not info.base_name.startswith((".", "_"))
    )
    files = [storage.join(uri, name) for name, kind in shown if kind == fs.FileType.File]
    folders = [storage.join(uri, name) for name, kind in shown if kind == fs.FileType.Directory]
    return files, folders


def match_files(pattern: str) -> list[str]:
    """Files that match a pattern; each part of the path matches one name, as in a shell."""
    location = Location.parse(pattern)
    parts = location.path.split("/")
    first = next(i for i, part in enumerate(parts) if any(c in part for c in "*?["))
    start = "/".join(parts[:first]) or ("/" if location.path.startswith("/") else ".")
    found = [dataclasses.replace(location, path=start)]
    for part in parts[first:]:
        found = [
            folder / name
            for folder in found
            for name in storage.list_folder(str(folder))
            if fnmatch.fnmatchcase(name, part)
        ]
    uris = sorted(str(uri).removeprefix("./") for uri in found)
    return [uri for uri in uris if file_info(uri).type == fs.FileType.File]
