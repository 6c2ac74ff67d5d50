"""The Ray Data pipeline: read, check, tokenize, count, encode, split and cache.

Two passes over blocks of rows. The first tokenizes and counts; only each block's distinct
words and their counts reach the driver, which merges them into the vocabulary. The second turns
the blocks' tokens into ids and writes them to the cache. A cache entry is complete when its
`manifest.json` is there, which is written last; the files it names are never written again.
"""

import dataclasses
import hashlib
import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rnntune import __version__, cache, cluster, sources, storage
from rnntune.config import DataConfig
from rnntune.encoding import MAX_PROBLEMS, SPLITS, encode_block, tokenize_block
from rnntune.errors import DataError, RnntuneError

__all__ = ["prepare", "users_error"]

_FORMAT = 1
_SUMMARIZED = ["test", "file", "first_row", "num_rows", "names", "name_rows", "trained_names"]
_SUMMARIZED += ["num_problems", "problems"]


def prepare(
    data: DataConfig, tell: Callable[[str], None] = lambda _: None, *, require_test: bool = True
) -> cache.Prepared:
    """Prepare the data of a configuration, or find it in the cache.

    Needs a connected Ray cluster unless the data is in the cache.

    Args:
        data: where the text is and what becomes of it.
        tell: called with a line now and then.
        require_test: refuse data without a test split.

    Raises:
        DataError: no such data, rows that cannot be used, a class that training rows lack.
    """
    source = sources.resolve(data)
    fingerprint = _fingerprint(data, source)
    entry = storage.join(data.cache_dir, "prepared", fingerprint)
    manifest = storage.join(entry, "manifest.json")
    if storage.exists(manifest):
        return cache.describe(json.loads(storage.read_text(manifest)), from_cache=True)
    place = storage.join(entry, uuid.uuid4().hex[:12])
    try:
        content = _Preparation(data, source, place, tell).run(fingerprint)
        if require_test and not content["splits"]["test"]["num_rows"]:
            raise DataError(f"{data.source}: no test rows; set data.test_source or test_fraction")
        storage.write_text(manifest, json.dumps(content, indent=1))
    except BaseException:
        storage.delete(place)
        raise
    return cache.describe(content, from_cache=False)


def _fingerprint(data: DataConfig, source: sources.Source) -> str:
    settings = dataclasses.asdict(data)
    for name in ("cache_dir", "source", "test_source", "format"):
        settings.pop(name)
    parts = [_FORMAT, __version__, settings, sources.fingerprint(source)]
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


class _Preparation:
    def __init__(
        self, data: DataConfig, source: sources.Source, place: str, tell: Callable[[str], None]
    ) -> None:
        self.data, self.source, self.place, self.tell = data, source, place, tell

    def run(self, fingerprint: str) -> dict[str, Any]:
        import ray.data

        from rnntune import text

        cluster.quiet(logging.getLogger("ray").level < logging.ERROR)  # ray.data's own set-up
        start = time.perf_counter()
        spilled_before = cluster.spilled_bytes()
        try:
            blocks = self._tokenized()
        except ray.exceptions.RayError as error:
            raise users_error(error) from error
        summary = self._summarize(blocks)
        rows_per_s = summary.num_rows / (time.perf_counter() - start)
        classes = self._classes(summary)
        self._refuse_bad_rows(summary, classes)
        self.tell(f"read {summary.num_rows:,} rows, {rows_per_s:,.0f} rows/s")
        words = text.build_vocab(summary.counts(), self.data.max_size, self.data.min_frequency)
        storage.write_text(storage.join(self.place, "vocab.txt"), text.save_vocab(words))
        settings = {
            "words": ray.put(pa.array(words.get_itos())),
            "labels": self._labels(classes),
            "place": self.place,
            "max_length": self.data.max_length,
        }
        written: list[dict[str, Any]] = []
        encoded = blocks.map_batches(
            encode_block, batch_size=1, batch_format="pyarrow", fn_kwargs=settings
        )
        for table in encoded.iter_batches(batch_size=None, batch_format="pyarrow"):
            written += table.to_pylist()
        if spilled := cluster.spilled_bytes() - spilled_before:
            self.tell(
                f"the rows did not fit the object store: {spilled / 1e6:,.0f} MB were spilled to "
                "disk meanwhile"
            )
        written.sort(key=lambda part: (part["test"], part["file"], part["first_row"]))
        splits = {
            name: _split(written, self.place, number, len(classes))
            for number, name in enumerate(SPLITS)
        }
        _check_classes(self.data.source, splits["train"], classes)
        return {
            "place": self.place,
            "fingerprint": fingerprint,
            "classes": list(classes),
            "splits": splits,
            "num_skipped": summary.num_rows - sum(part["num_rows"] for part in written),
            "problems": summary.problems[:MAX_PROBLEMS],
            "num_words": len(words),
            "clean": self.source.clean,
            "rows_per_s": rows_per_s,
        }

    def _tokenized(self) -> Any:
        data, source = self.data, self.source
        settings = {
            "clean": source.clean,
            "seed": data.seed,
            "validation_fraction": data.validation_fraction,
            "test_fraction": 0.0 if source.test else data.test_fraction,
        }
        both = []
        for files, is_test in ((source.train, False), (source.test, True)):
            if files:
                rows: Any = sources.read(source, files)
                both.append(
                    rows.map_batches(
                        tokenize_block,
                        batch_size=None,
                        batch_format="pyarrow",
                        fn_kwargs={**settings, "test": is_test},
                    )
                )
        blocks = both[0].union(*both[1:]) if len(both) > 1 else both[0]
        return blocks.materialize()

    def _summarize(self, blocks: Any) -> "_Summary":
        summary = _Summary()
        small = blocks.select_columns([*_SUMMARIZED, "words", "counts"])
        for table in small.iter_batches(batch_size=None, batch_format="pyarrow"):
            summary.add(table)
        return summary

    def _classes(self, summary: "_Summary") -> tuple[str, ...]:
        if self.source.class_names:
            return tuple(self.source.class_names)
        names = sorted(summary.trained_names, key=_by_number)
        if len(names) < 2:
            found = f"only {names[0]!r}" if names else "none"
            raise DataError(
                f"{self.data.source}: a classifier needs two classes, "
                f"the training rows have {found}"
            )
        return tuple(names)

    def _labels(self, classes: Sequence[str]) -> list[str]:
        """The classes as the labels of the data are written."""
        if self.source.format == "ag_news":
            return [str(number + 1) for number in range(len(classes))]
        return list(classes)

    def _refuse_bad_rows(self, summary: "_Summary", classes: Sequence[str]) -> None:
        known = set(self._labels(classes))
        for name, (key, where) in summary.first_rows.items():
            if name not in known:
                summary.found.append((key, f"{where}: label {name!r} is in no training row"))
        summary.found.sort()
        summary.problems = [problem for _, problem in summary.found]
        if summary.found and self.data.on_bad_rows == "error":
            num = max(summary.num_problems, len(summary.found))
            more = f" ({num - 1} more bad rows)" if num > 1 else ""
            raise DataError(
                f"{summary.problems[0]}{more}; data.on_bad_rows: skip leaves such rows out"
            )


