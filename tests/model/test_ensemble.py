"""Several networks as one: whose mean it is."""

import numpy as np
import pytest
import torch
from models import PLAIN

from rnntune.config.schema import ModelConfig
from rnntune.data.task import Task
from rnntune.model.ensemble import Ensemble
from rnntune.model.network import Classifier


def networks(task: Task) -> list[Classifier]:
    made = []
    for number, hidden_size in enumerate((3, 5, 4)):
        torch.manual_seed(number)
        config = ModelConfig(embedding_dim=4, hidden_size=hidden_size, **PLAIN)
        network = Classifier(config, 9, 3, task=task).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_(std=2)
        made.append(network)
    return made


@pytest.mark.parametrize("task", list(Task))
def test_probabilities_are_the_weighted_mean(task):
    members, weights = networks(task), (3, 1, 4)
    ids, lengths = torch.tensor([[2, 3, 4], [5, 8, 0]]), torch.tensor([3, 2])

    def probabilities(network) -> torch.Tensor:
        logits = network(ids, lengths)
        return logits.sigmoid() if task.is_multi_label else logits.softmax(dim=1)

    with torch.inference_mode():
        expected = np.average([probabilities(m).numpy() for m in members], axis=0, weights=weights)
        found = probabilities(Ensemble(members, weights).eval()).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_class_of_no_chance_stays_one():
    members = networks(Task.SINGLE_LABEL)[:2]
    for member in members:
        with torch.no_grad():
            member.classifier.bias.copy_(torch.tensor([0.0, 500.0, -500.0]))
    with torch.inference_mode():
        logits = Ensemble(members, (1, 1)).eval()(torch.tensor([[2]]), torch.tensor([1]))
    assert torch.isfinite(logits).all()
    assert logits.softmax(dim=1)[0].tolist() == [0.0, 1.0, 0.0]
