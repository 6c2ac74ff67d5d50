"""What may be wrong with prepared data: one line each, with what to do."""

from rnntune.data.prepared import PreparedDataset, Split

__all__ = ["diagnose_data"]

_FEW_ROWS = 5
_FEW_WORDS = 300
_UNKNOWN_FRACTION = 0.4
_CUT_FRACTION = 0.05


def diagnose_data(prepared: PreparedDataset) -> list[str]:
    """What in prepared data makes a poor classifier likely.

    Returns:
        Lines for the user, the most telling first; none where nothing stands out.
    """
    train = prepared.splits["train"]
    found = [_few_rows(prepared, train), _few_words(prepared, train)]
    found += [_unknown(name, prepared.splits[name]) for name in ("test", "validation")]
    found.append(_cut(train))
    return [line for line in found if line]


def _few_rows(prepared: PreparedDataset, train: Split) -> str:
    few = {
        name: rows
        for name, rows in zip(prepared.classes, train.class_rows, strict=True)
        if rows < _FEW_ROWS
    }
    if not few:
        return ""
    first, rows = min(few.items(), key=lambda item: item[1])
    more = f" and {len(few) - 1} more classes have" if len(few) > 1 else " has"
    return (
        f"class {first!r}{more} fewer than {_FEW_ROWS} training rows ({rows}): "
        "it will hardly be learned; add rows, or join it with another class"
    )


def _few_words(prepared: PreparedDataset, train: Split) -> str:
    if prepared.num_trained_words >= min(_FEW_WORDS, train.num_rows):
        return ""
    return (
        f"the vocabulary has {prepared.num_trained_words:,} words for {train.num_rows:,} rows: "
        "is data.text_columns the text? data.min_frequency leaves words out, and "
        f"data.tokenizer {prepared.tokenizer} separates them"
    )


def _unknown(name: str, split: Split) -> str:
    unknown = 1 - split.num_known / max(split.num_tokens, 1)
    if not split.num_tokens or unknown < _UNKNOWN_FRACTION:
        return ""
    return (
        f"{unknown:.0%} of the words of the {name} rows are unknown: "
        "are they texts of the same kind? data.min_frequency 1 knows more of them"
    )


def _cut(train: Split) -> str:
    cut = train.num_cut / max(train.num_rows, 1)
    if cut < _CUT_FRACTION:
        return ""
    longest = len(train.length_rows) - 1
    return (
        f"{cut:.0%} of the training texts are cut after {longest:,} tokens: "
        "a larger data.max_length reads more of them, and takes longer"
    )
