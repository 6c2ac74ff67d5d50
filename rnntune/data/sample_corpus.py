"""The built-in corpus: short invented news in four topics, made by a grammar from a seed.

A plain row speaks of one topic. A row of the second kind, a contest, names people of two
topics with like words around them, and its topic is that of whoever is named first, the one
who acts: "the striker ... praised ... the banker" is Sports, "the banker ... praised ... the
striker" is Business. No count of words can tell these two apart, a network that reads in order
can. Names, places and fillers carry no topic; many names occur once.
"""

import random
import zlib
from collections.abc import Sequence
from typing import Literal

__all__ = ["TEST_ROWS", "TOPICS", "TRAIN_ROWS", "generate"]
TRAIN_ROWS = 8_000
TEST_ROWS = 1_000
TOPICS = ("World", "Sports", "Business", "Sci/Tech")
_CONTEST_FRACTION = 0.38
_TEST_SHARE = 9  # one text in so many can only be a test text


# one text in so many can only be a test text
def _words(text: str) -> list[str]:
    return text.split()


def _phrases(text: str) -> list[str]:
    return text.split(" ; ")


_PEOPLE = {
    "World": _words("minister president diplomats rebels envoy ambassador"),
    "Sports": _words("striker goalkeeper coach sprinter champions referee"),
    "Business": _words("banker investors shareholders retailer brokers insurer"),
    "Sci/Tech": _words("scientists engineers programmers astronomers chipmaker biologists"),
}
_MATTERS = {
    "World": _words("ceasefire election border treaty sanctions summit"),
    "Sports": _words("semifinal penalty trophy medal tournament marathon"),
    "Business": _words("profits merger dividend inflation bonds takeover"),
    "Sci/Tech": _words("software genome telescope microchip spacecraft laboratory"),
}
_VERBS = _words("praised criticised surprised questioned thanked challenged warned welcomed")
_ACTS = _words(
    "awaited discussed remembered prepared delayed expected debated reviewed confirmed doubted"
)
_ADJECTIVES = _words(
    "local veteran young unnamed former outspoken popular weary leading foreign quiet "
    "stubborn celebrated cautious"
)
_OPENINGS = _phrases(
    "late on {day} , ; in a long report from {place} , ; according to {name} , ; after {number} "
    "days of talk , ; as rain fell on {place} , ; early on {day} in {place} , ; it was said that ; "
    "to nobody's surprise , ; for the {number}th time this year , ; friends of {name} say that"
)
_FILLERS = _phrases(
    "on {day} ; in {place} ; near the old town of {place} ; after {number} hours ; without much "
    "noise ; once again ; in front of a small crowd ; for reasons that remain unclear ; as {name} "
    "had expected ; during a visit to {place} ; with little warning ; before the end of the week ; "
    "according to people close to {name} ; at a quiet dinner ; for the first time since {day}"
)
_ADVERBS = _words("quietly openly twice again suddenly politely")
_CLOSINGS = _phrases(
    "{name} declined to comment . ; more is expected on {day} . ; the news reached {place} within "
    "{number} minutes . ; nobody was hurt . ; {name} , who lives in {place} , called it "
    "{adjective} . ; details were not given . ; ' we shall see , ' said {name} . ; it rained in "
    "{place} ."
)
_LINKS = (", and on {day}", ", while in {place}", ", and later")
_DAYS = _words("monday tuesday wednesday thursday friday saturday sunday")
_SYLLABLES = _words(
    "bar ken dol mir sta vel tor lun gra fen hol pim ras cho wen zul nar tis ovi qua"
)


def generate(
    split: Literal["train", "test"], rows: int | None = None, seed: int = 0
) -> list[tuple[str, str]]:
    """Make one split of the corpus.

    The same arguments give the same rows everywhere, more rows begin with the same ones, and no
    text is in both splits or twice in one, whatever the number of rows.

    Args:
        split: which split.
        rows: how many; by default `TRAIN_ROWS` or `TEST_ROWS`.
        seed: another seed gives another corpus of the same grammar.

    Returns:
        Pairs of label (one of `TOPICS`) and text.
    """
    if rows is None:
        rows = TRAIN_ROWS if split == "train" else TEST_ROWS
    writer = _Writer(f"{split} {seed}")
    made: dict[str, str] = {}
    while len(made) < rows:
        label, text = writer.row()
        is_test = zlib.crc32(text.encode("ascii")) % _TEST_SHARE == 0
        if is_test == (split == "test"):
            made.setdefault(text, label)
    return [(label, text) for text, label in made.items()]


class _Writer:
    """Writes rows; draws with `random()` alone, the one method whose sequence is promised.

    Source: https://docs.python.org/3/library/random.html#notes-on-reproducibility
    """

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed).random

    def row(self) -> tuple[str, str]:
        """One row: label and text."""
        topic = self._pick(TOPICS)
        if self._random() < _CONTEST_FRACTION:
            rival = self._pick([other for other in TOPICS if other != topic])
            parts = self._contest(topic, rival)
        else:
            parts = self._plain(topic)
        parts += [self._fill(self._pick(_CLOSINGS)) for _ in range(int(self._random() * 2))]
        return topic, " ".join(" ".join(parts).split())

    def _contest(self, topic: str, rival: str) -> list[str]:
        parts = [self._opening(), *self._meeting(topic, rival)]
        if self._random() < 0.4:
            parts += [self._fill(self._pick(_LINKS)), *self._meeting(topic, rival)]
        return [*parts, "."]

    def _meeting(self, topic: str, rival: str) -> list[str]:
        verb = self._pick(_VERBS)
        sides = [self._person(topic), self._person(rival)]
        return [sides[0], self._gap(), verb, self._gap(), sides[1], self._gap()]

    def _plain(self, topic: str) -> list[str]:
        first = self._pick(_MATTERS[topic])
        second = self._pick([other for other in _MATTERS[topic] if other != first])
        sides = [f"the {first}", self._filler(), "and", f"the {second}", self._filler()]
        return [self._opening(), self._person(topic), self._pick(_ACTS), *sides, "."]

    def _person(self, topic: str) -> str:
        adjective = self._pick(_ADJECTIVES) if self._random() < 0.5 else ""
        return f"the {adjective} {self._pick(_PEOPLE[topic])}"

    def _opening(self) -> str:
        return self._fill(self._pick(_OPENINGS)) if self._random() < 0.6 else ""

    def _filler(self) -> str:
        return self._fill(self._pick(_FILLERS)) if self._random() < 0.5 else ""

    def _gap(self) -> str:
        return self._pick(_ADVERBS) if self._random() < 0.8 else self._fill(self._pick(_FILLERS))

    def _fill(self, phrase: str) -> str:
        return phrase.format(
            day=self._pick(_DAYS),
            place=self._name(2),
            name=f"{self._name(2)} {self._name(3)}",
            number=2 + int(self._random() * 40),
            adjective=self._pick(_ADJECTIVES),
        )

    def _name(self, num_syllables: int) -> str:
        return "".join(self._pick(_SYLLABLES) for _ in range(num_syllables)).capitalize()

    def _pick(self, words: Sequence[str]) -> str:
        return words[int(self._random() * len(words))]
