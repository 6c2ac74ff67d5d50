"""Where rows come from: the built-in sample, AG News, or files of several forms.

Files are local paths or URIs of pyarrow file systems, compressed if their names say so.
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from rnntune.config.schema import DataConfig
from rnntune.data.columns import ResolvedColumns, resolve_columns
from rnntune.data.discovery import find_files, find_splits
from rnntune.data.file_listing import file_digest, file_suffix
from rnntune.data.formats.records import FORMS, read_rows
from rnntune.data.formats.schema import (
    BLOCK_BYTES,
    BLOCK_ROWS,
    ROW_SCHEMA,
    FormatName,
    RecordFormat,
)
from rnntune.data.label_form import check_one_label, has_several_labels
from rnntune.data.recognition import (
    AG_NEWS_CLASSES,
    BINARY_FORMS,
    check_encoding,
    detect_format,
    read_class_names,
)
from rnntune.data.sample_corpus import TOPICS, generate
from rnntune.data.splits import SplitFiles
from rnntune.errors import DataError
from rnntune.location import Location

if TYPE_CHECKING:
    import ray.data

__all__ = ["Source", "read_blocks", "read_dataset", "resolve_source", "source_fingerprint"]
_EXAMINED = 20  # files whose first lines are looked at; on remote storage each takes a while


@dataclass(frozen=True, kw_only=True)
class Source:
    """Files of one form and how their rows are to be understood."""

    train: tuple[str, ...]
    """Files of the training split, local paths or URIs."""
    test: tuple[str, ...] = ()
    """Files of the test split; empty if the source has none."""
    validation: tuple[str, ...] = ()
    """Files of the validation split; empty if the source has none."""
    format: Literal["sample"] | FormatName
    """Form of all the files."""
    text_columns: tuple[str, ...] = ()
    """Columns that make the text; empty where the form fixes them."""
    label_column: str | None = None
    """Column of the label; None where the form fixes it, or there are several."""
    indicator_columns: tuple[str, ...] = ()
    """Several columns of 0 and 1 in place of the label's; see `RecordFormat`."""
    label_delimiter: str | None = None
    """What separates labels in the label's column; see `RecordFormat`."""
    multi_label: bool = False
    """Whether a row has a list of labels, perhaps an empty one."""
    encoding: str = "auto"
    """Encoding of text files; see `RecordFormat`."""
    delimiter: str = "auto"
    """What separates columns; see `RecordFormat`."""
    header: bool = True
    """Whether the first record of CSV files names the columns."""
    clean: bool = False
    """Whether entities and line breaks of the text are to be repaired."""
    class_names: tuple[str, ...] | None = None
    """Names of the labels '1', '2', ... (or, of the sample, the labels); None if not known."""
    notes: tuple[str, ...] = ()
    """What was chosen where the settings leave a choice, a line each."""

    @property
    def files(self) -> tuple[str, ...]:
        """The files of all splits."""
        return (*self.train, *self.validation, *self.test)

    def record_format(self) -> RecordFormat:
        """How the records of the files are to be understood."""
        if self.format == "sample":
            raise ValueError("the sample has no files")
        return RecordFormat(
            format=self.format,
            text_columns=self.text_columns,
            label_column=self.label_column or "",
            indicator_columns=self.indicator_columns,
            label_delimiter=self.label_delimiter,
            multi_label=self.multi_label,
            num_classes=len(self.class_names or AG_NEWS_CLASSES),
            encoding=self.encoding,
            delimiter=self.delimiter,
            header=self.header,
        )


def resolve_source(data: DataConfig) -> Source:
    """Find the files of the configured data and their form; AG News is downloaded if need be.

    Raises:
        DataError: there are no such files, their form or columns are not clear, their encoding
            is another one, a file is in two splits, or a download failed.
    """
    if data.source == "sample":
        check_one_label(data, "sample")
        for split, uri in (("test", data.test_source), ("validation", data.validation_source)):
            if uri:
                raise DataError(
                    f"the sample is not read with other files: data.{split}_source {uri}"
                )
        return Source(
            train=("sample:train",),
            test=("sample:test",),
            format="sample",
            clean=bool(data.clean),
            class_names=TOPICS,
        )
    files = _split_files(data)
    form = _common_format(files, data)
    notes = [*files.notes, *_check_encodings(files, form, data)]
    source = Source(
        train=files.train,
        validation=files.validation,
        test=files.test,
        format=form,
        encoding=data.encoding,
        delimiter=data.delimiter,
        clean=bool(data.clean),
        notes=tuple(notes),
    )
    if form == "ag_news":
        check_one_label(data, form)
        names = read_class_names(files.train[0]) or AG_NEWS_CLASSES
        return dataclasses.replace(source, clean=data.clean is not False, class_names=names)
    if FORMS[form].text_columns is None:
        columns = resolve_columns(files.train[0], source.record_format(), data)
        source = _with_columns(source, columns)
    return _with_label_sets(source, data)


def _with_columns(source: Source, columns: ResolvedColumns) -> Source:
    label = columns.label_column
    several = () if isinstance(label, str) else label
    return dataclasses.replace(
        source,
        text_columns=columns.text_columns,
        label_column=label if isinstance(label, str) else None,
        indicator_columns=several,
        class_names=several or None,
        header=columns.header,
        notes=(*source.notes, *([columns.note] if columns.note else [])),
    )


def _with_label_sets(source: Source, data: DataConfig) -> Source:
    """The source, with whether its rows may have several labels."""
    if not has_several_labels(source.files, source.record_format(), data):
        return source
    return dataclasses.replace(source, multi_label=True, label_delimiter=data.label_delimiter)


