"""An export that fits into a number of bytes."""

import dataclasses
from collections.abc import Callable

from rnntune.data.vocabulary import SPECIALS
from rnntune.errors import ConfigError
from rnntune.inference.export_checks import Cost, ExportChecks
from rnntune.inference.export_source import ExportSource, Form
from rnntune.inference.exported import ExportedClassifier
from rnntune.inference.onnx_builder import Precision

__all__ = ["Fitted", "fit_size"]
_RANKS = ((8, None), (8, 0.6), (8, 0.4), (4, 0.6), (4, 0.4))
"""Bits of a number, and numbers of a word as a part of what the network reads of it."""
_PIECES = ((24, 48), (16, 64), (16, 32), (12, 48), (8, 32))
"""Bytes of a word, and the numbers that they stand for."""
_SHARES = (1.0, 0.2, 0.04)
"""Of the features of the n-gram branch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
    """An export that fits.

    Args:
        form: what is kept of the model.
        exported: the export.
        cost: what it costs.
    """

    form: Form
    exported: ExportedClassifier
    cost: Cost


def fit_size(
    source: ExportSource,
    checks: ExportChecks,
    max_bytes: int,
    size_of: Callable[[ExportedClassifier], int],
    *,
    quantize: bool,
    tell: Callable[[str], None],
) -> Fitted:
    """The export that is best on the validation rows among those that fit.

    Numbers of 32, 8 or 4 bits, words of all or fewer numbers or of a few bytes, and parts of the
    features of an n-gram branch are tried, each with as many words as there is room for. What is
    nearest to the model on the validation rows is chosen: it is told from noise far sooner than
    the highest accuracy.

    Args:
        source: the model.
        checks: measures what each costs.
        max_bytes: of all files together.
        size_of: gives the bytes of an export.
        quantize: leave out 32 bits.
        tell: called with a line for each that was tried.

    Raises:
        ConfigError: none fits.
    """
    fits = _Fits(source, checks, max_bytes, size_of, tell)
    if not quantize:
        fits.add(Form())
    forms, share = _forms(source), None
    if source.classifier.description.model.ngrams:
        for tried in _SHARES:  # which matter more than the form, so they are chosen first
            fits.add(dataclasses.replace(forms[-1], ngram_share=tried))
        first = fits.best()
        share = first.form.ngram_share if first else _SHARES[-1]
    for form in forms:
        fits.add(dataclasses.replace(form, ngram_share=share))
    best = fits.best()
    if best is None:
        raise ConfigError(
            f"--max-size: {max_bytes:,} bytes are too few; the smallest export has "
            f"{fits.smallest:,}"
        )
    return best


class _Fits:
    """What was tried: for each form as many words as there is room for."""

    def __init__(
        self,
        source: ExportSource,
        checks: ExportChecks,
        max_bytes: int,
        size_of: Callable[[ExportedClassifier], int],
        tell: Callable[[str], None],
    ) -> None:
        self._source, self._checks, self._tell = source, checks, tell
        self._max_bytes, self._size_of = max_bytes, size_of
        self._fitted: list[Fitted] = []
        self._tried: list[Form] = []
        self.smallest: int | None = None

    def best(self) -> Fitted | None:
        """What is nearest to the model; None: nothing fits."""
        return min(self._fitted, key=lambda one: one.cost.divergence, default=None)

    def add(self, form: Form) -> None:
        """Try a form, unless it was tried or all of the model has room."""
        if form in self._tried or any(map(self._is_whole, self._fitted)):
            return
        self._tried.append(form)
        source = self._source
        found, least = _most_words(source, form, self._max_bytes, self._size_of)
        self.smallest = least if self.smallest is None else min(self.smallest, least)
        if found is None:
            return
        exported = source.build(found)
        cost = self._checks.measure(exported, found)
        self._fitted.append(Fitted(form=found, exported=exported, cost=cost))
        size = self._size_of(exported)
        self._tell(f"{describe(found, source)}: {size:,} bytes, {_score(self._fitted[-1])}")

    def _is_whole(self, one: Fitted) -> bool:
        form = one.form
        return form.num_words == len(self._source.words) and form.precision.tables == 32


def describe(form: Form, source: ExportSource) -> str:
    """A form in a few words."""
    parts = [f"{form.num_words or len(source.words):,} of {len(source.words):,} words"]
    if form.pieces:
        parts.append(f"{form.pieces} bytes a word, layers of {form.precision.matrices} bits")
    else:
        bits = f"tables of {form.precision.tables} bits, layers of {form.precision.matrices}"
        parts += [bits, f"{form.rank} numbers a word"] if form.rank else [bits]
    if form.ngram_share is not None:
        parts.append(f"{form.ngram_share:.0%} of the n-grams")
    return ", ".join(parts)


def _score(one: Fitted) -> str:
    near = f"{one.cost.equal_labels:.2%} equal labels, divergence {one.cost.divergence:.4f}"
    if one.cost.accuracy is None:
        return near
    return f"validation accuracy {one.cost.accuracy:.4f}, {near}"


def _forms(source: ExportSource) -> list[Form]:
    dims = source.weights["rnn.weight_ih_l0"].shape[1]
    few = []
    for bits, share in _RANKS:
        rank = None if share is None else max(1, round(dims * share))
        few.append(Form(precision=Precision(tables=bits, matrices=8), rank=rank))
    eight = Precision(tables=8, matrices=8)
    coded = [Form(precision=eight, rank=rank, pieces=n) for n, rank in _PIECES if rank <= dims]
    return [*coded, *few]


def _most_words(
    source: ExportSource,
    form: Form,
    max_bytes: int,
    size_of: Callable[[ExportedClassifier], int],
) -> tuple[Form | None, int]:
    """The form with as many words as fit, if any do, and the bytes of that with none."""

    def measured(num_words: int) -> int:
        return size_of(source.build(dataclasses.replace(form, num_words=num_words)))

    low, high = len(SPECIALS), len(source.words)
    low_bytes, high_bytes = measured(low), measured(high)
    if high_bytes <= max_bytes:
        return dataclasses.replace(form, num_words=high), low_bytes
    if low_bytes > max_bytes:
        return None, low_bytes
    least = low_bytes
    while high - low > max(1, len(source.words) // 200):
        share = (max_bytes - low_bytes) / (high_bytes - low_bytes)
        tried = min(max(low + int(share * (high - low)), low + 1), high - 1)
        size = measured(tried)
        if size <= max_bytes:
            low, low_bytes = tried, size
            if max_bytes - size < max_bytes // 200:
                break
        else:
            high, high_bytes = tried, size
    return dataclasses.replace(form, num_words=low), least
