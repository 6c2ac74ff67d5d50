"""Run folders as `train` and `tune` leave them, written by hand: for tests that read runs."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rnntune.config.load import Config

INJECTIONS = (
    "<script>document.title='hacked'</script>",
    "</script><img src=x onerror=\"document.title='hacked'\">",
    "{{ 7701 * 7 }} {% raw %} ${7701*7}",
    "'\"`&amp;<b>bold</b><a href='javascript:alert(1)'>x</a>",
    "\x1b[31m\x00\x07 \u202egnp\u202c \u2028",
    "</style></title></textarea><!--",
)
"""Labels and texts that try to become something else in a page."""


def write_run(
    folder: Path,
    *,
    classes=("World", "Sports", "Business", "Sci/Tech"),
    texts=("the cup final <unk>",),
    num_rows=400,
    epochs=3,
    finished=True,
    right=0.9,
    seed=0,
    settings=None,
) -> str:
    """A run of `train`.

    Args:
        folder: of the run.
        classes: names of the classes.
        texts: of the mistakes, in turn.
        num_rows: test rows; their labels do not depend on `seed`, the predictions do.
        epochs: that are finished.
        finished: whether it has a result.
        right: share of the rows that are predicted right.
        seed: of the predictions.
        settings: overrides of the configuration.
    """
    folder.mkdir(parents=True)
    config = Config.load(None, {"output": str(folder), **(settings or {})})
    (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    _write_history(folder, epochs)
    if not finished:
        return str(folder)
    labels = np.random.default_rng(7).integers(0, len(classes), num_rows)
    random = np.random.default_rng(seed)
    wrong = random.random(num_rows) > right
    predicted = np.where(wrong, (labels + random.integers(1, len(classes), num_rows)), labels)
    predicted %= len(classes)
    _write_predictions(folder, labels, predicted, random.uniform(0.4, 1, num_rows), texts)
    _write_data(folder, classes, np.bincount(labels, minlength=len(classes)).tolist())
    accuracy = float((labels == predicted).mean())
    result = {
        "test_accuracy": accuracy, "test_macro_f1": accuracy - 0.01, "test_rows": num_rows,
        "validation_accuracy": 0.91, "temperature": 1.21, "train_rows": 2_000,
        "train_rows_per_s": 12_345.6, "padding_fraction": 0.0123, "num_parameters": 123_456,
        "world_size": 1, "epochs": epochs, "best_epoch": epochs,
        "auto": {"train.epochs": [epochs, "2,000 rows"]},
        "seconds": {"prepare": 1.2, "startup": 0.1, "train": 4.5, "evaluate": 0.3, "total": 6.1},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    return str(folder)


def _write_history(folder: Path, epochs: int) -> None:
    lines = [
        json.dumps({
            "epoch": n, "train_loss": 1 / n, "train_accuracy": 1 - 0.3 / n,
            "validation_loss": 1.1 / n, "validation_accuracy": 0.95 - 0.3 / n,
        })
        for n in range(1, epochs + 1)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))


def _write_predictions(folder, labels, predicted, probability, texts) -> None:
    mistakes = iter(range(len(labels)))
    table = pa.table({
        "row": np.arange(len(labels)),
        "label": labels.astype(np.int32),
        "predicted": predicted.astype(np.int32),
        "probability": probability.astype(np.float32),
        "calibrated": (probability**1.3).astype(np.float32),
        "text": [
            texts[next(mistakes) % len(texts)] if label != given else None
            for label, given in zip(labels, predicted, strict=True)
        ],
    })  # fmt: skip
    pq.write_table(table, folder / "test_predictions.parquet")


def _write_data(folder: Path, classes, class_rows: list[int]) -> None:
    rows = sum(class_rows)
    split = {
        "rows": rows, "tokens": 12 * rows, "known": 11 * rows, "cut": 0, "class_rows": class_rows,
        "length_rows": [0] * 12 + [rows],
    }  # fmt: skip
    content = {
        "fingerprint": "f", "classes": list(classes), "num_words": 5_000,
        "splits": {name: split for name in ("train", "validation", "test")},
        "telling_words": [["cup", name] for name in classes],
    }  # fmt: skip
    (folder / "data.json").write_text(json.dumps(content))


def write_search(folder: Path, *, num_trials=12, finished=True, name="model.pooling", **run) -> str:
    """A run of `tune`: trials of 1 to 4 epochs, every third stopped early, the last running.

    Args:
        folder: of the run.
        num_trials: in the journal.
        finished: whether it has a result.
        name: of a setting with strings for values, beside two with numbers.
        run: see `write_run`.
    """
    write_run(folder, finished=finished, **run)
    events = []
    values = ["max", "mean", "last"]
    for n in range(num_trials):
        settings = {
            "model.hidden_size": 16 << n % 4,
            "train.learning_rate": 0.001 * 1.4**n,
            name: values[n % 3],
            "model.bidirectional": n % 2 == 0,
        }
        events.append({"event": "start", "trial": n, "values": settings, "epochs": 4})
        size = {"num_parameters": 1_000 * (n + 1), "latency_ms": 0.5 + n % 5}
        events.append({"event": "model", "trial": n, **size})
        stopped = n % 3 == 2
        for epoch in range(1, 3 if stopped else 5):
            score = 0.6 + 0.05 * epoch + 0.01 * (n * 7 % 11)
            metrics = {
                "epoch": epoch, "validation_accuracy": score, "validation_macro_f1": score,
                "validation_loss": 1 - score, "train_s": 1.0, "validation_s": 0.1,
            }  # fmt: skip
            events.append({"event": "epoch", "trial": n, "metrics": metrics})
        state = "stopped" if stopped else "finished"
        if n < num_trials - 1 or finished:
            end = {"state": state, "reason": "", "seconds": 4.5}
            events.append({"event": "end", "trial": n, **end})
    (folder / "trials.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    if finished:
        result = json.loads((folder / "result.json").read_text())
        result |= {"importance": {"model.hidden_size": 0.6, "train.learning_rate": 0.4}}
        interval = {"model.hidden_size": [0.4, 0.8], "train.learning_rate": [0.1, 0.5]}
        result |= {"importance_interval": interval}
        result |= {"num_trials": num_trials, "num_errors": 0}
        (folder / "result.json").write_text(json.dumps(result))
    return str(folder)
