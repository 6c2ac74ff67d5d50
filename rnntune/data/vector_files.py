"""Word vectors as text: a word and its numbers a line, as GloVe and fastText publish them.

Files are read as a stream and never unpacked; of millions of lines only those of a vocabulary are
kept. The words of a vocabulary hold no space, those of a few files do (`glove.840B.300d`), so the
numbers are counted from the right.
"""

import collections
import itertools
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from rnntune.data.download import download_file
from rnntune.errors import DataError

__all__ = ["GLOVE_URL", "download_glove", "read_glove", "read_vectors"]
GLOVE_URL = "https://downloads.cs.stanford.edu/nlp/data"
# Source: https://nlp.stanford.edu/projects/glove/; SHA-256 of the archives as published for
# DataDeps, https://github.com/JuliaText/Embeddings.jl/blob/master/src/glove.jl
_ARCHIVES = {
    "6B": ("glove.6B.zip", "617afb2fe6cbd085c235baf7a465b96f4112bd7f7ccb2b2cbd649fed9cbcf2fb"),
    "42B": (
        "glove.42B.300d.zip",
        "03d5d7fa28e58762ace4b85fb71fe86a345ef0b5ff39f5390c14869da0fc1970",
    ),
    "840B": (
        "glove.840B.300d.zip",
        "c06db255e65095393609f19a4cfca20bf3a71e20cc53e892aafa490347e3849f",
    ),
    "twitter.27B": (
        "glove.twitter.27B.zip",
        "792af52f795d1a32c9842a3240f5f3fe5e941a8ff6df5eb0f9d668092ebc019c",
    ),
}
_DIMS = {
    "6B": (50, 100, 200, 300),
    "42B": (300,),
    "840B": (300,),
    "twitter.27B": (25, 50, 100, 200),
}
_LINE_BYTES = 1 << 18
_FIRST_LINES = 1_000  # by which the number of numbers is judged


def download_glove(name: str, cache_dir: str) -> Path:
    """Make sure that an archive of GloVe vectors is in the cache.

    `RNNTUNE_GLOVE_URL` in the environment names another place with the same archives.

    Args:
        name: such as `glove.6B.300d`.
        cache_dir: a local folder.

    Returns:
        The archive.

    Raises:
        DataError: there are no such vectors, or they cannot be downloaded.
    """
    corpus, dim = _parts(name)
    if dim not in _DIMS[corpus]:
        sizes = ", ".join(f"glove.{corpus}.{size}d" for size in _DIMS[corpus])
        raise DataError(f"there are no word vectors {name}; of this corpus there are {sizes}")
    archive, sha256 = _ARCHIVES[corpus]
    folder = Path(cache_dir) / "vectors"
    base = os.environ.get("RNNTUNE_GLOVE_URL", GLOVE_URL).rstrip("/")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error.strerror or error}") from error
    try:
        download_file(f"{base}/{archive}", folder / archive, sha256)
    except DataError as error:
        raise DataError(f"cannot load word vectors {name}: {error}") from error
    return folder / archive


def read_glove(archive: Path, name: str, words: Sequence[str]) -> npt.NDArray[np.float32]:
    """Vectors of an archive, which stays packed.

    Args:
        archive: as `download_glove` gives it.
        name: such as `glove.6B.300d`.
        words: the vocabulary.

    Returns:
        float32 (words, dim), zero where there is no vector.

    Raises:
        DataError: the archive is damaged or holds no such vectors.
    """
    try:
        with zipfile.ZipFile(archive) as packed, packed.open(f"{name}.txt") as stream:
            return read_vectors(stream, f"{archive}/{name}.txt", words, dim=_parts(name)[1])
    except (zipfile.BadZipFile, KeyError, EOFError, OSError) as error:
        raise DataError(
            f"{archive}: damaged ({DataError.reason(error)}); delete it to load it again"
        ) from error


def read_vectors(
    stream: IO[bytes],
    name: str,
    words: Sequence[str],
    dim: int | None = None,
) -> npt.NDArray[np.float32]:
    """Vectors of a stream of lines; a header of two numbers, as fastText writes it, is left out.

    Args:
        stream: of UTF-8.
        name: of the file, for messages.
        words: the vocabulary; a word that stands twice in the file has its last vector.
        dim: numbers of a line; None: as most of the first lines have.

    Returns:
        float32 (words, dim), zero where there is no vector.

    Raises:
        DataError: it is not such a file, or has a vector for none of the words.
    """
    lines = _lines(stream, name)
    first = list(itertools.islice(lines, _FIRST_LINES))
    start = 1
    if first and re.fullmatch(rb"\d+ \d+", first[0]):
        dim = dim or int(first[0].split(b" ")[1])
        start = 2
    dim = dim or _usual_dim(first)
    matrix = np.zeros((len(words), dim), dtype=np.float32)
    index = {word.encode(): row for row, word in enumerate(words)}
    num_found = 0
    every = itertools.chain(first[start - 1 :], lines)
    for number, line in enumerate(every, start=start):
        row, vector = _parse(line, dim, index, f"{name}:{number}")
        if vector is not None:
            matrix[row] = vector
            num_found += 1
    if not num_found:
        raise DataError(f"{name}: holds a vector for none of the {len(words):,} words")
    return matrix


def _parts(name: str) -> tuple[str, int]:
    corpus, _, size = name.removeprefix("glove.").rpartition(".")
    return corpus, int(size.removesuffix("d"))


def _lines(stream: IO[bytes], name: str) -> Iterator[bytes]:
    number = 0
    while line := stream.readline(_LINE_BYTES):
        number += 1
        if len(line) == _LINE_BYTES:
            raise DataError(f"{name}:{number}: a line of more than {_LINE_BYTES:,} bytes")
        yield line.rstrip(b" \r\n")


def _usual_dim(lines: Sequence[bytes]) -> int:
    counted = collections.Counter(line.count(b" ") for line in lines)
    return max(counted, key=lambda spaces: (counted[spaces], spaces), default=0) or 1


def _parse(
    line: bytes, dim: int, index: Mapping[bytes, int], where: str
) -> tuple[int, npt.NDArray[np.float32] | None]:
    """The row of a line's word and its vector; None where the vocabulary has no such word."""
    head = line.partition(b" ")[0]
    if not head.isascii():
        _check_utf8(head, where)
    row = index.get(head)
    if row is None:
        return 0, None
    word, *numbers = line.rsplit(b" ", dim)
    if len(numbers) < dim:
        raise DataError(f"{where}: {len(numbers)} numbers, {dim} in other lines")
    if word != head:  # the word goes on behind a space
        return 0, None
    try:
        vector = np.array(numbers, dtype=np.float32)
    except ValueError as error:
        raise DataError(f"{where}: not a word and its numbers: {error}") from error
    if not np.isfinite(vector).all():
        raise DataError(f"{where}: a number that is not finite")
    return row, vector


def _check_utf8(word: bytes, where: str) -> None:
    try:
        word.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: not UTF-8; if the file is Latin-1, convert it with iconv -f LATIN1 -t UTF-8"
        ) from error
