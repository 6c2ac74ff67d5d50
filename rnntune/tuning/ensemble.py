"""The ensemble of a search: models of its best trials, their mean, its scores, its folder.

All of it is a function of the journal and the trials' checkpoints, so that a search that was
killed while it was made comes to the same ensemble.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from safetensors.torch import load

from rnntune.config.load import Config
from rnntune.config.metric import Metric
from rnntune.data.loader import Shard, scoring_batches
from rnntune.data.prepared import PreparedDataset, ShardRef
from rnntune.errors import RunError
from rnntune.model.ensemble import Ensemble, Network
from rnntune.model.network import Classifier, num_parameters
from rnntune.training.calibration import Calibration, calibrate
from rnntune.training.evaluation import (
    SplitPredictions,
    evaluate_split,
    predict_split,
    score_batches,
)
from rnntune.training.report_data import MOST_PREDICTIONS
from rnntune.training.result import calibration_scores
from rnntune.training.saved_model import read_best_weights, save_ensemble
from rnntune.training.shared_dataset import SharedDataset
from rnntune.training.worker import build_model
from rnntune.tuning.ensemble_selection import num_candidates, select_members
from rnntune.tuning.journal import Trial, best_score, ranked_trials
from rnntune.tuning.trial_loop import dataset_key, trial_store

__all__ = ["EnsembleMember", "SearchEnsemble", "build_ensemble", "read_trial_model", "score_model"]
_CPU = torch.device("cpu")
_MAX_CELLS = 50_000_000  # probabilities of all candidates that are compared


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnsembleMember:
    """The model of a trial.

    Args:
        trial: where it comes from.
        config: of the trial.
        network: with the weights of the trial's best epoch, on the CPU.
        weights: the same as a safetensors file.
        vector_dim: size of its word vectors.
        weight: in the mean, how often it was chosen.
    """

    trial: Trial
    config: Config
    network: Classifier
    weights: bytes
    vector_dim: int
    weight: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchEnsemble:
    """The chosen models and their mean.

    Args:
        members: the heaviest first.
        network: the mean of their probabilities.
        validation: its figures on the validation rows.
        calibration: its temperature, or its thresholds.
    """

    members: Sequence[EnsembleMember]
    network: Ensemble
    validation: Mapping[str, Any]
    calibration: Calibration

    @property
    def packed(self) -> bool:
        """Whether no member reads the padding of a batch."""
        return all(member.config.model.packed for member in self.members)

    @property
    def fingerprint(self) -> str:
        """Changes with the members and their weights."""
        text = json.dumps([[m.trial.number, m.trial.values, m.weight] for m in self.members])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def save(self, uri: str, prepared: PreparedDataset) -> None:
        """Write it as one model folder."""
        members = [(m.config, m.weight, m.vector_dim) for m in self.members]
        weights = [member.weights for member in self.members]
        save_ensemble(uri, members, prepared, weights, self.calibration)

    def facts(self, metric: Metric) -> dict[str, Any]:
        """What `result.json` tells of it besides its scores."""
        return {
            "members": [
                {
                    "trial": member.trial.number,
                    "weight": member.weight,
                    metric.name: best_score(member.trial, metric),
                }
                for member in self.members
            ],
            "num_parameters": num_parameters(self.network),
            **calibration_scores(self.calibration),
        }


def build_ensemble(
    config: Config,
    uri: str,
    feeds: Mapping[str, SharedDataset],
    trials: Sequence[Trial],
    metric: Metric,
) -> SearchEnsemble:
    """Choose of the best trials' models those whose mean has the lowest loss on validation rows.

    Args:
        config: of the search.
        uri: folder of the trials.
        feeds: rows by `dataset_key`.
        trials: of the search.
        metric: that trials are compared by.

    Raises:
        RunError: the checkpoint of a trial is gone or damaged.
    """
    ranked = ranked_trials(trials, metric)[: num_candidates(config.tune)]
    candidates = [read_trial_model(config, uri, feeds, trial) for trial in ranked]
    shards = [part.part() for part in feeds[dataset_key(ranked[0].values)].parts["validation"]]
    scored = [_probabilities(each, shards, len(candidates)) for each in candidates]
    counts = select_members(
        [probabilities for probabilities, _ in scored],
        scored[0][1],
        config.tune.ensemble,
    )
    members = [
        dataclasses.replace(candidates[number], weight=count) for number, count in counts.items()
    ]
    network = Ensemble([m.network for m in members], [m.weight for m in members])
    packed = all(member.config.model.packed for member in members)
    return SearchEnsemble(
        members=members,
        network=network,
        validation=evaluate_split(
            network, scoring_batches(shards, padding=packed), _CPU, "validation"
        ),
        calibration=calibrate(network, scoring_batches(shards, padding=packed), _CPU),
    )


def read_trial_model(
    config: Config, uri: str, feeds: Mapping[str, SharedDataset], trial: Trial
) -> EnsembleMember:
    """The model of a trial's best epoch.

    Args:
        config: of the search.
        uri: folder of the trials.
        feeds: rows by `dataset_key`.
        trial: with a checkpoint.

    Raises:
        RunError: the checkpoint is gone or damaged.
    """
    checkpoint = trial_store(uri, trial.name).latest()
    if checkpoint is None:
        raise RunError(f"{uri}: the checkpoint of {trial.name} is gone")
    weights = read_best_weights(checkpoint)
    own = config.override(trial.values)
    feed = feeds[dataset_key(trial.values)]
    network = build_model(own, feed, _CPU)
    network.load_state_dict(load(weights))
    return EnsembleMember(
        trial=trial,
        config=own,
        network=network.eval(),
        weights=weights,
        vector_dim=feed.vector_dim,
    )


def _probabilities(
    member: EnsembleMember, shards: Sequence[Shard], num_candidates: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Probabilities of the first validation rows and their labels, in the order of the rows."""
    num_classes = member.network.num_classes
    most = max(1, _MAX_CELLS // (num_candidates * num_classes))
    num_rows = min(sum(shard.num_rows for shard in shards), most)
    probabilities = np.empty((num_rows, num_classes), dtype=np.float32)
    labels: np.ndarray[Any, Any] | None = None
    batches = scoring_batches(shards, padding=member.config.model.packed)
    for scores in score_batches(member.network, batches, _CPU):
        given = scores.labels.numpy()
        if labels is None:
            labels = np.empty((num_rows, *given.shape[1:]), dtype=given.dtype)
        rows = scores.rows.numpy()
        inside = rows < num_rows
        probabilities[rows[inside]] = scores.probabilities.numpy()[inside]
        labels[rows[inside]] = given[inside]
    assert labels is not None, "a search has validation rows"
    return probabilities, labels


def score_model(
    network: Network, parts: Sequence[ShardRef], calibration: Calibration, *, packed: bool
) -> tuple[dict[str, Any], SplitPredictions]:
    """Figures of a model on the test rows, and what it predicts for the first of them.

    Args:
        network: the model, on the CPU.
        parts: the test rows.
        calibration: of the model.
        packed: whether it may be given rows of several lengths at once.
    """
    return predict_split(
        network,
        scoring_batches([part.part() for part in parts], padding=packed),
        _CPU,
        "test",
        temperature=calibration.temperature,
        most_rows=MOST_PREDICTIONS,
        thresholds=calibration.thresholds,
    )
