"""The training step on a GPU: rows/s of the loop against a bare cuDNN loop, kernels, waits.

    python tests/benchmarks/gpu.py [--device cuda] [--cells lstm,gru] [--hidden 64,128,192,512]
        [--batch-rows 64,256,1024,4096] [--widths 1,8] [--precisions fp32,bf16] [--steps 100]

Needs torch, numpy and the part of this package that knows no Ray; the rows are made here, with
words as rare as Zipf's law has them and lengths like those of short news. Both loops train the
same network on the same batches with the same optimizer; the bare one copies a batch, steps, and
does nothing else. They take turns, and the medians of their rows/s are compared. A profile of
some steps of our loop gives the kernels by name, the synchronisations a step and the share of the
time in which the device has nothing to do. `--device cpu` runs the same on a CPU, where there are
no kernels to name. Prints a JSON line for each combination, then one for the whole.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from rnntune.config.schema import BatchingConfig, ModelConfig, TrainConfig
from rnntune.data.batching import Batch, EncodedRows
from rnntune.data.loader import Shard, TrainBatches
from rnntune.model.network import Classifier
from rnntune.training.loop import fit
from rnntune.training.optim import Optimizer

NUM_WORDS, NUM_CLASSES = 30_000, 4
MEDIAN_TOKENS, SPREAD, MOST_TOKENS = 38.0, 0.35, 120
PROFILED_STEPS = 20
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
PLAIN = {
    "embedding_std": 0.01,
    "embedding_dropout": 0.0,
    "dropout": 0.0,
    "word_dropout": 0.0,
    "row_dropout": 0.0,
    "recurrent_length": None,
    "ngrams": 0,
    "bidirectional": False,
    "pooling": "last",
}


def zipf_rows(num_rows: int, seed: int = 0) -> EncodedRows:
    """Rows of words drawn by Zipf's law, with log-normal lengths."""
    random = np.random.default_rng(seed)
    lengths = random.lognormal(np.log(MEDIAN_TOKENS), SPREAD, num_rows)
    lengths = np.clip(lengths, 1, MOST_TOKENS).astype(np.int32)
    chance = 1 / np.arange(1, NUM_WORDS - 1)
    ids = 2 + random.choice(NUM_WORDS - 2, int(lengths.sum()), p=chance / chance.sum())
    labels = random.integers(0, NUM_CLASSES, num_rows)
    return EncodedRows(ids=ids.astype(np.int32), lengths=lengths, labels=labels)


