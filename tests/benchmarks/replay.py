"""Searchers and schedulers side by side, replayed from learning curves that were trained once.

    python tests/benchmarks/replay.py [--seeds 50] [--sets banking77,...] [--methods NAME,...]

`replay_table.json.gz` holds the curves of `replay_collect.py` (`--pack CURVES` packs them).
A replay proposes configurations, trains them epoch by epoch with two at once as rnntune would, and
stops when its budget is spent: that of 8, 16, 32 or 64 whole trials, counted in epochs or in wall
time. Its regret is the best validation accuracy of the table less the best one that it saw.

All methods propose among the configurations of the table that they have not taken: what is drawn at
random is uniform over them; TPE draws its candidates from them in proportion to the density of its
good trials, in place of drawing from this density; the Gaussian process takes the one among them
with the largest acquisition. Population-based training changes settings as it trains, so no table
can replay it.

Prints tables in Markdown, and a JSON object as the last line.
"""

import argparse
import dataclasses
import gzip
import heapq
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rnntune.config.load import Config
from rnntune.config.schema import TuneConfig
from rnntune.tuning.journal import Trial, TrialState
from rnntune.tuning.space import Space
from rnntune.tuning.space_parser import parse_space

TABLE = Path(__file__).with_name("replay_table.json.gz")
BUDGETS = (8, 16, 32, 64)
METHODS = ("random", "random+asha", "random+oneepoch", "tpe", "tpe-lists+asha", "tpe+asha")
METHODS += ("tpe-budget+hyperband", "surface+promote", "default+surface+thaw", "cqr+promote")
METHODS += ("default+random+semifinal", "default+tpe-loss+lossepoch", "default+tpe-loss+semifinal")
METHODS += ("default+tpe-loss+semifinal2", "gp+asha", "gp-loss+lossepoch", "gp-loss+semifinal")
AGAINST = ("random", "tpe-lists+asha", "random+oneepoch")
_METRIC = "validation_accuracy"


@dataclasses.dataclass(frozen=True)
class Curves:
    """The learning curves of a data set.

    Args:
        name: of the set.
        space: the configurations were drawn from.
        values: settings of each; the first ones are the defaults.
        scores: float (configurations, epochs), larger is better.
        losses: float (configurations, epochs), of the validation rows.
        seconds: float (configurations, epochs), of each epoch.
    """

    name: str
    space: Space
    values: Sequence[dict[str, Any]]
    scores: np.ndarray
    losses: np.ndarray
    seconds: np.ndarray

    @property
    def num_epochs(self) -> int:
        """Epochs of a whole trial."""
        return int(self.scores.shape[1])

    @property
    def best(self) -> float:
        """The best score of the table."""
        return float(self.scores.max())


class Method(Protocol):
    """A searcher with a scheduler, driven by a `Replay`."""

    def next(self, replay: "Replay") -> int | None:
        """The trial to train on now, new or paused; None: none before another one reports."""

    def goes_on(self, replay: "Replay", trial: Trial, epoch: int, score: float) -> bool:
        """Whether a trial that reported goes on at once."""


