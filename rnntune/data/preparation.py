"""Preparation: read, check, tokenize, count, encode and split.

Two passes over blocks of rows. The first tokenizes and counts; each block's distinct words and
their counts are merged into the vocabulary, on the driver or, where there are many, by tasks. The
second turns the blocks' tokens into ids and writes them to the cache. Ray Data runs the passes;
small data goes through them in this process, with the same result.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rnntune import storage
from rnntune.config.auto import SMALL_ROWS, Choice, resolve_data, validation_share
from rnntune.config.schema import AUTO, DataConfig
from rnntune.data.block_summary import (
    ARRAYS,
    SCALARS,
    BlockSummary,
    check_classes,
    split_content,
)
from rnntune.data.block_tasks import MAX_PROBLEMS, recount_block, tokenize_blocks
from rnntune.data.cluster_counts import ClusterCounts
from rnntune.data.label_checks import (
    bad_rows_error,
    check_number_spelling,
    check_two_classes,
    label_notes,
    sort_labels,
)
from rnntune.data.loader import WINDOW_ROWS
from rnntune.data.passes import LocalPasses, RayPasses
from rnntune.data.sources import Source, read_blocks
from rnntune.data.stratification import SPLITS, TRAIN, Fractions, Reassigned
from rnntune.data.task import Task
from rnntune.data.tokenize import resolve_tokenizer
from rnntune.data.vocabulary import (
    SPECIALS,
    HashedVocabulary,
    build_vocab,
    save_vocab,
)
from rnntune.data.windows import plan_files, window_rows, write_index
from rnntune.data.word_counts import WordCounts, block_counts
from rnntune.data.word_vectors import FREQUENT_WORDS, installed_coverage, installed_words

__all__ = ["Preparation", "share_choice"]
_MOST_TOKENS = 10_000  # of a text, before `max_length` is chosen; it is never more


def share_choice(data: DataConfig, source: Source) -> Iterator[Choice]:
    """The part of the training rows that validates, where it is open.

    Word counts of the first pass are of training rows alone, so the rows are counted before it;
    no more of the files is read than shows that they are not few.
    """
    if data.validation_fraction != AUTO:
        return
    if source.validation:
        yield validation_share(SMALL_ROWS)  # of no account
        return
    blocks = (block for file in source.train for block in read_blocks(source, file))
    num_rows = 0
    while num_rows < SMALL_ROWS and (block := next(blocks, None)) is not None:
        num_rows += block.num_rows
    held_out = 0.0 if source.test else data.test_fraction
    yield validation_share(round(num_rows * (1 - held_out)))


class Preparation:
    """Both passes over a source.

    Args:
        data: settings.
        source: what is read.
        uri: folder of what is written.
        tell: called with a line now and then.
        passes: who takes the blocks through them.
    """

    def __init__(
        self,
        data: DataConfig,
        source: Source,
        uri: str,
        tell: Callable[[str], None],
        passes: LocalPasses | RayPasses,
    ) -> None:
        self.choices = [*share_choice(data, source)]
        chosen = {choice.name.removeprefix("data."): choice.value for choice in self.choices}
        data = dataclasses.replace(data, **chosen)
        self.data, self.source, self.uri, self.tell = data, source, uri, tell
        self.passes = passes
        self.tokenizer = resolve_tokenizer(data.tokenizer, source.format)
        self.fractions = Fractions(
            validation=0.0 if source.validation else data.validation_fraction,
            test=0.0 if source.test else data.test_fraction,
        )

    def run(self) -> tuple[dict[str, Any], DataConfig]:
        """Both passes.

        Returns:
            The manifest without its fingerprint, and the settings with what was chosen.
        """
        start = time.perf_counter()
        blocks = self._tokenized()
        counts = self.passes.word_counts(blocks)
        summary = self._summarize(blocks, counts)
        rows_per_s = summary.num_rows / (time.perf_counter() - start)
        self._refuse_bad_rows(summary)
        classes = self._classes(summary)
        self._refuse_bad_rows(summary, classes)
        self.tell(f"read {summary.num_rows:,} rows, {rows_per_s:,.0f} rows/s")
        reassigned = summary.class_hashes.reassigned()
        self._recount(blocks, reassigned, counts)
        data, of_words, words = self._choose(summary, counts)
        del counts  # of many words, with what the cluster holds of them
        storage.write_text(storage.join(self.uri, "vocab.txt"), save_vocab(words))
        shared = {
            "words": HashedVocabulary(words),
            "held_out": summary.held_out(),
            "reassigned": reassigned,
        }
        has_windows = summary.num_rows > WINDOW_ROWS
        blocks_uri = storage.join(self.uri, "blocks") if has_windows else self.uri
        written = self._encode(blocks, shared, data, classes, blocks_uri)
        splits = {
            name: split_content(written, self.uri, number, len(classes))
            for number, name in enumerate(SPLITS)
        }
        if has_windows:
            self._gather(written, splits, blocks_uri)
        check_classes(self.data.source, splits["train"], classes)
        self._report_repeated_texts(written)
        rows = np.add(*(splits[name]["class_rows"] for name in ("train", "validation")))
        for note in label_notes(dict(zip(classes, rows.tolist(), strict=True))):
            self.tell(note)
        content = {
            "uri": self.uri,
            "source": storage.mask_secret(self.data.source),
            "classes": list(classes),
            "splits": splits,
            "num_skipped": summary.num_rows - sum(part["num_rows"] for part in written),
            "problems": summary.problems[:MAX_PROBLEMS],
            **of_words,
            "clean": self.source.clean,
            "text_columns": list(self.source.text_columns or self.data.text_columns),
            "label_column": self.source.label_column or self.data.label_column,
            "label_delimiter": self.source.label_delimiter,
            "task": (Task.MULTI_LABEL if self.source.multi_label else Task.SINGLE_LABEL).value,
            "tokenizer": self.tokenizer,
            "rows_per_s": rows_per_s,
            "has_windows": has_windows,
        }
        return content, data

    def _choose(
        self, summary: BlockSummary, counts: WordCounts | ClusterCounts
    ) -> tuple[DataConfig, dict[str, Any], pa.StringArray]:
        """The settings with what depends on the data, what the manifest says of it, the words."""
        top = counts.top(FREQUENT_WORDS, 1)
        frequent = build_vocab(top, FREQUENT_WORDS, 1)[len(SPECIALS) :].to_pylist()
        totals = counts.totals()
        num_rows = summary.num_rows - summary.num_problems
        coverage = installed_coverage(frequent)
        choices = [
            *self.choices,
            *self._tokenizer_choice(),
            *resolve_data(self.data, num_rows, totals.num_tokens, coverage),
        ]
        chosen = {choice.name.removeprefix("data."): choice.value for choice in choices}
        data = dataclasses.replace(self.data, **chosen)
        top = counts.top(data.max_size, data.min_frequency)
        words = build_vocab(top, data.max_size, data.min_frequency)
        num_trained = len(words)
        words = pa.concat_arrays([words, installed_words(data.extra_words, words)])
        content = {
            "num_words": len(words),
            "num_trained_words": num_trained,
            "vector_coverage": coverage,
            "mean_letters": totals.mean_letters,
            "choices": [dataclasses.asdict(choice) for choice in choices],
        }
        return data, content, words

    def _encode(
        self,
        blocks: Any,
        shared: Mapping[str, Any],
        data: DataConfig,
        classes: Sequence[str],
        uri: str,
    ) -> list[dict[str, Any]]:
        """The second pass: what it says of each file that it wrote, in the order of the rows."""
        settings = {
            "fractions": self.fractions,
            "labels": self._labels(classes),
            "uri": uri,
            "max_length": data.max_length,
            "multi_label": self.source.multi_label,
        }
        written: list[dict[str, Any]] = []
        encoded = self.passes.encode(blocks, shared, settings)
        for table in encoded.iter_batches(batch_size=None, batch_format="pyarrow"):
            written += table.to_pylist()
        return sorted(written, key=lambda part: (part["origin"], part["file"], part["first_row"]))

    def _gather(
        self, written: Sequence[Mapping[str, Any]], splits: dict[str, Any], blocks_uri: str
    ) -> None:
        """The third pass: blocks to few files of windows, which the splits name in their place."""
        train = splits[SPLITS[TRAIN]]
        # Rows that are shuffled as a whole at each epoch need it not.
        shuffle = train["num_rows"] > WINDOW_ROWS
        settings = {
            "blocks_uri": blocks_uri,
            "uri": self.uri,
            "seed": self.data.seed,
            "most_rows": window_rows(train["num_rows"], train["num_tokens"]),
            "shuffle": shuffle,
        }
        gathered = self.passes.gather(
            plan_files(written, self.data.seed, shuffle=shuffle), settings
        )
        index = write_index(
            self.uri, list(gathered.iter_batches(batch_size=None, batch_format="pyarrow"))
        )
        by_file = index.group_by(["split", "file"], use_threads=False)
        rows: dict[str, dict[str, int]] = {name: {} for name in SPLITS}
        for line in by_file.aggregate([("num_rows", "sum")]).to_pylist():
            rows[SPLITS[line["split"]]][line["file"]] = line["num_rows_sum"]
        for name, file_rows in rows.items():
            splits[name]["files"] = [storage.join(self.uri, file) for file in file_rows]
            splits[name]["file_rows"] = list(file_rows.values())
        storage.delete(blocks_uri)

    def _tokenizer_choice(self) -> Iterator[Choice]:
        if self.data.tokenizer == AUTO:
            reason = f"data in the form {self.source.format}"
            yield Choice(name="data.tokenizer", value=self.tokenizer, reason=reason)

    def _tokenized(self) -> Any:
        data, source = self.data, self.source
        settings = {
            "clean": source.clean,
            "tokenizer": self.tokenizer,
            "max_tokens": _MOST_TOKENS if data.max_length == AUTO else data.max_length,
            "seed": data.seed,
            "fractions": self.fractions,
            "compare_texts": bool(source.validation or source.test),
        }
        parts = []
        for origin, files in enumerate((source.train, source.validation, source.test)):
            if files:
                rows: Any = self.passes.read(source, files)
                parts.append(
                    rows.map_batches(
                        tokenize_blocks,
                        batch_size=None,
                        batch_format="pyarrow",
                        fn_kwargs={**settings, "origin": origin},
                    )
                )
        blocks = parts[0].union(*parts[1:]) if len(parts) > 1 else parts[0]
        return blocks.materialize()

    def _recount(
        self, blocks: Any, reassigned: Reassigned, counts: WordCounts | ClusterCounts
    ) -> None:
        """Correct the counts of words where texts leave the training rows or come to them."""
        if not len(reassigned.hashes):
            return
        changes = blocks.map_batches(
            recount_block,
            batch_size=1,
            batch_format="pyarrow",
            fn_kwargs={"fractions": self.fractions, "reassigned": reassigned},
        )
        for table in changes.iter_batches(batch_size=None, batch_format="pyarrow"):
            counts.add(table)

    def _summarize(self, blocks: Any, counts: WordCounts | ClusterCounts) -> BlockSummary:
        summary = BlockSummary(self.fractions)
        small = blocks.select_columns([*SCALARS, *ARRAYS, *counts.columns])
        for table in small.iter_batches(batch_size=None, batch_format="pyarrow"):
            summary.add(table)
            if counts.columns:
                counts.add(block_counts(table))
        return summary

    def _report_repeated_texts(self, written: Sequence[Mapping[str, Any]]) -> None:
        for number, name in enumerate(SPLITS):
            if num := sum(part["num_repeated"][number] for part in written):
                rows = "row has its" if num == 1 else "rows have their"
                self.tell(f"{num:,} training {rows} text in the {name} rows, too")

    def _classes(self, summary: BlockSummary) -> tuple[str, ...]:
        if self.source.class_names:
            return tuple(self.source.class_names)
        names = sort_labels(summary.trained_names)
        check_number_spelling({name: where for name, (_, where) in summary.first_rows.items()})
        bad = [problem for _, problem in sorted(summary.found)]
        check_two_classes(self.data.source, names, summary.num_rows, bad)
        return tuple(names)

    def _labels(self, classes: Sequence[str]) -> list[str]:
        """The classes as the labels of the data are written."""
        if self.source.format == "ag_news":
            return [str(number + 1) for number in range(len(classes))]
        return list(classes)

    def _refuse_bad_rows(self, summary: BlockSummary, classes: Sequence[str] | None = None) -> None:
        """Refuse bad rows; once the classes are known, those of other classes, too."""
        if classes is not None:
            known = set(self._labels(classes))
            for name, (key, where) in summary.first_rows.items():
                if name not in known:
                    summary.found.append((key, f"{where}: label {name!r} is in no training row"))
        summary.found.sort()
        summary.problems = [problem for _, problem in summary.found]
        if summary.found and self.data.on_bad_rows == "error":
            num_bad = max(summary.num_problems, len(summary.found))
            raise bad_rows_error(summary.problems[0], num_bad, summary.num_rows)
