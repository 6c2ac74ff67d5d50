"""One attempt at a search, from prepared data to `result.json`."""

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from rnntune import storage
from rnntune.cluster.waiting import await_room
from rnntune.config.load import Config
from rnntune.console import Terminal
from rnntune.data.prepared import PreparedDataset
from rnntune.data.sharing import share_split
from rnntune.errors import RnntuneError, RunError
from rnntune.training.calibration import Calibration
from rnntune.training.model_card import write_model_card
from rnntune.training.ray_trainer import explain_failure, fit_workers
from rnntune.training.recovery import check_checkpoints
from rnntune.training.report_data import keep_report_data
from rnntune.training.result import TrainingOutcome, finish_run, run_result
from rnntune.training.run_folder import RunFolder
from rnntune.training.saved_model import read_best_weights, save_model
from rnntune.training.shared_dataset import SharedDataset, rows_fit_store, share_dataset
from rnntune.tuning.aims import Aims
from rnntune.tuning.importance import importance, importance_interval
from rnntune.tuning.journal import Journal, Trial, TrialState, best_epoch
from rnntune.tuning.leaderboard import standing_line, standing_table
from rnntune.tuning.pareto import front_facts, write_best
from rnntune.tuning.plan import median_length, plan_search
from rnntune.tuning.population import schedule_of, write_schedule
from rnntune.tuning.results import journal_table
from rnntune.tuning.search import Search
from rnntune.tuning.space import Space
from rnntune.tuning.tracking import TrialTracking
from rnntune.tuning.trial_loop import TrialContext, dataset_key, trial_store
from rnntune.tuning.warm_start import WarmStart

__all__ = ["SearchSession"]


