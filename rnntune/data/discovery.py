"""Files: those that a name, folder, glob or URI stands for, by split."""

from collections.abc import Sequence

from pyarrow import fs

from rnntune.data.file_listing import (
    file_info,
    file_suffix,
    is_folder,
    list_entries,
    match_files,
)
from rnntune.data.formats.class_folders import is_text_name, list_texts
from rnntune.data.formats.records import FORMS
from rnntune.data.splits import (
    SplitFiles,
    SplitName,
    check_parts,
    merge_splits,
    split_of,
)
from rnntune.errors import DataError
from rnntune.location import Location

__all__ = ["find_files", "find_splits"]
_TEXT_SUFFIXES = ("", ".txt", ".text")
_UNLABELLED = ("unsup",)  # of the reviews of aclImdb: texts without a class
_MOST_NESTED = 2


def find_files(uris: str) -> tuple[str, ...]:
    """The files that a comma-separated list of files, folders and globs names, sorted in each.

    A folder of a folder a class stands for the latter.

    Raises:
        DataError: a path is not there, or holds no files.
    """
    files = [file for uri in _listed(uris) for file in _expand(uri)]
    return tuple(dict.fromkeys(files))


def find_splits(uris: str) -> SplitFiles:
    """Files by split: those of folders and globs by their names, others are for training.

    Raises:
        DataError: a path is not there, holds no files, or files whose use is not clear.
    """
    parts = []
    for uri in _listed(uris):
        if is_folder(uri):
            parts.append(_folder_splits(uri))
        else:
            files = _expand(uri)
            parts.append(SplitFiles(train=(uri,)) if files == [uri] else _by_name(uri, files))
    return merge_splits(parts)


def _listed(uris: str) -> list[str]:
    listed = [uri.strip() for uri in uris.split(",")]
    if not all(listed):
        raise DataError("an empty name in the list of files")
    return listed


def _expand(uri: str) -> list[str]:
    kind = file_info(uri).type
    if kind == fs.FileType.Directory:
        files, folders = list_entries(uri)
        data = [file for file in files if _is_data(file)]
        if data:
            return data
        classes, _ = _class_folders(folders)
        if (
            not classes
            and list_texts(uri)
            and all(is_text_name(Location.parse(file).name) for file in files)
        ):
            return [uri]  # the folder of one class
        if not classes:
            raise _no_data(uri, files, folders)
        return classes
    if kind == fs.FileType.File:
        return [uri]
    if not any(mark in Location.parse(uri).path for mark in "*?["):
        raise DataError(f"{uri}: no such file or folder")
    matches = match_files(uri)
    if not matches:
        raise DataError(f"{uri}: no file matches")
    return matches


def _folder_splits(uri: str, nested: int = 0) -> SplitFiles:
    files, folders = list_entries(uri)
    data = [file for file in files if _is_data(file)]
    texts = [file for file in files if file_suffix(file) in _TEXT_SUFFIXES and split_of(file)]
    if data or texts:
        return _by_name(uri, sorted([*data, *texts]))
    if any(split_of(folder) for folder in folders):
        return _folders_by_name(uri, folders)
    inner = [
        folder for folder in folders if len(folders) == 1 or Location.parse(folder).name == "data"
    ]
    if inner and nested < _MOST_NESTED and _has_data(inner[0]):
        return _folder_splits(inner[0], nested + 1)
    classes, notes = _class_folders(folders)
    if len(classes) < 2:
        raise _no_data(uri, files, folders)
    return SplitFiles(train=tuple(classes), notes=tuple(notes))


def _has_data(folder: str) -> bool:
    files, folders = list_entries(folder)
    return bool(folders) or any(map(_is_data, files))


def _by_name(uri: str, files: Sequence[str]) -> SplitFiles:
    """Files by what their names mean; all are for training where no name means a split."""
    named = {split: [file for file in files if split_of(file) is split] for split in SplitName}
    others = [file for file in files if split_of(file) is None]
    meant = [split for split in SplitName if named[split]]
    if not meant or (len(meant) == 1 and not others and not named[SplitName.TRAIN]):
        return SplitFiles(train=tuple(files))
    if not named[SplitName.TRAIN]:
        raise DataError(
            f"{uri}: no training file among {_names(files)}; name the files of each split with "
            "data.source, data.validation_source and data.test_source"
        )
    for split in meant:
        check_parts(uri, split, named[split])
    notes = [f"{uri}: not read, as no split is named so: {_names(others)}"] if others else []
    train, validation, test = (tuple(named[split]) for split in SplitName)
    return SplitFiles(train=train, validation=validation, test=test, notes=tuple(notes))


def _folders_by_name(uri: str, folders: Sequence[str]) -> SplitFiles:
    """Folders `train`, `validation` and `test`, of data files or of a folder a class."""
    found: dict[SplitName, tuple[str, ...]] = {}
    notes: list[str] = []
    for split in SplitName:
        named = [folder for folder in folders if split_of(folder) is split]
        check_parts(uri, split, named)
        if not named:
            continue
        classes, more = _class_folders(list_entries(named[0])[1])
        found[split] = tuple(classes) if classes else tuple(_expand(named[0]))
        notes += more
    if SplitName.TRAIN not in found:
        raise DataError(f"{uri}: no folder train among {_names(folders)}")
    train, validation, test = (found.get(split, ()) for split in SplitName)
    return SplitFiles(train=train, validation=validation, test=test, notes=tuple(notes))


def _class_folders(folders: Sequence[str]) -> tuple[list[str], list[str]]:
    """The folders that hold texts and nothing else, and what to say of others."""
    classes, notes = [], []
    for folder in folders:
        names = [str(info.base_name) for info in list_texts(folder)]
        if not names:
            continue
        if Location.parse(folder).name in _UNLABELLED:
            notes.append(f"{folder}: not read, its texts have no class")
        elif all(map(is_text_name, names)) and not any(map(_is_data, names)):
            classes.append(folder)
    return classes, notes


def _no_data(uri: str, files: Sequence[str], folders: Sequence[str]) -> DataError:
    seen = _names([*files, *(f"{Location.parse(folder).name}/" for folder in folders)])
    known = ", ".join(suffix for form in FORMS.values() for suffix in form.suffixes)
    return DataError(
        f"{uri}: no data files in this folder ({known}), and no folder of texts for each class; "
        f"it holds {seen}"
    )


def _names(files: Sequence[str]) -> str:
    if not files:
        return "nothing"
    more = f" and {len(files) - 6:,} more" if len(files) > 6 else ""
    ends = ["/" if file.endswith("/") else "" for file in files]
    return (
        ", ".join(Location.parse(f).name + end for f, end in zip(files[:6], ends, strict=False))
        + more
    )


def _is_data(name: str) -> bool:
    suffix = file_suffix(name)
    return any(suffix in form.suffixes for form in FORMS.values())
