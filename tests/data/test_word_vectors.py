"""Word vectors of files, of archives from the network, and of the installed package."""

import gzip
import hashlib
import io
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from rnntune.data import vector_files
from rnntune.data.vector_files import read_vectors
from rnntune.data.word_vectors import load_word_vectors
from rnntune.errors import DataError

WORDS = ["<pad>", "<unk>", "naïve", "missing", "the", "."]


def _glove(folder: Path, content: str) -> str:
    file = folder / "vectors.txt"
    file.write_text(content, encoding="utf-8")
    return str(file)


def test_word_vectors_of_a_file(tmp_path):
    name = _glove(tmp_path, "the 1 2\nnaïve 3 4\nother 5 6\n")
    words = ["<pad>", "<unk>", "naïve", "missing", "the"]
    matrix, found = load_word_vectors(name, words, str(tmp_path))
    assert matrix.tolist() == [[0, 0], [0, 0], [3, 4], [0, 0], [1, 2]]
    assert found == pytest.approx(2 / 3)


@pytest.mark.parametrize("content", ["the 1 x\n", "the 1 2\na 1\n", "nothing 1 2\n"])
def test_word_vectors_that_cannot_be_used(tmp_path, content):
    with pytest.raises(DataError, match=r"vectors\.txt"):
        load_word_vectors(_glove(tmp_path, content), ["<pad>", "<unk>", "the", "a"], str(tmp_path))


def test_installed_glove_vectors_put_like_words_near():
    words = ["<pad>", "<unk>", "football", "soccer", "bank", "no-such-word"]
    matrix, found = load_word_vectors("glove.6B.50d", words, "")
    assert matrix.shape == (6, 50)
    assert found == pytest.approx(3 / 4)
    assert not matrix[5].any()
    unit = matrix[2:5] / np.linalg.norm(matrix[2:5], axis=1, keepdims=True)
    assert unit[0] @ unit[1] > unit[0] @ unit[2]


def test_compressed_vectors(tmp_path):
    file = tmp_path / "vectors.txt.gz"
    file.write_bytes(gzip.compress(b"the 1 2\n"))
    matrix, _ = load_word_vectors(str(file), WORDS, str(tmp_path))
    assert matrix[4].tolist() == [1, 2]


def _read(content: str | bytes, **settings):
    data = content.encode() if isinstance(content, str) else content
    return read_vectors(io.BytesIO(data), "v.txt", WORDS, **settings)


def test_a_word_with_spaces_is_read_from_the_right():
    """Such lines of glove.840B begin with a word that the vocabulary may have."""
    matrix = _read("the 1 2\nnaïve 3 4\n. . . 5 6\n. 7 8\nthe end 9 9\n")
    assert matrix[2:].tolist() == [[3, 4], [0, 0], [1, 2], [7, 8]]
    assert _read(". . . 5 6\nthe 1 2\n. 7 8\n", dim=2)[5].tolist() == [7, 8]


def test_a_header_of_fasttext_is_left_out():
    assert _read("2 3\nthe 1 2 3 \n. 4 5 6 \n")[4].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"the 1 2\na 1 2\nna\xefve 3 4\n", "v.txt:3: not UTF-8; if the file is Latin-1"),
        (b"the 1 2\nb 1 2\n. 1\n", "v.txt:3: 1 numbers, 2 in other lines"),
        (b"the 1 nan\n", "v.txt:1: a number that is not finite"),
        (b"the 1 2x\n", "v.txt:1: not a word and its numbers"),
        (b"\x80\x04\x95pickle", "v.txt:1: not UTF-8"),
        (b"other 1 2\n", "a vector for none of the 6 words"),
        (b"", "a vector for none of the 6 words"),
        (b"x" * (1 << 18), "v.txt:1: a line of more than"),
    ],
)
def test_what_is_not_a_file_of_vectors_is_one_line(content, message):
    with pytest.raises(DataError) as caught:
        _read(content)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such file of word vectors"):
        load_word_vectors(str(tmp_path / "nothing.txt"), WORDS, str(tmp_path))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A server with an archive like GloVe's, and its known checksum."""
    folder = tmp_path / "served"
    folder.mkdir()
    file = folder / "glove.6B.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for dim in (50, 100):
            numbers = " ".join(["0.5"] * dim)
            packed.writestr(f"glove.6B.{dim}d.txt", f"the {numbers}\n. . . {numbers}\n")
    _know(monkeypatch, file)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as httpd:
        monkeypatch.setenv("RNNTUNE_GLOVE_URL", f"http://127.0.0.1:{httpd.server_port}/")
        thread = threading.Thread(target=httpd.serve_forever, args=(0.05,))
        thread.start()
        yield file
        httpd.shutdown()
        thread.join()


def _know(monkeypatch, file: Path) -> None:
    known = file.name, hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setitem(vector_files._ARCHIVES, "6B", known)


def test_vectors_are_downloaded_once_and_stay_packed(archive, tmp_path):
    for _ in range(2):
        matrix, found = load_word_vectors("glove.6B.100d", WORDS, str(tmp_path / "cache"))
        assert matrix.shape == (6, 100)
        assert matrix[4].tolist() == [0.5] * 100
        assert not matrix[5].any()
        assert found == 1 / 4
        archive.unlink(missing_ok=True)  # the second time from the cache
    vectors = tmp_path / "cache" / "vectors"
    assert [f.name for f in vectors.iterdir() if f.suffix != ".lock"] == ["glove.6B.zip"]
    assert vectors.stat().st_mode & 0o777 == 0o700


def test_an_archive_of_another_checksum_is_refused(archive, tmp_path):
    archive.write_bytes(archive.read_bytes() + b"!")
    with pytest.raises(DataError, match=r"glove\.6B\.300d: cannot download .* SHA256 is"):
        load_word_vectors("glove.6B.300d", WORDS, str(tmp_path))


def test_a_damaged_archive_is_one_line(archive, tmp_path, monkeypatch):
    archive.write_bytes(archive.read_bytes()[:200])
    _know(monkeypatch, archive)
    with pytest.raises(DataError, match=r"glove\.6B\.zip: damaged .*; delete it") as caught:
        load_word_vectors("glove.6B.100d", WORDS, str(tmp_path))
    assert "\n" not in str(caught.value)


def test_vectors_that_are_not_published_are_not_asked_for(tmp_path):
    with pytest.raises(DataError, match=r"no word vectors glove\.840B\.50d.*glove\.840B\.300d"):
        load_word_vectors("glove.840B.50d", WORDS, str(tmp_path))


def test_vectors_that_cannot_be_downloaded_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("RNNTUNE_GLOVE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("rnntune.data.download._PAUSE_S", 0.0)
    with pytest.raises(DataError, match=r"glove\.6B\.300d: .*refused") as caught:
        load_word_vectors("glove.6B.300d", ["<pad>", "<unk>", "a"], str(tmp_path))
    assert "\n" not in str(caught.value)
