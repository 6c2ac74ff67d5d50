"""Files: those that a name, folder, glob or URI stands for, and what form they are of."""

import fnmatch
import hashlib
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from pyarrow import fs

from rnntune import storage
from rnntune.errors import DataError, RnntuneError
from rnntune.lines import CsvRecords, open_lines
from rnntune.records import Format

__all__ = ["AG_NEWS_CLASSES", "class_names", "digest_of", "find_files", "form_of", "splits"]

AG_NEWS_CLASSES = ("World", "Sports", "Business", "Sci/Tech")

_HASHED_BYTES = 8 << 30  # larger local files are known by size and time alone
_PACKED = (".gz", ".bz2", ".zst", ".lz4")
_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


def find_files(places: str) -> tuple[str, ...]:
    """The files that a comma-separated list of files, folders and globs names, sorted in each.

    Raises:
        DataError: a place is not there, or holds no files.
    """
    found = [file for place in places.split(",") for file in _expand(place.strip())]
    return tuple(dict.fromkeys(found))


def form_of(file: str, form: Literal["auto", "ag_news", "csv", "jsonl", "parquet"]) -> Format:
    """The form of a file; 'auto' goes by its name and, for CSV, its first record.

    Raises:
        DataError: the name says nothing.
    """
    if form != "auto":
        return form
    suffix = _suffix(PurePosixPath(_path(file)).name)
    if suffix in _FORMATS:
        return _FORMATS[suffix]
    if suffix != ".csv":
        valid = ", ".join(get_args(Format))
        raise DataError(f"{file}: its name does not tell its form; set data.format ({valid})")
    try:
        with open_lines(file) as lines:
            fields, _ = next(iter(CsvRecords(lines)), ([], None))
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {RnntuneError.reason(error)}") from error
    if not fields:
        return "csv"
    num_classes = len(class_names(file) or AG_NEWS_CLASSES)
    numbers = {str(number) for number in range(1, num_classes + 1)}
    return "ag_news" if len(fields) == 3 and fields[0].strip() in numbers else "csv"


def splits(place: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Training and test files of a place: those of a folder by their names."""
    if "," in place or not _is_folder(place):
        return find_files(place), ()
    inside = [storage.join(place, name) for name in storage.list_folder(place) if _is_data(name)]
    by_stem = {
        stem: tuple(f for f in inside if PurePosixPath(_path(f)).name.split(".")[0] == stem)
        for stem in ("train", "test")
    }
    for stem, found in by_stem.items():
        if len(found) > 1:
            raise DataError(f"{place} has several files of its {stem} split: {', '.join(found)}")
    if by_stem["train"]:
        return by_stem["train"], by_stem["test"]
    return find_files(place), ()


def class_names(file: str) -> tuple[str, ...] | None:
    """Names in the `classes.txt` beside a file."""
    path, _, query = file.rpartition("?") if _has_query(file) else (file, "", "")
    folder = path.rpartition("/")[0] if "/" in path else "."
    place = storage.join(f"{folder}?{query}" if query else folder, "classes.txt")
    if not storage.exists(place):
        return None
    try:
        names = tuple(line.strip() for line in storage.read_text(place).split("\n"))
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8") from error
    return tuple(name for name in names if name) or None


def digest_of(file: str) -> list[Any]:
    """What a file is known by: name and digest, or, on other machines, size and time.

    Raises:
        DataError: it cannot be read.
    """
    info = _info(file)
    if info.type != fs.FileType.File:
        raise DataError(f"{file}: no such file")
    if storage.is_remote(file) or info.size > _HASHED_BYTES:
        return [file, info.size, info.mtime_ns]
    digest = hashlib.blake2b()
    filesystem, path = storage.locate(file)
    try:
        with filesystem.open_input_stream(path, compression=None) as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {RnntuneError.reason(error)}") from error
    return [PurePosixPath(file).name, digest.hexdigest()]


def _expand(place: str) -> list[str]:
    if not place:
        raise DataError("an empty name in the list of files")
    if _is_folder(place):
        names = [name for name in storage.list_folder(place) if _is_data(name)]
        if not names:
            raise DataError(f"{place}: no data files in this folder")
        return [storage.join(place, name) for name in names]
    if _info(place).type == fs.FileType.File:
        return [place]
    if not any(mark in _path(place) for mark in "*?["):
        raise DataError(f"{place}: no such file or folder")
    matches = _glob(place)
    if not matches:
        raise DataError(f"{place}: no file matches")
    return matches


def _glob(pattern: str) -> list[str]:
    """Files that match; each part of the path matches one name, as in a shell."""
    head, mark, query = pattern.partition("?") if _has_query(pattern) else (pattern, "", "")
    parts = head.split("/")
    first = next(i for i, part in enumerate(parts) if any(c in part for c in "*?["))
    found = ["/".join(parts[:first]) or ("/" if head.startswith("/") else ".")]
    for part in parts[first:]:
        found = [
            storage.join(folder + mark + query, name).partition("?" if mark else "\0")[0]
            for folder in found
            for name in storage.list_folder(folder + mark + query)
            if fnmatch.fnmatchcase(name, part)
        ]
    found = [place + mark + query for place in found]
    found = [place.removeprefix("./") for place in found]
    return sorted(place for place in found if _info(place).type == fs.FileType.File)


def _has_query(place: str) -> bool:
    return storage.is_remote(place) and "=" in place.rpartition("?")[2]


def _is_data(name: str) -> bool:
    return not name.startswith((".", "_")) and _suffix(name) in {".csv", *_FORMATS}


def _suffix(name: str) -> str:
    path = PurePosixPath(name)
    return (path.with_suffix("") if path.suffix in _PACKED else path).suffix.lower()


def _path(file: str) -> str:
    """The place without the query of a URI."""
    return file.rpartition("?")[0] if _has_query(file) else file


def _info(place: str) -> fs.FileInfo:
    try:
        filesystem, path = storage.locate(place)
        return filesystem.get_file_info(path)
    except (OSError, RnntuneError) as error:
        raise DataError(f"{place}: {RnntuneError.reason(error)}") from error


def _is_folder(place: str) -> bool:
    return bool(_info(place).type == fs.FileType.Directory)