class Replay:
    """One search over a table.

    Args:
        curves: the table.
        method: that searches.
        seed: of the search.
        budget: epochs, or seconds of wall time.
        by_time: whether the budget is wall time.
        concurrency: trials at once.
    """

    def __init__(
        self,
        curves: Curves,
        method: Method,
        seed: int,
        budget: float,
        *,
        by_time: bool = False,
        concurrency: int = 2,
    ) -> None:
        self.curves, self.method, self.seed = curves, method, seed
        self.budget, self.by_time, self.concurrency = budget, by_time, concurrency
        self.trials: list[Trial] = []
        self.rows: list[int] = []
        self.num_epochs = 0
        self.clock = 0.0
        self.best = -np.inf
        self.history: list[tuple[float, float]] = []  # spent, best so far
        self._running: list[tuple[float, int]] = []

    @property
    def spent(self) -> float:
        """Part of the budget that is spent."""
        return (self.clock if self.by_time else self.num_epochs) / self.budget

    @property
    def free_rows(self) -> np.ndarray:
        """Rows of the table that no trial has, in order."""
        return np.setdiff1d(np.arange(len(self.curves.values)), self.rows)

    @property
    def running(self) -> set[int]:
        """Numbers of the trials that train now."""
        return {number for _, number in self._running}

    def random_row(self) -> int:
        """A row at random that no trial has."""
        return int(np.random.default_rng([self.seed, len(self.trials)]).choice(self.free_rows))

    def new_trial(self, row: int) -> int:
        """Start a trial of a configuration; its number."""
        number = len(self.trials)
        values = dict(self.curves.values[row])
        self.trials.append(Trial(number=number, values=values, epochs=self.curves.num_epochs))
        self.rows.append(row)
        return number

    def run(self) -> float:
        """Search until the budget is spent; the regret."""
        while self.spent < 1:
            while len(self._running) < self.concurrency:
                in_flight = 0 if self.by_time else len(self._running)
                if not self.by_time and self.num_epochs + in_flight >= self.budget:
                    break
                number = self.method.next(self)
                if number is None:
                    break
                self.trials[number].state = TrialState.RUNNING
                self._train(number)
            if not self._running:
                break
            self.clock, number = heapq.heappop(self._running)
            if self.by_time and self.clock > self.budget:
                break
            self._report(number)
        return self.curves.best - self.best

    def _train(self, number: int) -> None:
        """Train a trial's next epoch."""
        row, epoch = self.rows[number], len(self.trials[number].history)
        seconds = float(self.curves.seconds[row, epoch]) if self.by_time else 1.0
        heapq.heappush(self._running, (self.clock + seconds, number))

    def _report(self, number: int) -> None:
        trial, row = self.trials[number], self.rows[number]
        epoch = len(trial.history) + 1
        score = float(self.curves.scores[row, epoch - 1])
        loss = float(self.curves.losses[row, epoch - 1])
        trial.history.append({"epoch": epoch, _METRIC: score, "validation_loss": loss})
        self.num_epochs += 1
        self.best = max(self.best, score)
        self.history.append((self.spent, self.best))
        on = self.method.goes_on(self, trial, epoch, score)
        if epoch == self.curves.num_epochs:
            trial.state = TrialState.FINISHED
        elif not on:
            trial.state = TrialState.STOPPED
        elif self.by_time or self.num_epochs + len(self._running) < self.budget:
            self._train(number)


