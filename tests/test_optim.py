import pytest
import torch
from torch.nn.functional import cross_entropy

from rnntune.config import ModelConfig, TrainConfig
from rnntune.model import Classifier
from rnntune.optim import Optimizer, rate_factor


def _model(*, sparse: bool) -> Classifier:
    torch.manual_seed(0)
    still = {"embedding_dropout": 0.0, "dropout": 0.0, "word_dropout": 0.0}
    config = ModelConfig(embedding_dim=4, hidden_size=3, **still)
    return Classifier(config, 20, 2, sparse=sparse)


def _step(model: Classifier, optimizer: Optimizer, ids: list[int], progress: float = 0.0):
    optimizer.zero_grad()
    logits = model(torch.tensor([ids]), torch.tensor([len(ids)]), uniform=True)
    cross_entropy(logits, torch.tensor([1])).backward()
    return optimizer.step(progress)


def test_schedules():
    assert rate_factor("constant", 0, 0.9) == 1
    assert rate_factor("linear", 0, 0.25) == pytest.approx(0.75)
    assert rate_factor("cosine", 0, 0.5) == pytest.approx(0.5)
    assert rate_factor("linear", 0.1, 0.05) == pytest.approx(0.5)
    assert rate_factor("linear", 0.1, 0.1) == pytest.approx(1)
    for schedule in ("linear", "cosine"):
        assert rate_factor(schedule, 0.1, 1.0) == pytest.approx(0)


def test_a_sparse_step_moves_only_the_words_of_the_batch():
    model = _model(sparse=True)
    optimizer = Optimizer(model, TrainConfig(schedule="constant"))
    before = model.embedding.weight.detach().clone()
    _step(model, optimizer, [3, 5])
    _step(model, optimizer, [5, 7])
    moved = (model.embedding.weight != before).any(dim=1).nonzero().ravel().tolist()
    assert moved == [3, 5, 7]


def test_the_first_sparse_step_equals_the_dense_one():
    sparse, dense = _model(sparse=True), _model(sparse=False)
    config = TrainConfig(gradient_clip=0.0)
    _step(sparse, Optimizer(sparse, config), [3, 5, 3])
    _step(dense, Optimizer(dense, config), [3, 5, 3])
    for name, value in sparse.state_dict().items():
        torch.testing.assert_close(value, dense.state_dict()[name], msg=name)


def test_weight_decay_spares_the_embedding():
    model = _model(sparse=False)
    optimizer = Optimizer(model, TrainConfig(weight_decay=10.0, schedule="constant"))
    embedding = model.embedding.weight.detach().clone()
    kernel = model.rnn.weight_hh_l0.detach().abs().sum()
    _step(model, optimizer, [3])
    assert torch.equal(model.embedding.weight[10:], embedding[10:])
    assert model.rnn.weight_hh_l0.detach().abs().sum() < 0.99 * kernel


@pytest.mark.parametrize("sparse", [False, True])
def test_state_goes_on_exactly(sparse):
    def run(steps, resume_at=None):
        model = _model(sparse=sparse)
        optimizer = Optimizer(model, TrainConfig())
        for step in range(steps):
            if step == resume_at:
                tensors = {k: v.clone() for k, v in optimizer.state_tensors().items()}
                assert tensors
                optimizer = Optimizer(model, TrainConfig())
                optimizer.load_state_tensors(tensors)
            _step(model, optimizer, [3 + step, 5], step / steps)
        return model.state_dict()

    plain, resumed, forgetful = run(4), run(4, resume_at=2), run(3)
    for name, value in plain.items():
        assert torch.equal(value, resumed[name]), name
    assert not torch.equal(plain["classifier.weight"], forgetful["classifier.weight"])


def test_a_gradient_that_is_not_finite_changes_nothing():
    model = _model(sparse=True)
    optimizer = Optimizer(model, TrainConfig())
    with torch.no_grad():
        model.classifier.bias[0] = float("nan")
    before = model.rnn.weight_hh_l0.detach().clone()
    assert not torch.isfinite(_step(model, optimizer, [3]))
    assert torch.equal(model.rnn.weight_hh_l0, before)
