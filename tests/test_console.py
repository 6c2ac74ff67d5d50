import pytest
from rich.console import Console

from rnntune.console import Terminal, printable

EPOCH = {
    "epoch": 12,
    "epochs": 15,
    "train_loss": 1.23456,
    "train_accuracy": 0.91234,
    "validation_loss": 0.23456,
    "validation_accuracy": 0.90123,
    "train_rows_per_s": 12_345.6,
    "rows": 1_000,
    "epoch_rows": 62_744,
}


@pytest.fixture
def shown(capsys, monkeypatch):
    """Gives a terminal of a width, and what it showed."""

    def make(width):
        monkeypatch.setenv("COLUMNS", str(width))
        terminal = Terminal()
        terminal.console = Console(
            file=terminal.console.file, width=width, force_terminal=True, soft_wrap=True,
            highlight=False, markup=False, emoji=False, no_color=True,
        )  # fmt: skip
        return terminal

    return make


def test_an_epoch_fits_80_columns(shown, capsys):
    shown(80).epoch(EPOCH)
    assert capsys.readouterr().err.splitlines() == [
        "epoch 12/15  loss 1.235  accuracy 0.9123  validation 0.235 0.9012  12,346 rows/s"
    ]


@pytest.mark.parametrize("width", [20, 31, 45, 60, 79, 80])
def test_an_epoch_is_never_broken_within_a_figure(width, shown, capsys):
    shown(width).epoch({**EPOCH, "epoch": 100, "epochs": 100, "train_rows_per_s": 1_234_567.0})
    lines = capsys.readouterr().err.splitlines()
    assert max(map(len, lines)) <= max(width, len("  validation 0.235 0.9012"))
    text = " ".join(lines)
    for figure in ("100/100", "1.235", "0.9123", "validation 0.235 0.9012", "1,234,567 rows/s"):
        assert figure in text


def test_labels_are_no_markup_and_escape_sequences_do_not_arrive(capsys):
    Terminal().line("label [/a] [red]x[/red] :smile: \x1b]0;title\x07 \x9b31m \u202egnp")
    assert capsys.readouterr().err == (
        "label [/a] [red]x[/red] :smile: \\x1b]0;title\\x07 \\x9b31m \\u202egnp\n"
    )


def test_printable_keeps_what_is_text():
    assert printable("naïve\tπ 中文\nநன்றி 😀") == "naïve\tπ 中文\nநன்றி 😀"