class Case:
    """One combination of network, batches and arithmetic on one device."""

    def __init__(self, args: argparse.Namespace, shape: dict[str, Any]) -> None:
        self.device = torch.device(args.device)
        self.shape = shape
        self.rows = zipf_rows(args.steps * shape["batch_rows"])
        model = {"cell": shape["cell"], "hidden_size": shape["hidden"], "embedding_dim": 128}
        self.model = ModelConfig(**model, **PLAIN)
        self.train = TrainConfig(
            epochs=1,
            learning_rate=0.001,
            warmup_fraction=0.0,
            label_smoothing=0.0,
            patience=0,
            average_weights=False,
            checkpoint_every_steps=0,
            precision=shape["precision"],
        )

    def network(self) -> Classifier:
        """The network with its first weights, dense gradients on a GPU."""
        torch.manual_seed(0)
        sparse = self.device.type == "cpu"
        return Classifier(self.model, NUM_WORDS, NUM_CLASSES, sparse=sparse).to(self.device)

    def batches(self, rows: EncodedRows | None = None) -> TrainBatches:
        """The batches of an epoch, the same each time."""
        whole = rows or self.rows
        shard = Shard(num_rows=len(whole), load=lambda: whole)
        config = BatchingConfig(batch_rows=self.shape["batch_rows"])
        return TrainBatches([shard], config, seed=0, default_width=self.shape["width"])

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def ours(self) -> float:
        """Rows/s of the loop of this package."""
        model, batches = self.network(), self.batches()
        self.wait()
        start = time.perf_counter()
        fit(model, batches, None, self.train, device=self.device, report=lambda _: None)
        self.wait()
        return len(self.rows) / (time.perf_counter() - start)

    def bare(self) -> float:
        """Rows/s of a loop that does nothing but copy and step."""
        model = self.network().train()
        optimizer = Optimizer(model, self.train)
        epoch = self.batches().epoch(0)
        self.wait()
        start = time.perf_counter()
        for batch in epoch:
            self._bare_step(model, optimizer, batch)
        self.wait()
        return len(self.rows) / (time.perf_counter() - start)

    def _bare_step(self, model: Classifier, optimizer: Optimizer, batch: Batch) -> None:
        ids = batch.ids.to(self.device, non_blocking=True)
        labels = batch.labels.to(self.device, non_blocking=True)
        bf16 = self.shape["precision"] == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
            outputs, _ = model.rnn(model.embedding(ids))
        # The padded end of a row is read too: a bare script masks nothing.
        logits = model.classifier(outputs[:, -1].float())
        optimizer.zero_grad()
        cross_entropy(logits, labels).backward()
        for each in optimizer._optimizers:
            each.step()

    def profile(self) -> dict[str, Any]:
        """What some steps of our loop are made of."""
        rows = zipf_rows(PROFILED_STEPS * self.shape["batch_rows"], seed=1)
        model, batches = self.network(), self.batches(rows)
        activities = [ProfilerActivity.CPU]
        if self.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1

        self.wait()
        with profile(activities=activities) as profiled:
            start = time.perf_counter()
            fit(
                model, batches, None, self.train, device=self.device, report=lambda _: None,
                on_batch=count,
            )  # fmt: skip
            self.wait()
            wall_us = (time.perf_counter() - start) * 1e6
        events = profiled.key_averages()
        called = {event.key: event.count for event in events}
        found: dict[str, Any] = {
            "steps": steps,
            "reads_a_step": round(called.get("aten::_local_scalar_dense", 0) / steps, 2),
            "waits_a_step": round(sum(called.get(name, 0) for name in WAITS) / steps, 2),
        }
        kernels = [(event.key, _device_us(event)) for event in events if _is_kernel(event)]
        if kernels:
            busy_us = sum(us for _, us in kernels)
            kernels.sort(key=lambda kernel: -kernel[1])
            found["idle_share"] = round(max(0.0, 1 - busy_us / wall_us), 3)
            found["kernels"] = {name[:80]: round(us / busy_us, 3) for name, us in kernels[:6]}
            found["persistent"] = any("persist" in name.lower() for name, _ in kernels)
        return found


def _is_kernel(event: Any) -> bool:
    return "cuda" in str(event.device_type).lower() and not event.key.startswith("Mem")


def _device_us(event: Any) -> float:
    """Microseconds on the device; torch gave the figure another name in release 2.4."""
    return float(getattr(event, "self_device_time_total", None) or event.self_cuda_time_total)


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Both loops in turn, and a profile of ours."""
    sides: dict[str, Callable[[], float]] = {"ours": case.ours, "bare": case.bare}
    for side in sides.values():
        side()  # cuDNN chooses its kernels, and memory is allocated
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            rates[name].append(side())
    median = {name: statistics.median(values) for name, values in rates.items()}
    return {
        **case.shape,
        "ours_rows_per_s": round(median["ours"], 1),
        "bare_rows_per_s": round(median["bare"], 1),
        "ours_over_bare": round(median["ours"] / median["bare"], 3),
        **case.profile(),
    }


def shapes(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All combinations that are asked for."""
    names = ("cell", "hidden", "batch_rows", "width", "precision")
    options = (args.cells, args.hidden, args.batch_rows, args.widths, args.precisions)
    for values in itertools.product(*options):
        yield dict(zip(names, values, strict=True))


def _words(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--cells", type=_words, default=["lstm", "gru"])
    parser.add_argument("--hidden", type=_numbers, default=[64, 128, 192, 512])
    parser.add_argument("--batch-rows", type=_numbers, default=[64, 256, 1024, 4096])
    parser.add_argument("--widths", type=_numbers, default=[1, 8])
    parser.add_argument("--precisions", type=_words, default=["fp32", "bf16"])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    found = []
    for shape in shapes(args):
        found.append(measure(Case(args, shape), args.rounds))
        print(json.dumps(found[-1]), flush=True)
    name = torch.cuda.get_device_name() if args.device.startswith("cuda") else "cpu"
    ratios = [each["ours_over_bare"] for each in found]
    whole = {"device": name, "torch": torch.__version__, "least_ours_over_bare": min(ratios)}
    print(json.dumps(whole | {"median_ours_over_bare": round(statistics.median(ratios), 3)}))


if __name__ == "__main__":
    main()
