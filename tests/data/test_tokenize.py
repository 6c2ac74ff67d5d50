"""The tokenizers: tokens of many scripts, and `basic_english` with and without torchtext."""

import csv
import itertools
import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import TEXTS

from rnntune.data import tokenize as module
from rnntune.data.tokenize import resolve_tokenizer, tokenize

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
THUMB = "\U0001f44d\U0001f3fd"
FLAG = "\U0001f1ec\U0001f1f7"

WORDS = {
    "Don't stop, e-mail_me: $5.00!": "don ' t stop , e - mail_me : $ 5 . 00 !",
    "Ο ΣΟΦΟΣ είπε: «ναι»": "ο σοφος είπε : « ναι »",
    "أُحِبُّ القِرَاءَةَ، كثيراً": "أُحِبُّ القِرَاءَةَ ، كثيراً",
    "می\u200cخواهم بروم": "می\u200cخواهم بروم",
    "हिन्दी में लिखा है।": "हिन्दी में लिखा है ।",
    "தமிழ் மொழி": "தமிழ் மொழி",
    "한국어 텍스트": "한국어 텍스트",
    "我爱Python3，𠮷野家": "我 爱 python3 ， 𠮷 野 家",
    "カタカナとabc": "カ タ カ ナ と abc",
    "ภาษาไทย ที่": "ภ า ษ า ไ ท ย ที่",
    "ພາສາລາວ": "ພ າ ສ າ ລ າ ວ",
    "ភាសា": "ភា សា",
    "မြန်မာ": "မြ န် မာ",
    f"ok❤\ufe0f❤{FAMILY}{THUMB}{FLAG}{FLAG}": f"ok ❤ ❤ {FAMILY} {THUMB} {FLAG} {FLAG}",
    "cafe\u0301 café": "café café",
    "İstanbul IĞDIR": "i\u0307stanbul iğdir",
    "co\u00adop a\u200bb \ufeffc\x00d\x85e": "coop a b c d e",
    "\U0001e900\U0001e901 x": "\U0001e922\U0001e923 x",
    "": "",
}


@pytest.mark.parametrize("text", WORDS)
def test_words(text):
    assert tokenize([text], "words")[0] == WORDS[text].split(" ") * bool(text)


@pytest.mark.parametrize(
    ("text", "characters"),
    [
        ("Ab 1!", "a b 1 !"),
        ("हिन्दी", "हि न् दी"),
        ("我爱 é", "我 爱 é"),
        (f"x{FAMILY}", f"x {FAMILY}"),
    ],
)
def test_characters(text, characters):
    assert tokenize([text], "characters")[0] == characters.split(" ")


@given(st.lists(st.text(max_size=30), max_size=5), st.sampled_from(["words", "characters"]))
def test_tokens_hold_no_white_space_and_are_their_own_tokens(texts, tokenizer):
    tokens, lengths = tokenize(texts, tokenizer)
    assert lengths.sum() == len(tokens)
    for token in tokens:
        assert token
        assert not re.search(r"\s", token)
    assert tokenize([" ".join(tokens)], tokenizer)[0] == tokens


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_ascii_text_has_the_tokens_that_it_has_beside_other_letters(text):
    for tokenizer in ("words", "characters"):
        alone = tokenize([text], tokenizer)[0]
        assert tokenize([f"{text} é"], tokenizer)[0] == [*alone, "é"]
        assert tokenize([f"{text} \U0001e922"], tokenizer)[0] == [*alone, "\U0001e922"]


def test_auto_is_basic_english_where_the_text_is_known_to_be_english():
    assert resolve_tokenizer("auto", "ag_news") == "basic_english"
    assert resolve_tokenizer("auto", "sample") == "basic_english"
    assert resolve_tokenizer("auto", "csv") == "words"
    assert resolve_tokenizer("characters", "sample") == "characters"


@pytest.fixture(scope="module")
def both():
    """`basic_english` of torchtext and of Hugging Face's tokenizers."""
    pytest.importorskip("tokenizers")
    try:
        reference = module._torchtext_split()
    except ImportError:
        pytest.skip("torchtext is not installed")
    return reference, module._hugging_face_split()


SPECIAL = st.sampled_from(
    [*"'\".,()!?;: \t\n\x1c\x85\xa0Σσ", "<br />", "<br", "/>", '<br" />', "İ", "a", "B"]
)


@given(st.lists(SPECIAL | st.characters(), max_size=30).map("".join))
def test_both_stacks_give_the_same_tokens(both, text):
    reference, ours = both
    assert ours(text) == reference(text)


@given(TEXTS)
def test_both_stacks_give_the_same_tokens_of_texts(both, texts):
    reference, ours = both
    assert [ours(text) for text in texts] == [reference(text) for text in texts]


def test_both_stacks_give_the_same_tokens_on_ag_news(both, ag_news_dir):
    reference, ours = both
    for name in ("train.csv", "test.csv"):
        with (ag_news_dir / name).open(newline="", encoding="utf-8") as file:
            for row in itertools.chain(csv.reader(file)):
                text = " ".join(row[1:])
                assert ours(text) == reference(text)


_PIECES = SPECIAL | st.sampled_from(
    ["\u0301", "我", "\U0001e922", FAMILY, "\u200d", FLAG, '<b"r', '"/>', "Σ ", "\u00ad", " "]
)


@given(
    st.lists(st.lists(_PIECES | st.characters(), max_size=40).map("".join), max_size=3),
    st.integers(1, 6),
    st.integers(1, 4),
    st.sampled_from(["basic_english", "words", "characters"]),
)
def test_what_is_cut_off_changes_no_token_before(texts, max_tokens, letters, tokenizer):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LETTERS", letters)
        tokens, lengths = tokenize(texts, tokenizer, max_tokens)
    rows = [tokenize([text], tokenizer)[0][: max_tokens + 1] for text in texts]
    assert tokens == list(itertools.chain.from_iterable(rows))
    assert lengths.tolist() == [len(row) for row in rows]


def test_what_is_far_behind_is_not_looked_at(monkeypatch):
    seen = []
    split = module._SPLIT["words"]
    monkeypatch.setitem(module._SPLIT, "words", lambda texts: seen.extend(texts) or split(texts))
    tokenize(["word " * 10_000, "short"], "words", 20)
    assert max(map(len, seen)) <= 20 * 8


def test_texts_of_arrow_are_read_too():
    assert tokenize(pa.array(["a b", "c"]).to_pylist())[1].tolist() == [2, 1]
