"""What can be refused at once: checks of the first rows, before anything slow is started."""

import itertools

import pyarrow.compute as pc

from rnntune.config.schema import DataConfig
from rnntune.data.formats.schema import BLOCK_ROWS
from rnntune.data.label_checks import bad_rows_error, check_number_spelling, check_two_classes
from rnntune.data.sources import Source, read_blocks, resolve_source
from rnntune.errors import DataError

__all__ = ["check_source"]


def check_source(data: DataConfig) -> Source:
    """Resolve a source and read the first rows of the first file of each split.

    Raises:
        DataError: as `resolve_source`, or a row is bad and bad rows are not to be skipped.
    """
    source = resolve_source(data)
    if source.format != "sample":
        for files in (source.train, source.validation, source.test):
            if files:
                _check_first_rows(source, files, data)
    return source


def _check_first_rows(source: Source, files: tuple[str, ...], data: DataConfig) -> None:
    blocks = list(itertools.islice(read_blocks(source, files[0]), 1))
    if not blocks:
        raise DataError(f"{files[0]}: no rows")
    block = blocks[0]
    bad = block.filter(pc.is_valid(block["problem"])).select(["row", "problem"]).to_pylist()
    reasons = [f"{files[0]}: row {row['row']}: {row['problem']}" for row in bad]
    if reasons and data.on_bad_rows == "error":
        raise bad_rows_error(reasons[0], len(reasons), block.num_rows)
    is_all = len(files) == 1 and block.num_rows < BLOCK_ROWS
    if files is source.train and is_all and source.class_names is None:
        good = block.filter(pc.is_null(block["problem"]))
        firsts: dict[str, str] = {}
        for row, label in zip(good["row"].to_pylist(), good["label"].to_pylist(), strict=True):
            for name in label if isinstance(label, list) else [label]:
                firsts.setdefault(name, f"{files[0]}: row {row}")
        check_number_spelling(firsts)
        check_two_classes(data.source, list(firsts), block.num_rows, reasons)
