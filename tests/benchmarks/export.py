"""An export against its model: latency of one text and rows/s of 64, on one thread each.

    python tests/benchmarks/export.py RUN [--rounds 30]

Texts are the run's validation rows, or made up; both sides get the same token ids in turns, so
that a noisy machine disturbs both alike, and the medians are compared. Prints a JSON line.
"""

import argparse
import json
import statistics
import time

import numpy as np
import torch

from rnntune.data.batching import EncodedRows
from rnntune.inference.export_source import Form, read_source
from rnntune.inference.onnx_builder import Precision


def take(rows: EncodedRows, which: np.ndarray) -> EncodedRows:
    ids = [rows.ids[rows.starts[row] : rows.starts[row] + rows.lengths[row]] for row in which]
    return EncodedRows(
        ids=np.concatenate(ids), lengths=rows.lengths[which], labels=rows.labels[which]
    )


def made_up(num_words: int) -> EncodedRows:
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 60, 1024).astype(np.int32)
    ids = rng.integers(2, num_words, int(lengths.sum())).astype(np.int32)
    return EncodedRows(ids=ids, lengths=lengths, labels=np.zeros(1024, dtype=np.int64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(1)
    source = read_source(args.run)
    rows = source.rows or made_up(len(source.words))
    eight = Precision(tables=8, matrices=8)
    sides = {
        "torch": source.classifier,
        "onnx": source.build(Form()),
        "onnx_int8": source.build(Form(precision=eight)),
    }
    rng = np.random.default_rng(1)
    seconds = {(name, size): [] for name in sides for size in (1, 64)}
    for size in (1, 64):
        for number in range(args.rounds + 3):
            batch = take(rows, rng.integers(0, len(rows), size))
            for name, side in sides.items():
                start = time.perf_counter()
                side.predict_encoded(batch)
                if number >= 3:  # the first calls plan and allocate
                    seconds[name, size].append(time.perf_counter() - start)
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    result = {
        name: {
            "latency_ms": round(1e3 * medians[name, 1], 3),
            "rows_per_s": round(64 / medians[name, 64]),
            "latency_ratio": round(medians["torch", 1] / medians[name, 1], 2),
            "throughput_ratio": round(medians["torch", 64] / medians[name, 64], 2),
        }
        for name in sides
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