def users_error(error: BaseException) -> BaseException:
    """The user's mistake that a failed task ran into, if it was one, else the error itself."""
    inner: BaseException | None = error
    while inner is not None:
        cause = getattr(inner, "cause", None)
        if isinstance(cause, RnntuneError):
            return DataError(RnntuneError.reason(cause))
        inner = inner.__cause__ or (cause if isinstance(cause, BaseException) else None)
    return error


def _by_number(name: str) -> tuple[int, int, str]:
    return (0, int(name), "") if name.lstrip("-").isdecimal() else (1, 0, name)


class _Summary:
    """What the driver keeps of the first pass: counts of words, names of labels, problems."""

    def __init__(self) -> None:
        self.num_rows = self.num_problems = 0
        self.found: list[tuple[tuple[Any, ...], str]] = []
        self.problems: list[str] = []
        self.trained_names: set[str] = set()
        self.first_rows: dict[str, tuple[tuple[Any, ...], str]] = {}
        self._counts: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        for block in table.select(_SUMMARIZED).to_pylist():
            key = (block["test"], block["file"])
            self.num_rows += block["num_rows"]
            self.num_problems += block["num_problems"]
            self.trained_names.update(block["trained_names"])
            for name, row in zip(block["names"], block["name_rows"], strict=True):
                first = ((*key, row), f"{block['file']}: row {row}")
                self.first_rows[name] = min(first, self.first_rows.get(name, first))
            self.found += [
                ((*key, p["row"]), f"{block['file']}: row {p['row']}: {p['reason']}")
                for p in block["problems"]
            ]
        flat = {n: pc.list_flatten(table[n].combine_chunks()) for n in ("words", "counts")}
        self._counts.append(pa.table(flat))
        if len(self._counts) == 16:
            self._counts = [self._merged()]

    def _merged(self) -> pa.Table:
        counted = pa.concat_tables(self._counts).group_by("words").aggregate([("counts", "sum")])
        return counted.rename_columns({"counts_sum": "counts"})

    def counts(self) -> dict[str, int]:
        """Occurrences of each word in the training rows."""
        table = self._merged()
        return dict(zip(table["words"].to_pylist(), table["counts"].to_pylist(), strict=True))


def _split(
    written: Sequence[Mapping[str, Any]], place: str, split: int, num_classes: int
) -> dict[str, Any]:
    parts = [part for part in written if part["split"] == split]
    longest = max((len(part["length_rows"]) for part in parts), default=1)
    lengths = np.zeros(longest, dtype=np.int64)
    classes = np.zeros(num_classes, dtype=np.int64)
    for part in parts:
        lengths[: len(part["length_rows"])] += part["length_rows"]
        classes += part["class_rows"]
    return {
        "files": [storage.join(place, part["place"]) for part in parts],
        "file_rows": [part["num_rows"] for part in parts],
        **{
            name: sum(part[name] for part in parts)
            for name in ("num_rows", "num_tokens", "num_known", "num_cut")
        },
        "class_rows": classes.tolist(),
        "length_rows": lengths.tolist(),
    }


def _check_classes(source: str, train: Mapping[str, Any], classes: Sequence[str]) -> None:
    missing = [n for n, rows in zip(classes, train["class_rows"], strict=True) if not rows]
    if len(classes) - len(missing) < 2 or missing:
        names = ", ".join(map(repr, missing))
        raise DataError(f"{source}: no training row of class {names}")
