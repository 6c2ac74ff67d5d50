"""More rows than a file has, whose words go on as those of real text do.

A file's rows are repeated. In each copy some words are replaced by words of the copy's own, so that
the number of distinct words grows by Heaps' law, V(n) = k * n ** b, with the exponent that the
file's second half shows after its first. Which words: rare ones mostly, as likely as a word that
stands as often in the second half is missing in the first.

Source: H. S. Heaps (1978), Information Retrieval, section 7.5.
"""

import collections
import csv
import math
import pathlib
import random
import re

_WORD = re.compile(r"[^\W\d_]+")


def _level(count: int) -> int:
    """Frequencies alike enough to be taken together."""
    return count if count < 8 else 5 + count.bit_length()


class Corpus:
    """The rows of a file in AG News form, and copies of them.

    Args:
        source: the file.
    """

    def __init__(self, source: pathlib.Path) -> None:
        with source.open(newline="") as file:
            self.rows = list(csv.reader(file))
        self._texts = [[_WORD.split(field) for field in row[1:]] for row in self.rows]
        self._words = [[_WORD.findall(field) for field in row[1:]] for row in self.rows]
        order = list(range(len(self.rows)))
        random.Random(0).shuffle(order)
        first, second = (self._counts(order[half::2]) for half in (0, 1))
        self._all = first + second
        self.exponent = math.log2(len(self._all) / len(first))
        seen, new = collections.Counter(), collections.Counter()
        for word, count in second.items():
            seen[_level(count)] += 1
            new[_level(count)] += word not in first
        self._is_new = {level: new[level] / number for level, number in seen.items()}
        self.num_words = len(self._all)

    def _counts(self, rows: list[int]) -> collections.Counter[str]:
        fields = (field for row in rows for field in self._words[row])
        return collections.Counter(word.lower() for field in fields for word in field)

    def write(self, target: pathlib.Path, copies: int) -> int:
        """Write so many copies, and give the number of their rows."""
        with target.open("w", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerows(self.rows)
            for copy in range(1, copies):
                new = self._new_words(copy)
                writer.writerows(self._copy(row, new) for row in range(len(self.rows)))
        return len(self.rows) * copies

    def _new_words(self, copy: int) -> dict[str, str]:
        """What replaces which words in a copy."""
        wanted = len(self._all) * ((copy + 1) ** self.exponent - copy**self.exponent)
        chances = {word: self._is_new.get(_level(n), 0.0) for word, n in self._all.items()}
        scale = wanted / sum(chances.values())
        drawn = random.Random(copy)
        own = "".join(chr(ord("a") + int(digit)) for digit in str(copy))
        new = {word: f"{word}z{own}" for word, p in chances.items() if drawn.random() < p * scale}
        self.num_words += len(new)
        return new

    def _copy(self, row: int, new: dict[str, str]) -> list[str]:
        fields = [self.rows[row][0]]
        for between, words in zip(self._texts[row], self._words[row], strict=True):
            changed = [new.get(word.lower(), word) for word in words]
            pairs = zip(between, [*changed, ""], strict=True)
            fields.append("".join(part for pair in pairs for part in pair))
        return fields