def read_table(path: Path = TABLE) -> dict[str, Curves]:
    """The curves of each set."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        table = json.load(file)
    return {name: _curves(name, each) for name, each in table.items()}


def _curves(name: str, table: dict[str, Any]) -> Curves:
    space = parse_space(Config.load(None, {"tune.space": table["space"]}))
    values = [dict(zip(space.names, row, strict=True)) for row in table["values"]]
    losses = np.array(table["validation_loss"])
    seconds = np.diff(np.array(table["seconds"]), axis=1, prepend=0.0)
    return Curves(name, space, values, np.array(table[_METRIC]), losses, seconds)


def pack(curves: Path, path: Path = TABLE) -> None:
    """Write the table from the lines of `replay_collect.py`: as many of each set."""
    lines = [json.loads(line) for line in curves.read_text(encoding="utf-8").splitlines()]
    by_set: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_set.setdefault(line["set"], []).append(line)
    most = min(map(len, by_set.values()))
    table = {name: _packed(each[:most]) for name, each in sorted(by_set.items())}
    text = json.dumps(table, separators=(",", ":"))
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        file.write(text.encode())


def _packed(lines: list[dict[str, Any]]) -> dict[str, Any]:
    names = list(lines[0]["values"])
    columns = (_METRIC, "validation_macro_f1", "validation_loss", "seconds")
    return {
        "space": {name: TuneConfig().space[name] for name in names},
        "values": [[_short(line["values"][name]) for name in names] for line in lines],
        **{
            column: [[epoch[number] for epoch in line["epochs"]] for line in lines]
            for number, column in enumerate(columns)
        },
        **{name: [line[name] for line in lines] for name in ("num_parameters", "latency_ms")},
    }


def _short(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


@dataclasses.dataclass(frozen=True)
class Regrets:
    """The regrets of a method with each seed.

    Args:
        method: its name.
        set: name of the data set.
        budget: in whole trials.
        by_time: whether the budget is wall time, in place of epochs.
        values: in the order of the seeds.
    """

    method: str
    set: str
    budget: int
    by_time: bool
    values: tuple[float, ...]


def replay_all(curves: Curves, method: str, budget: int, seeds: int, *, by_time: bool) -> Regrets:
    """Replay a method with each seed.

    Args:
        curves: the table.
        method: its name.
        budget: in whole trials; in wall time, as long as two at once take for them in the mean.
        seeds: number of them.
        by_time: whether the budget is wall time.
    """
    from replay_methods import make

    amount = budget * curves.num_epochs * 1.0
    if by_time:
        amount = budget * float(curves.seconds.sum(axis=1).mean()) / 2
    values = [
        Replay(
            curves,
            make(method, budget, curves.num_epochs, by_time=by_time),
            seed,
            amount,
            by_time=by_time,
        ).run()
        for seed in range(seeds)
    ]
    return Regrets(method, curves.name, budget, by_time, tuple(round(v, 5) for v in values))


def compare(one: Regrets, other: Regrets) -> float:
    """The p value of a paired test over the seeds that both have (Wilcoxon, two-sided)."""
    from scipy.stats import wilcoxon

    pairs = list(zip(one.values, other.values, strict=False))
    if all(a == b for a, b in pairs):
        return 1.0
    return float(wilcoxon(*zip(*pairs, strict=True)).pvalue)


def markdown(results: Sequence[Regrets], against: Sequence[str]) -> str:
    """A table for each budget: mean regret in points with its 95% interval, and p values.

    Args:
        results: of all methods.
        against: methods that the others are tested against.
    """
    lines = []
    for key in sorted({(r.by_time, r.set, r.budget) for r in results}):
        rows = [r for r in results if (r.by_time, r.set, r.budget) == key]
        by_name = {r.method: r for r in rows}
        others = [name for name in against if name in by_name]
        unit = "wall time" if key[0] else "epochs"
        lines += ["", f"{key[1]}, {unit} of {key[2]} trials", ""]
        lines.append("| method | regret, points | " + " | ".join(f"p, {n}" for n in others) + " |")
        lines.append("|---|---|" + "---|" * len(others))
        for row in sorted(rows, key=lambda r: float(np.mean(r.values))):
            values = 100 * np.array(row.values)
            half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
            p = " | ".join(f"{compare(row, by_name[name]):.2g}" for name in others)
            seeds = (
                "" if len(values) == max(len(r.values) for r in rows) else f", {len(values)} seeds"
            )
            lines.append(f"| {row.method} | {values.mean():.2f} ± {half:.2f}{seeds} | {p} |")
    return "\n".join(lines)


def main() -> None:
    """Replay and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, metavar="CURVES", help="write the table and end")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--sets", type=lambda text: text.split(","))
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS))
    parser.add_argument("--budgets", type=_numbers, default=list(BUDGETS))
    parser.add_argument("--clocks", type=lambda text: text.split(","), default=["epochs", "time"])
    parser.add_argument("--against", type=lambda text: text.split(","), default=list(AGAINST))
    parser.add_argument(
        "--lines", type=Path, help="results of earlier calls, which this one adds to"
    )
    args = parser.parse_args()
    if args.pack:
        pack(args.pack, args.table)
        return
    table = read_table(args.table)
    results = _read_lines(args.lines)
    held = {(r.method, r.set, r.budget, r.by_time) for r in results}
    for budget in args.budgets:
        for method in args.methods:
            for name in args.sets or table:
                for clock in args.clocks:
                    if (method, name, budget, clock == "time") in held:
                        continue
                    result = replay_all(
                        table[name], method, budget, args.seeds, by_time=clock == "time"
                    )
                    results.append(result)
                    if args.lines:
                        with args.lines.open("a", encoding="utf-8") as file:
                            print(json.dumps(dataclasses.asdict(result)), file=file)
    print(markdown(results, args.against))
    print(json.dumps([dataclasses.asdict(result) for result in results]))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _read_lines(path: Path | None) -> list[Regrets]:
    if path is None or not path.exists():
        return []
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [Regrets(**{**line, "values": tuple(line["values"])}) for line in lines]


if __name__ == "__main__":
    main()
