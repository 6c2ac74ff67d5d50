"""What a search leaves to train from: `best.yaml`, and with several aims `pareto.yaml`.

`pareto.yaml` is a list, a mapping for each trial of the front, the best by the first aim first:

    - trial: 3
      metrics: {validation_accuracy: 0.91, latency_ms: 0.4}
      is_knee: false
      config: {data: ..., batching: ..., model: ..., train: ...}     complete, as in best.yaml
"""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from rnntune import storage
from rnntune.config.load import Config
from rnntune.training.run_folder import RunFolder
from rnntune.tuning.aims import Aims
from rnntune.tuning.journal import Trial

__all__ = ["front_facts", "write_best"]


def write_best(config: Config, folder: RunFolder, aims: Aims, trials: Sequence[Trial]) -> None:
    """Write the configuration of the trial that is chosen, and those of the whole front.

    Args:
        config: of the search.
        folder: the run folder.
        aims: of the search.
        trials: at least one of them with a score.
    """
    front = aims.front(trials)
    knee = aims.knee(front)
    assert knee is not None
    if aims.are_several:
        points = [
            {
                "trial": trial.number,
                "metrics": aims.values(trial),
                "is_knee": trial is knee,
                "config": _settings(config, trial.values),
            }
            for trial in front
        ]
        storage.write_text(folder.inside("pareto.yaml"), _yaml(points))
    storage.write_text(folder.inside("best.yaml"), _yaml(_settings(config, knee.values)))


def front_facts(aims: Aims, trials: Sequence[Trial]) -> dict[str, Any]:
    """What `result.json` says of the front; nothing with one aim.

    Returns:
        `metrics`, their names, and `front`, each trial with its number and its values.
    """
    if not aims.are_several:
        return {}
    front = [{"trial": t.number, **(aims.values(t) or {})} for t in aims.front(trials)]
    return {"metrics": list(aims.names), "front": front}


def _settings(config: Config, values: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a trial, for `train`."""
    tree = {**config.override(values).to_dict(), "output": None}
    tree.pop("tune")
    return tree


def _yaml(content: Any) -> str:
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return text
