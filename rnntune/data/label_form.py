"""Whether rows of files may have several labels: by the settings, or by what the files hold."""

import itertools
from collections.abc import Sequence

import pyarrow as pa
from pyarrow import parquet as pq

from rnntune import storage
from rnntune.config.schema import DataConfig
from rnntune.data.formats.json_records import json_objects
from rnntune.data.formats.labelled_lines import has_label_sets
from rnntune.data.formats.schema import FormatName, RecordFormat
from rnntune.errors import DataError, RnntuneError

__all__ = ["check_one_label", "has_several_labels"]
_SAMPLE_ROWS = 1_000
_EXAMINED = 20  # files that are looked at; on remote storage each takes a while
_LISTS = ("json", "jsonl", "parquet")


def has_several_labels(files: Sequence[str], form: RecordFormat, data: DataConfig) -> bool:
    """Whether a row of files may have several labels, or none.

    Args:
        files: all of them.
        form: how to read them, its columns resolved.
        data: the settings.

    Raises:
        DataError: the settings say otherwise than the files.
    """
    if form.indicator_columns:
        return True
    if form.format in _LISTS and _holds_lists(files[0], form):
        where = f"{files[0]}: column {form.label_column!r} holds lists of labels"
        if data.label_delimiter is not None:
            raise DataError(f"{where}, so data.label_delimiter {data.label_delimiter!r} has no use")
        if data.multi_label is False:
            raise DataError(f"{where}, but data.multi_label is false")
        return True
    if form.format == "fasttext" and data.multi_label == "auto":
        some = any(has_label_sets(file, form.encoding) for file in files[:_EXAMINED])
        return some or data.label_delimiter is not None
    return data.multi_label is True or data.label_delimiter is not None


def check_one_label(data: DataConfig, form: FormatName | str) -> None:
    """Refuse settings for several labels of a form whose rows have one.

    Raises:
        DataError: there are such settings.
    """
    if data.multi_label is True or data.label_delimiter is not None or len(data.label_columns) > 1:
        name = "the sample" if form == "sample" else f"data in the form {form}"
        raise DataError(
            f"{data.source}: {name} has one label a row; leave out data.multi_label, "
            "data.label_delimiter and a data.label_column of several"
        )


def _holds_lists(file: str, form: RecordFormat) -> bool:
    """Whether the label's column holds lists, as the schema or most of the first records say."""
    try:
        if form.format == "parquet":
            filesystem, path = storage.locate(file)
            with filesystem.open_input_file(path) as stream:
                kind = pq.read_schema(stream).field(form.label_column).type
            return bool(
                pa.types.is_list(kind)
                or pa.types.is_large_list(kind)
                or pa.types.is_fixed_size_list(kind)
            )
        records = itertools.islice(json_objects(file, form.encoding), _SAMPLE_ROWS)
        labels = [record.get(form.label_column) for record, _ in records]
        num_lists = sum(isinstance(label, list) for label in labels)
        # A stray list among single labels is a bad row, a stray label among lists a set of one.
        return 2 * num_lists > sum(label is not None for label in labels)
    except (RnntuneError, OSError, UnicodeError, KeyError, pa.ArrowException):
        return False  # the reader says what is wrong, and in which row
