"""The search for a good configuration: what is planned, run, and left behind."""

import dataclasses
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from rnntune import cache, cluster, journal, proposals, space, storage
from rnntune.config import Config
from rnntune.errors import RunError
from rnntune.journal import Journal, Trial
from rnntune.leaderboard import leaderboard, standing, standing_line
from rnntune.preflight import Plan, make_plan, median_length, place_trials, prepare_all
from rnntune.probe import probe
from rnntune.progress import Terminal
from rnntune.recovery import check_checkpoints
from rnntune.run import RunFolder
from rnntune.train import (
    best_weights,
    explained,
    finish,
    fit_workers,
    make_feed,
    save_model,
)
from rnntune.trial import Job, feed_key, latest_checkpoint
from rnntune.worker import Feed

if TYPE_CHECKING:
    from rnntune.classifier import TextClassifier

__all__ = ["TuneResult", "leaderboard", "plan", "tune"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneResult:
    """What a search left.

    Args:
        place: the run folder.
        result: the content of `result.json`.
        trials: every trial, the best first; the content of `trials.csv`.
        best: the best configuration, ready for `train`.
    """

    place: str
    result: dict[str, Any]
    trials: pd.DataFrame
    best: Config

    @property
    def model(self) -> "TextClassifier":
        """The best model, loaded."""
        from rnntune.classifier import load

        return load(self.place)


def plan(config: Config, *, verbose: bool = False, terminal: Terminal | None = None) -> Plan:
    """What `tune` would do with a configuration, without a trial; the data is prepared.

    Raises:
        ClusterError: not even one trial can be placed, with the numbers.
        RnntuneError: another mistake of the user's.
    """
    terminal = terminal or Terminal(silent=True)
    found = space.parse(config)
    proposals.check(config.tune, found)
    with cluster.connect(verbose=verbose):
        place_trials(config, found, cluster.resources())
        return make_plan(config, found, prepare_all(config, found, terminal))


def tune(
    config: Config,
    *,
    resume: bool = False,
    overwrite: bool = False,
    verbose: bool = False,
    terminal: Terminal | None = None,
) -> TuneResult:
    """Search for a good configuration as the command `rnntune tune` does.

    Args:
        config: all settings; `config.output` names the run folder.
        resume: go on with the search in that folder, with its own configuration.
        overwrite: replace a run that is there.
        verbose: let Ray log.
        terminal: where to show progress; None: nowhere.

    Raises:
        KeyboardInterrupt: the user stopped it; it can be resumed.
        RnntuneError: a mistake of the user's; see `rnntune.errors`.
    """
    terminal = terminal or Terminal(silent=True)
    begin = time.perf_counter()
    folder, config = RunFolder.open(config, resume=resume, overwrite=overwrite)
    if resume and (result := folder.finished()) is not None:
        terminal.line(f"{folder.place} is finished already")
        return _found(config, folder, result)
    found = space.parse(config)
    proposals.check(config.tune, found)
    with cluster.connect(verbose=verbose):
        place_trials(config, found, cluster.resources())
        probe([folder.place, config.data.cache_dir])
        connected = time.perf_counter()
        prepared = prepare_all(config, found, terminal)
        if not resume:
            folder.begin(config, overwrite=overwrite)
        session = _Session(config, folder, found, prepared, terminal)
        ready = time.perf_counter()
        started_at = time.time()
        session.search()
        searched = time.perf_counter()
        result = session.finish()
        waited = max(0.0, (session.first_step_at or started_at) - started_at)
        result["seconds"] = {
            "prepare": round(ready - connected, 2),
            "startup": round(connected - begin + waited, 2),
            "train": round(searched - ready, 2),
            "evaluate": round(time.perf_counter() - searched, 2),
            "total": round(time.perf_counter() - begin, 2),
        }
        folder.write_result(result)
    return _found(config, folder, result)


def _found(config: Config, folder: RunFolder, result: dict[str, Any]) -> TuneResult:
    kept = Journal(folder.inside("trials.jsonl"))
    return TuneResult(
        place=folder.place,
        result=result,
        trials=_table(config, kept.trials),
        best=Config.load(folder.inside("best.yaml")),
    )


def _table(config: Config, trials: list[Trial]) -> pd.DataFrame:
    names = list(config.tune.space)
    return journal.table(trials, names, config.tune.metric, proposals.mode_of(config.tune))


class _Session:
    """One attempt at a search, from prepared data to `result.json`."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        found: space.Space,
        prepared: dict[str, cache.Prepared],
        terminal: Terminal,
    ) -> None:
        # A trial's workers are the search's; best.yaml and a second training have as many.
        self.config = config.override({"train.num_workers": config.tune.workers_per_trial})
        self.folder, self.space, self.terminal = folder, found, terminal
        self.prepared = prepared
        self.plan = make_plan(config, found, prepared)
        self.feeds = self._feeds()
        self.journal = Journal(folder.inside("trials.jsonl"))
        self.metric, self.mode = config.tune.metric, proposals.mode_of(config.tune)
        self.first_step_at: float | None = None

    def _feeds(self) -> dict[str, Feed]:
        """Training and validation rows where trials reach them; the test rows stay behind."""
        feeds = {}
        for data in self.space.finite("data."):
            rows: Feed | None = None
            for vectors in self.space.finite("model.word_vectors"):
                changed = self.config.override({**data, **vectors})
                prepared = self.prepared[feed_key(data)]
                splits = ("train", "validation") if rows is None else ()
                feed = make_feed(changed, prepared, self.terminal, splits)
                rows = rows or feed
                feeds[feed_key({**data, **vectors})] = dataclasses.replace(feed, parts=rows.parts)
        return feeds

    def search(self) -> None:
        """Run the trials that are left."""
        from ray.tune.execution.placement_groups import PlacementGroupFactory

        from rnntune.search import Search

        place = self.folder.inside("search")
        found = Search(self.config, self.space, self.journal, place, self.plan.at_once)
        job = Job(
            config=self.config.to_dict(),
            feeds=self.feeds,
            place=place,
            text_length=median_length(next(iter(self.prepared.values()))),
            workers=self.plan.workers,
            resources=self.plan.resources,
            use_gpu=self.plan.use_gpu,
        )
        # A trial of several workers only waits for them; Ray wants a bundle to hold something.
        bundle = dict(self.plan.resources) if self.plan.workers == 1 else {"memory": 1e6}

        def show() -> None:
            left = self._left_s(found)
            told = (self.journal.trials, found.total, self.metric, self.mode, left)
            self.terminal.update(standing_line(*told), lambda: standing(*told))

        try:
            if not found.all_over():
                found.run(job, PlacementGroupFactory([bundle]), show)
        except Exception as error:
            raise explained(error, self.folder.place) from error
        finally:
            self.terminal.done()
            self._write_table()
        told = (self.journal.trials, found.total, self.metric, self.mode, None)
        self.terminal.line(standing_line(*told))
        self.first_step_at = found.first_step_at

    def _left_s(self, found: Any) -> float | None:
        over = [trial for trial in self.journal.trials if trial.is_over]
        budget = self.config.tune.time_budget_s
        lefts = [] if budget is None else [max(0.0, budget - found.elapsed_s)]
        if over:
            mean = sum(trial.seconds for trial in over) / len(over)
            lefts.append(mean * (found.total - len(over)) / self.plan.at_once)
        return min(lefts, default=None)

    def _write_table(self) -> None:
        table = _table(self.config, self.journal.trials)
        storage.write_text(self.folder.inside("trials.csv"), table.to_csv(index=False))

    def finish(self) -> dict[str, Any]:
        """Choose the best trial, keep its model, and score it once on the test rows."""
        trials = self.journal.trials
        best = journal.best_of(trials, self.metric, self.mode)
        if best is None:
            reasons = [f"trial {t.number}: {t.reason}" for t in trials if t.reason]
            first = f"; {reasons[0]}" if reasons else ""
            raise RunError(f"{self.folder.place}: none of {len(trials)} trials has a score{first}")
        chosen = self.config.override(best.values)
        tree = {**chosen.to_dict(), "output": None}
        tree.pop("tune")
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
        storage.write_text(self.folder.inside("best.yaml"), text)
        prepared = self.prepared[_data_key(best.values)]
        scored = self._refit(chosen, best, prepared) if chosen.tune.refit else None
        scored = scored or self._evaluate(chosen, best, prepared)
        return {**scored, **self._counts(best)}

    def _evaluate(self, chosen: Config, best: Trial, prepared: cache.Prepared) -> dict[str, Any]:
        import torch
        from safetensors.torch import load

        from rnntune import loop
        from rnntune.epochs import scoring_batches
        from rnntune.search import folders
        from rnntune.worker import build_model

        checkpoint = latest_checkpoint(self.folder.inside("search"), folders(best))
        if checkpoint is None:
            raise RunError(f"{self.folder.place}: the checkpoint of {best.name} is gone")
        weights = best_weights(checkpoint)
        feed = self.feeds[feed_key(best.values)]
        save_model(chosen, self.folder, prepared, feed.vector_dim, weights)
        device = torch.device("cpu")
        model = build_model(chosen, feed, device)
        model.load_state_dict(load(weights))
        parts = [part.part() for part in cache.share(prepared, "test", in_store=False)]
        batches = scoring_batches(parts, padding=chosen.model.packed)
        scores = loop.evaluate(model, batches, device, "test")
        self.folder.write_metrics(best.history)
        epoch = journal.best_epoch(best, self.metric, self.mode)
        return {
            "test_accuracy": scores["test_accuracy"],
            "test_macro_f1": scores["test_macro_f1"],
            "test_rows": scores["test_rows"],
            "validation_accuracy": epoch["validation_accuracy"],
            "train_rows": prepared.splits["train"].num_rows,
            "train_rows_per_s": round(best.history[-1]["train_rows_per_s"], 1),
            "padding_fraction": best.history[-1].get("padding_fraction"),
            "num_parameters": best.num_parameters,
            "world_size": self.plan.workers,
            "epochs": len(best.history),
            "best_epoch": epoch["epoch"],
            "refit": False,
        }

    def _refit(self, chosen: Config, best: Trial, prepared: cache.Prepared) -> dict[str, Any]:
        """Train the best configuration on training plus validation rows."""
        feed = self.feeds[feed_key(best.values)]
        there = cluster.resources()
        in_store = cache.fits_store(prepared, there.object_store_bytes)
        parts = {
            "train": [*feed.parts["train"], *feed.parts["validation"]],
            "validation": [],
            "test": cache.share(prepared, "test", in_store=in_store),
        }
        whole = dataclasses.replace(feed, parts=parts)
        check_checkpoints(self.folder.place)
        self.terminal.line("training the best configuration on training plus validation rows")
        again = chosen.override({"train.patience": 0})
        outcome = fit_workers(again, self.folder, whole, self.terminal)
        found = finish(again, self.folder, prepared, whole, outcome)
        epoch = journal.best_epoch(best, self.metric, self.mode)
        return {
            **found,
            "validation_accuracy": epoch["validation_accuracy"],
            "train_rows": sum(part.num_rows for part in parts["train"]),
            "refit": True,
        }

    def _counts(self, best: Trial) -> dict[str, Any]:
        trials = self.journal.trials
        overheads = [t.overhead_s for t in trials if t.overhead_s is not None]
        states = [trial.state for trial in trials]
        names = list(self.config.tune.space)
        seed = self.config.tune.seed
        return {
            "best_trial": best.number,
            "num_trials": len(trials),
            "num_finished": states.count("finished"),
            "num_stopped": states.count("stopped"),
            "num_over_limit": states.count("over limit"),
            "num_errors": states.count("failed") + states.count("diverged"),
            "trial_overhead_s": round(sum(overheads) / len(overheads), 3) if overheads else None,
            "trained_epochs": sum(len(trial.history) for trial in trials),
            "importance": journal.importance(trials, names, self.metric, self.mode, seed),
        }


def _data_key(values: Mapping[str, Any]) -> str:
    return feed_key({name: value for name, value in values.items() if name.startswith("data.")})
