"""Where rows come from: the built-in sample, AG News, or files of several forms.

Files are local paths or URIs of pyarrow file systems, compressed if their names say so.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from rnntune import download, sample
from rnntune.config import DataConfig
from rnntune.errors import DataError
from rnntune.files import AG_NEWS_CLASSES, class_names, digest_of, find_files, form_of, splits
from rnntune.records import BLOCK_ROWS, ROW_SCHEMA, Form, read_columns, read_rows

if TYPE_CHECKING:
    import ray.data

__all__ = ["AG_NEWS_CLASSES", "Source", "find_files", "fingerprint", "form_of", "read"]
__all__ += ["read_blocks", "read_columns", "resolve"]

_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Source:
    """Files of one form and how their rows are to be understood."""

    train: tuple[str, ...]
    """Files of the training split, local paths or URIs."""
    test: tuple[str, ...] = ()
    """Files of the test split; empty if the source has none."""
    format: Literal["sample", "ag_news", "csv", "jsonl", "parquet"]
    """Form of all the files."""
    text_columns: tuple[str, ...] = ()
    """Columns that make the text; empty where the form fixes them."""
    label_column: str | None = None
    """Column of the label; None where the form fixes it."""
    clean: bool = False
    """Whether entities and line breaks of the text are to be repaired."""
    class_names: tuple[str, ...] | None = None
    """Names of the labels '1', '2', ... (or, of the sample, the labels); None if not known."""


def resolve(data: DataConfig) -> Source:
    """Find the files of the configured data and their form; AG News is downloaded if need be.

    Raises:
        DataError: there are no such files, their form is not clear, or a download failed.
    """
    if data.source == "sample":
        if data.test_source:
            raise DataError(f"the sample has its own test split, {data.test_source} is not read")
        return Source(
            train=("sample:train",),
            test=("sample:test",),
            format="sample",
            clean=bool(data.clean),
            class_names=sample.TOPICS,
        )
    place = download.ag_news(data.cache_dir) if data.source == "ag_news" else data.source
    train, test = splits(place)
    if data.test_source:
        test = find_files(data.test_source)
    forms = {file: form_of(file, data.format) for file in (*train, *test)}
    form = forms[train[0]]
    for file, other in forms.items():
        if other != form:
            raise DataError(f"{file} is {other}, but {train[0]} is {form}; all must be of one form")
    if form == "ag_news":
        clean = data.clean is not False
        names = class_names(train[0]) or AG_NEWS_CLASSES
        return Source(train=train, test=test, format=form, clean=clean, class_names=names)
    return Source(
        train=train,
        test=test,
        format=form,
        text_columns=data.text_columns,
        label_column=data.label_column,
        clean=bool(data.clean),
    )


def fingerprint(source: Source) -> str:
    """A digest that changes with the content of a file, its name, order, split or form.

    Files on other machines are known by size and time.

    Returns:
        32 hexadecimal digits, the same in every process.

    Raises:
        DataError: a file cannot be read.
    """
    known: list[Any] = [source.format, source.text_columns, source.label_column, source.class_names]
    known += [[_known(file) for file in files] for files in (source.train, source.test)]
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
    form = Form(
        format=source.format,
        text_columns=source.text_columns,
        label_column=source.label_column or "",
        num_classes=len(source.class_names or AG_NEWS_CLASSES),
    )
    yield from read_rows(file, form)


def read(source: Source, files: Sequence[str]) -> "ray.data.Dataset":
    """The rows of files as a dataset, in order; see `read_blocks` for the columns.

    One task streams each file. Blocks hold `records.BLOCK_ROWS` rows, so that the steps after
    this one run in parallel over a single file too.
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
    dataset.context.target_max_block_size = _BLOCK_BYTES
    # Half a CPU: a step that asks for another share is not fused with this one, and so runs in
    # parallel over the blocks of one file.
    streamed = dataset.map_batches(rows, batch_size=None, batch_format="pyarrow", num_cpus=0.5)
    return streamed.repartition(target_num_rows_per_block=BLOCK_ROWS)


def _known(file: str) -> list[Any]:
    if file.startswith("sample:"):
        rows = json.dumps(sample.generate(_sample_split(file)))
        return [file, hashlib.blake2b(rows.encode()).hexdigest()]
    return digest_of(file)


def _sample_split(file: str) -> Literal["train", "test"]:
    return "test" if file == "sample:test" else "train"


def _sample_blocks(file: str) -> Iterator[pa.Table]:
    rows = sample.generate(_sample_split(file))
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