def _split_files(data: DataConfig) -> SplitFiles:
    """The files of each split; none is in two of them."""
    uri = data.source
    if uri == "ag_news":
        from rnntune.data.ag_news import download_ag_news

        uri = download_ag_news(data.cache_dir)
    files = find_splits(uri)
    for split, given in (("test", data.test_source), ("validation", data.validation_source)):
        if given:
            files = dataclasses.replace(files, **{split: find_files(given)})
    owners: dict[str, str] = {}
    for split in ("train", "validation", "test"):
        for file in getattr(files, split):
            owner = owners.setdefault(str(Location.parse(file).resolve()), split)
            if owner != split:
                raise DataError(f"{file}: both a {owner} and a {split} file (data.{split}_source)")
    return files


def _common_format(files: SplitFiles, data: DataConfig) -> FormatName:
    """The form that all files have, as the first ones of each suffix show."""
    first = files.train[0]
    form = detect_format(first, data)
    same = {"tsv": "csv", "json": "jsonl"}
    num_seen: Counter[str] = Counter()
    for file in (*files.train, *files.validation, *files.test):
        num_seen[file_suffix(file)] += 1
        if file == first or num_seen[file_suffix(file)] > _EXAMINED:
            continue
        other = detect_format(file, data)
        if same.get(other, other) != same.get(form, form):
            raise DataError(
                f"{file} is {other}, but {first} is {form}; all must be of one form (data.format)"
            )
    return form


def _check_encodings(files: SplitFiles, form: FormatName, data: DataConfig) -> list[str]:
    """Check the first file of each split; gives a line on one that is read only in part."""
    notes = []
    for split in (files.train, files.validation, files.test):
        if not split or form in BINARY_FORMS:
            continue
        encoding = check_encoding(split[0], data.encoding)
        if encoding:
            message = f"{split[0]}: not UTF-8; data.encoding: {encoding} reads it"
            if data.on_bad_rows == "error":
                raise DataError(message)
            notes.append(message)
    return notes


def source_fingerprint(source: Source) -> str:
    """A digest that changes with the content of a file, its name, order, split or form.

    Files on other machines are known by size and time.

    Returns:
        32 hexadecimal digits, the same in every process.

    Raises:
        DataError: a file cannot be read.
    """
    known: list[Any] = [source.format, source.text_columns, source.label_column, source.class_names]
    known += [source.encoding, source.delimiter, source.header]
    if source.multi_label:
        known += [source.indicator_columns, source.label_delimiter]
    known += [
        [_known(file) for file in files] for files in (source.train, source.test, source.validation)
    ]
    text = json.dumps(known, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def read_blocks(source: Source, file: str) -> Iterator[pa.Table]:
    """The rows of one file as a stream of tables.

    Yields:
        Tables of up to `records.BLOCK_ROWS` rows: `file`, `row` (from 1), `text`, `label`,
        `problem` (null, or why the row cannot be used).

    Raises:
        DataError: the file cannot be read, has no rows or lacks a column.
    """
    if source.format == "sample":
        yield from _sample_blocks(file)
        return
    yield from read_rows(file, source.record_format())


def read_dataset(source: Source, files: Sequence[str]) -> "ray.data.Dataset":
    """The rows of files as a dataset, in order; see `read_blocks` for the columns.

    One task streams each file. Blocks hold `BLOCK_ROWS` rows, fewer where texts are
    long, so that the steps after this one run in parallel over a single file too.
    """
    import ray.data

    def rows(batch: pa.Table) -> Iterator[pa.Table]:
        for file in batch.column("file").to_pylist():
            yield from read_blocks(source, file)

    names = [{"file": file} for file in files]
    dataset = ray.data.from_items(names, override_num_blocks=len(names))
    # The context belongs to this dataset and those made of it. Order is wanted for a
    # reproducible run; small blocks leave a task while it still reads.
    dataset.context.execution_options.preserve_order = True
    dataset.context.target_max_block_size = BLOCK_BYTES
    # Half a CPU: a step that asks for another share is not fused with this one, and so runs in
    # parallel over the blocks of one file.
    streamed = dataset.map_batches(rows, batch_size=None, batch_format="pyarrow", num_cpus=0.5)
    return streamed.repartition(target_num_rows_per_block=_block_rows(source, files[0]))


def _block_rows(source: Source, file: str) -> int:
    """Rows of a block: `BLOCK_ROWS`, fewer where texts are long."""
    first = next(read_blocks(source, file))
    row_bytes = int(first["text"].nbytes) // max(len(first), 1)
    return max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(row_bytes, 1)))


def _known(file: str) -> list[Any]:
    if file.startswith("sample:"):
        rows = json.dumps(generate(_sample_split(file)))
        return [file, hashlib.blake2b(rows.encode()).hexdigest()]
    return file_digest(file)


def _sample_split(file: str) -> Literal["train", "test"]:
    return "test" if file == "sample:test" else "train"


def _sample_blocks(file: str) -> Iterator[pa.Table]:
    rows = generate(_sample_split(file))
    for start in range(0, len(rows), BLOCK_ROWS):
        labels, texts = zip(*rows[start : start + BLOCK_ROWS], strict=True)
        num_rows = len(labels)
        columns = [
            pa.array([file] * num_rows, pa.string()),
            pa.array(range(start + 1, start + num_rows + 1), pa.int64()),
            pa.array(texts, pa.string()),
            pa.array(labels, pa.string()),
            pa.nulls(num_rows, pa.string()),
        ]
        yield pa.table(columns, schema=ROW_SCHEMA)
