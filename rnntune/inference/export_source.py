"""What an export is made of: a model's weights, vocabulary and the rows that it is checked on."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rnntune import storage
from rnntune.config.schema import ModelConfig
from rnntune.data.batching import EncodedRows
from rnntune.data.cache import MANIFEST
from rnntune.data.prepared import PreparedDataset, ShardRef, read_manifest, split_refs
from rnntune.data.preprocess import data_fingerprint
from rnntune.data.vocabulary import UNKNOWN, Lookup, load_vocab
from rnntune.errors import RnntuneError
from rnntune.inference.classifier import TextClassifier
from rnntune.inference.exported import ExportedClassifier, ExportMetadata
from rnntune.inference.low_rank import WordTables
from rnntune.inference.ngram_choice import KeptFeatures, choose_features
from rnntune.inference.onnx_builder import FloatArray, Precision
from rnntune.inference.onnx_graph import GraphMember, build_ensemble, build_model
from rnntune.inference.own_split import own_data
from rnntune.inference.tokenizer_file import build_tokenizer
from rnntune.model.ensemble import Ensemble, Network
from rnntune.model.ngrams import framed_letters
from rnntune.training.model_metadata import ModelMetadata
from rnntune.training.run_folder import RunFolder
from rnntune.training.saved_model import read_model

if TYPE_CHECKING:
    import onnx

__all__ = ["ExportSource", "Form", "read_source"]
_MAX_ROWS = 20_000
_MAX_COUNTED_ROWS = 200_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
    """How much of a model an export keeps.

    Args:
        precision: bits of its numbers.
        num_words: words of the vocabulary; the rest become unknown. None: all.
        rank: numbers of a word that the recurrent layers read; None: all.
        pieces: bytes that stand for these numbers, each for as many; None: each has its own.
        ngram_share: of the features of the n-gram branch, those that are kept; None: all.
    """

    precision: Precision = dataclasses.field(default_factory=Precision)
    num_words: int | None = None
    rank: int | None = None
    pieces: int | None = None
    ngram_share: float | None = None

    @property
    def table_bits(self) -> int:
        """Bits of a number of a word, of pieces as many as come on one."""
        if self.pieces and self.rank:
            return max(1, 8 * self.pieces // self.rank)
        return self.precision.tables


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSource:
    """A trained model and the rows to check its export on.

    Args:
        classifier: the model.
        words: its vocabulary, in the order of ids.
        weights: its tensors by name, of an ensemble those of its first network.
        members: the networks of an ensemble; empty: there is one network.
        rows: validation rows of its run; None: the cache does not have them.
        counts: int64 (words,), how often training rows have each word; None: not known.
    """

    classifier: TextClassifier
    words: tuple[str, ...]
    weights: Mapping[str, FloatArray]
    rows: EncodedRows | None
    counts: npt.NDArray[np.int64] | None = None
    members: tuple[GraphMember, ...] = ()

    @functools.cached_property
    def tables(self) -> WordTables:
        """The rows of its words in fewer numbers."""
        return WordTables(self.weights, len(self.words), self.counts)

    def build(self, form: Form) -> ExportedClassifier:
        """The export of a form, without what was measured; of an ensemble with all its words."""
        description = self.classifier.description
        words = [self.words[number] for number in self.kept_words(form)]
        graph = self._ensemble_graph(form) if self.members else self._graph(form)
        tokenizer = build_tokenizer(
            words,
            description.tokenizer,
            clean=description.clean,
            max_length=description.max_length,
        )
        return ExportedClassifier(
            graph.SerializeToString(),
            tokenizer.to_str(),
            ExportMetadata(
                classes=description.classes,
                max_length=description.max_length,
                text_columns=description.text_columns,
                label_column=description.label_column,
                tokenizer=description.tokenizer,
                clean=description.clean,
                temperature=description.temperature,
                table_bits=form.table_bits,
                matrix_bits=form.precision.matrices,
                num_words=len(words),
                checks={},
                version=description.version,
                label_delimiter=description.label_delimiter,
                task=description.task,
                thresholds=description.thresholds,
            ),
        )

    def _graph(self, form: Form) -> "onnx.ModelProto":
        description = self.classifier.description
        config = description.model
        ids = self.kept_words(form)
        words = [self.words[number] for number in ids]
        weights, coded = dict(self.weights), None
        if form.rank is not None:
            weights, coded = self.tables.merged(form.rank, form.pieces)
        weights, num_trained = self._cut(weights, ids)
        return build_model(
            weights,
            config,
            framed_letters(words[:num_trained]) if config.letter_buckets else None,
            temperature=description.temperature,
            task=description.task,
            precision=form.precision,
            coded=coded and coded.take(ids),
            kept=_features(weights, config, form.ngram_share),
        )

    def _ensemble_graph(self, form: Form) -> "onnx.ModelProto":
        assert form == Form(precision=form.precision)
        description = self.classifier.description
        words = self.words[: len(self.weights["embedding.weight"])]
        has_letters = any(member.config.letter_buckets for member in self.members)
        return build_ensemble(
            self.members,
            framed_letters(words) if has_letters else None,
            temperature=description.temperature,
            task=description.task,
            precision=form.precision,
        )

    def kept_words(self, form: Form) -> npt.NDArray[np.int64]:
        """Ids of the words that a form keeps, the rising order of which becomes their new ids.

        Numbers of hashed n-grams follow from the ids of words, so with a branch of n-grams the
        first words are kept; else those without which the network would read most else.
        """
        size = form.num_words or len(self.words)
        if self.classifier.description.model.ngrams or size >= len(self.words):
            return np.arange(min(size, len(self.words)))
        return np.sort(self.tables.order[:size])

    def encode_again(self, rows: EncodedRows, form: Form) -> EncodedRows:
        """Encoded rows with the ids of the words that a form keeps."""
        kept = self.kept_words(form)
        new = np.full(len(self.words), UNKNOWN, dtype=np.int32)
        new[kept] = np.arange(len(kept), dtype=np.int32)
        return dataclasses.replace(rows, ids=new[rows.ids])

    def _cut(
        self, weights: dict[str, FloatArray], ids: npt.NDArray[np.int64]
    ) -> tuple[dict[str, FloatArray], int]:
        """Weights of some words, and how many of these have rows that were trained."""
        num_trained = len(self.weights["embedding.weight"])
        trained = ids[ids < num_trained]
        has_all = len(weights["embedding.weight"]) == len(self.words)
        weights["embedding.weight"] = weights["embedding.weight"][ids if has_all else trained]
        if "frozen.weight" in weights:
            weights["frozen.weight"] = weights["frozen.weight"][ids]
        for name in ("ngrams.table.weight", "ngrams.idf"):
            if name in weights:  # words are its first features
                value = weights[name]
                weights[name] = np.concatenate([value[trained], value[num_trained:]])
        return weights, len(trained)


def _features(
    weights: Mapping[str, FloatArray], config: ModelConfig, share: float | None
) -> KeptFeatures | None:
    if share is None or not config.ngrams:
        return None
    num_features = len(weights["ngrams.idf"])
    first_letter = num_features - config.letter_buckets
    first_ngram = first_letter - (config.ngram_buckets if config.ngrams > 1 else 0)
    return choose_features(weights, [first_ngram, first_letter], share)


def read_source(uri: str) -> ExportSource:
    """Read a run or a model, and the run's validation rows if the cache has them.

    Args:
        uri: a run folder, or a model folder.

    Raises:
        RnntuneError: there is no whole model.
    """
    model, vocab_text, description = read_model(uri)
    words = load_vocab(vocab_text)
    members = _members(model, description)
    rows, counts = _own_rows(uri, description.classes, vocab_text)
    return ExportSource(
        classifier=TextClassifier(model, Lookup(words), description),
        words=tuple(words),
        weights=members[0].weights,
        rows=rows,
        counts=counts,
        members=members if description.members else (),
    )


def _members(model: Network, description: ModelMetadata) -> tuple[GraphMember, ...]:
    """The networks of a model."""
    networks = model.members if isinstance(model, Ensemble) else [model]
    total = sum(each.weight for each in description.networks)
    return tuple(
        GraphMember(
            weights={name: value.numpy() for name, value in network.state_dict().items()},
            config=each.model,
            share=each.weight / total,
        )
        for network, each in zip(networks, description.networks, strict=True)
    )


def _own_rows(
    uri: str, classes: tuple[str, ...], vocab_text: str
) -> tuple[EncodedRows | None, npt.NDArray[np.int64] | None]:
    """Validation rows of a run and the counts of words in its training rows, from the cache."""
    try:
        prepared = _prepared(uri)
        if prepared is None or prepared.classes != classes or prepared.vocab_text() != vocab_text:
            return None, None
        parts = list(_read(split_refs(prepared, "validation"), _MAX_ROWS))
        counts = np.zeros(prepared.num_words, dtype=np.int64)
        for rows in _read(split_refs(prepared, "train"), _MAX_COUNTED_ROWS):
            counts += np.bincount(rows.ids, minlength=len(counts))
    except RnntuneError:  # the source or the cache has gone since
        return None, None
    return (_first_rows(EncodedRows.concatenate(parts)) if parts else None), counts


def _read(parts: Sequence[ShardRef], num_rows: int) -> Iterator[EncodedRows]:
    """The rows of the first parts, at least as many as are wanted."""
    for part in parts:
        if num_rows > 0:
            rows = part.read()
            num_rows -= len(rows)
            if len(rows):
                yield rows


def _first_rows(rows: EncodedRows) -> EncodedRows:
    lengths = rows.lengths[:_MAX_ROWS]
    return EncodedRows(
        ids=rows.ids[: int(lengths.sum())], lengths=lengths, labels=rows.labels[:_MAX_ROWS]
    )


def _prepared(uri: str) -> PreparedDataset | None:
    """The prepared data of a run, if the cache has it."""
    data = own_data(uri).data
    marker = RunFolder(uri).marker()
    for fingerprint in (marker.fingerprint if marker else None, None):
        name = fingerprint or data_fingerprint(data)
        manifest = storage.join(data.cache_dir, "prepared", name, MANIFEST)
        if storage.exists(manifest):
            return read_manifest(manifest)
    return None