class SearchSession:
    """One attempt at a search, from prepared data to `result.json`."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        space: Space,
        prepared: dict[str, PreparedDataset],
        terminal: Terminal,
        warm: WarmStart | None = None,
    ) -> None:
        self.warm = warm
        # A trial's workers are the search's; best.yaml and a second training have as many.
        self.config = config.override({"train.num_workers": config.tune.workers_per_trial})
        self.folder, self.space, self.terminal = folder, space, terminal
        self.prepared = prepared
        self.plan = plan_search(config, space, prepared)
        self.feeds = self._feeds()
        self.journal = Journal(folder.inside("trials.jsonl"))
        self.aims = Aims.of(config.tune)
        self.metric = self.aims.first
        self.tracking = TrialTracking(config, folder, terminal)
        self.first_step_at: float | None = None

    def _feeds(self) -> dict[str, SharedDataset]:
        """Training and validation rows where trials reach them; the test rows stay behind."""
        feeds = {}
        in_store = rows_fit_store(list(self.prepared.values()), self.terminal)
        for data in self.space.finite("data."):
            rows: SharedDataset | None = None
            for vectors in self.space.finite("model.word_vectors"):
                changed = self.config.override({**data, **vectors})
                prepared = self.prepared[dataset_key(data)]
                splits = ("train", "validation") if rows is None else ()
                feed = share_dataset(changed, prepared, self.terminal, splits, in_store=in_store)
                rows = rows or feed
                feeds[dataset_key({**data, **vectors})] = dataclasses.replace(
                    feed, parts=rows.parts
                )
        return feeds

    def search(self) -> None:
        """Run the trials that are left."""
        from ray.tune.execution.placement_groups import PlacementGroupFactory

        from rnntune.tuning.tuner import run_search

        uri = self.folder.inside("search")
        search = Search(
            self.config,
            self.space,
            self.journal,
            uri,
            self.plan.max_concurrent,
            self.tracking.on_change,
            self.warm,
        )
        context = TrialContext(
            config=self.config,
            feeds=self.feeds,
            uri=uri,
            text_length=median_length(next(iter(self.prepared.values()))),
            workers=self.plan.workers,
            resources=self.plan.resources,
            use_gpu=self.plan.use_gpu,
        )
        # A trial of several workers only waits for them; Ray wants a bundle to hold something.
        bundle = dict(self.plan.resources) if self.plan.workers == 1 else {"memory": 1e6}

        def show() -> None:
            self.folder.check_owner()
            standing = (self.journal.trials, search.total, self.aims, self._left_s(search))
            self.terminal.update(standing_line(*standing), lambda: standing_table(*standing))

        try:
            if not search.all_over():
                await_room(self.plan.workers, self.plan.resources, self.terminal.line)
                run_search(search, context, PlacementGroupFactory([bundle]), show)
        except Exception as error:
            raise explain_failure(error, self.folder.uri) from error
        finally:
            self.terminal.done()
            self._write_table()
        self.terminal.line(standing_line(self.journal.trials, search.total, self.aims, None))
        self.first_step_at = search.first_step_at

    def _left_s(self, search: Search) -> float | None:
        over = [trial for trial in self.journal.trials if trial.is_over]
        budget = self.config.tune.time_budget_s
        lefts = [] if budget is None else [max(0.0, budget - search.elapsed_s)]
        if over:
            mean = sum(trial.seconds for trial in over) / len(over)
            lefts.append(mean * (search.total - len(over)) / self.plan.max_concurrent)
        return min(lefts, default=None)

    def _write_table(self) -> None:
        table = journal_table(self.config, self.journal.trials)
        storage.write_text(self.folder.inside("trials.csv"), table.to_csv(index=False))

    def finish(self) -> dict[str, Any]:
        """Choose the best trial, keep its model, and score it once on the test rows."""
        trials = self.journal.trials
        best = self.aims.chosen(trials)
        if best is None:
            reasons = [f"trial {t.number}: {t.reason}" for t in trials if t.reason]
            first = f"; {reasons[0]}" if reasons else ""
            raise RunError(f"{self.folder.uri}: none of {len(trials)} trials has a score{first}")
        chosen = self.config.override(best.values)
        write_best(self.config, self.folder, self.aims, trials)
        if chosen.tune.scheduler == "pbt":
            self._keep_schedule(best)
        prepared = self.prepared[_data_key(best.values)]
        if chosen.tune.ensemble > 1:
            scored = self._finish_ensemble(best, prepared)
        elif chosen.tune.refit or chosen.tune.folds or chosen.train.refit:
            scored = self._train_again(chosen, best, prepared)
        else:
            scored = self._evaluate(chosen, best, prepared)
        result = {**scored, **self._counts(best), **front_facts(self.aims, trials)}
        write_model_card(self.folder, chosen, prepared, result)
        return result

    def _keep_schedule(self, best: Trial) -> None:
        write_schedule(self.folder.inside("schedule.yaml"), best)
        if best.has_changed:
            self.terminal.line(
                "the best model's settings changed in training: schedule.yaml has them by epoch; "
                "best.yaml has the last ones, with which alone training ends elsewhere"
            )

    def _finish_ensemble(self, best: Trial, prepared: PreparedDataset) -> dict[str, Any]:
        from rnntune.tuning.ensemble_result import EnsembleFinish

        return EnsembleFinish(
            config=self.config,
            folder=self.folder,
            feeds=self.feeds,
            prepared=prepared,
            trials=self.journal.trials,
            best=best,
            metric=self.metric,
            terminal=self.terminal,
            first_step_at=self.first_step_at,
        ).run()

    def _evaluate(self, chosen: Config, best: Trial, prepared: PreparedDataset) -> dict[str, Any]:
        from rnntune.model.network import num_parameters
        from rnntune.tuning.ensemble import score_model

        model, weights, calibration = self._trained(chosen, best)
        feed = self.feeds[dataset_key(best.values)]
        parts = share_split(prepared, "test", in_store=False)
        start = time.perf_counter()
        scores, predictions = score_model(model, parts, calibration, packed=chosen.model.packed)
        save_model(chosen, self.folder, prepared, feed.vector_dim, weights, calibration)
        self.folder.write_metrics(best.history)
        with contextlib.suppress(RnntuneError):  # a report may lack it; the run must not fail by it
            keep_report_data(self.folder, prepared, predictions)
        last = best.history[-1]
        outcome = TrainingOutcome(
            test_accuracy=scores["test_accuracy"],
            test_macro_f1=scores["test_macro_f1"],
            test_micro_f1=scores.get("test_micro_f1"),
            test_rows=scores["test_rows"],
            history=best.history,
            best_epoch=best_epoch(best, self.metric)["epoch"],
            train_s=last["train_s"],
            train_rows_per_s=last["train_rows_per_s"],
            evaluate_s=time.perf_counter() - start,
            calibration=calibration,
            predictions=predictions,
            padding_fraction=last.get("padding_fraction"),
            num_parameters=num_parameters(model),
            world_size=self.plan.workers,
            first_step_at=self.first_step_at or time.time(),
        )
        return run_result(outcome, prepared.splits["train"].num_rows)

    def _trained(self, chosen: Config, best: Trial) -> tuple[Any, bytes, Calibration]:
        """The model of a trial, its weights, and what its validation rows say of it."""
        import torch
        from safetensors.torch import load

        from rnntune.data.loader import scoring_batches
        from rnntune.training.calibration import calibrate
        from rnntune.training.worker import build_model

        checkpoint = trial_store(self.folder.inside("search"), best.name).latest()
        if checkpoint is None:
            raise RunError(f"{self.folder.uri}: the checkpoint of {best.name} is gone")
        weights = read_best_weights(checkpoint)
        feed = self.feeds[dataset_key(best.values)]
        device = torch.device("cpu")
        model = build_model(chosen, feed, device)
        model.load_state_dict(load(weights))
        rows = scoring_batches(
            [p.part() for p in feed.parts["validation"]], padding=chosen.model.packed
        )
        return model, weights, calibrate(model, rows, device)

    def _train_again(
        self, chosen: Config, best: Trial, prepared: PreparedDataset
    ) -> dict[str, Any]:
        """Train the best configuration as `train` does, or on training plus validation rows."""
        refit = chosen.tune.refit
        feed = self.feeds[dataset_key(best.values)]
        train, validation = feed.parts["train"], feed.parts["validation"]
        parts = {
            "train": [*train, *validation] if refit else train,
            "validation": [] if refit else validation,
            "test": share_split(prepared, "test", in_store=feed.in_store),
        }
        whole = dataclasses.replace(feed, parts=parts)
        if refit and not chosen.tune.folds:
            # Without validation rows the temperature and thresholds are those of the trial.
            whole = dataclasses.replace(whole, calibration=self._trained(chosen, best)[2])
        check_checkpoints(self.folder.uri, self.terminal.line)
        rows = "training plus validation rows" if refit else "the training rows"
        self.terminal.line(f"training the best configuration on {rows}")
        again = chosen.override({"train.patience": 0, "train.refit": False}) if refit else chosen
        outcome = fit_workers(again, self.folder, whole, self.terminal)
        result = finish_run(again, self.folder, prepared, whole, outcome)
        epoch = best_epoch(best, self.metric)
        if refit:
            names = ("validation_accuracy", "validation_micro_f1")
            result.update({name: epoch[name] for name in names if name in epoch})
        if chosen.tune.folds:
            result["folds"] = chosen.tune.folds
            result["folds_validation_accuracy"] = epoch["validation_accuracy"]
            result["folds_standard_error"] = epoch["standard_error"]
        if refit:
            result["refit"] = True
            result["train_rows"] = sum(part.num_rows for part in parts["train"])
        return result

    def _counts(self, best: Trial) -> dict[str, Any]:
        trials = self.journal.trials
        overheads = [t.overhead_s for t in trials if t.overhead_s is not None]
        states = [trial.state for trial in trials]
        names = list(self.config.tune.space)
        seed = self.config.tune.seed
        return {
            "best_trial": best.number,
            "num_trials": len(trials),
            "num_finished": states.count(TrialState.FINISHED),
            "num_stopped": states.count(TrialState.STOPPED),
            "num_over_limit": states.count(TrialState.OVER_LIMIT),
            "num_errors": states.count(TrialState.FAILED) + states.count(TrialState.DIVERGED),
            "trial_overhead_s": round(sum(overheads) / len(overheads), 3) if overheads else None,
            "trained_epochs": sum(len(trial.history) for trial in trials),
            "importance": importance(trials, names, self.metric, seed),
            "importance_interval": importance_interval(trials, names, self.metric, seed),
            **({"warm_start": self.warm.summary()} if self.warm else {}),
            **({"schedule": schedule_of(best)} if self.config.tune.scheduler == "pbt" else {}),
        }


def _data_key(values: Mapping[str, Any]) -> str:
    return dataset_key({name: value for name, value in values.items() if name.startswith("data.")})
