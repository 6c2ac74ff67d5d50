import pytest
import torch
from models import PLAIN
from torch.nn.functional import cross_entropy

from rnntune.config.schema import ModelConfig, TrainConfig
from rnntune.errors import RunError
from rnntune.model.network import Classifier
from rnntune.training.optim import Optimizer, lr_multiplier

TRAIN = {"learning_rate": 0.002, "warmup_fraction": 0.0}


def _model(*, sparse: bool) -> Classifier:
    torch.manual_seed(0)
    still = {"embedding_dropout": 0.0, "dropout": 0.0, "word_dropout": 0.0}
    config = ModelConfig(embedding_dim=4, hidden_size=3, **{**PLAIN, **still})
    return Classifier(config, 20, 2, sparse=sparse)


def _step(model: Classifier, optimizer: Optimizer, ids: list[int], progress: float = 0.0):
    optimizer.zero_grad()
    (logits,) = model(torch.tensor([ids]), torch.tensor([len(ids)]), same_length=True)
    cross_entropy(logits, torch.tensor([1])).backward()
    return optimizer.step(progress)


def test_schedules():
    assert lr_multiplier("constant", 0, 0.9) == 1
    assert lr_multiplier("linear", 0, 0.25) == pytest.approx(0.75)
    assert lr_multiplier("cosine", 0, 0.5) == pytest.approx(0.5)
    assert lr_multiplier("linear", 0.1, 0.05) == pytest.approx(0.5)
    assert lr_multiplier("linear", 0.1, 0.1) == pytest.approx(1)
    for schedule in ("linear", "cosine"):
        assert lr_multiplier(schedule, 0.1, 1.0) == pytest.approx(0)


def test_a_sparse_step_moves_only_the_words_of_the_batch():
    model = _model(sparse=True)
    optimizer = Optimizer(model, TrainConfig(**TRAIN, schedule="constant"))
    before = model.embedding.weight.detach().clone()
    _step(model, optimizer, [3, 5])
    _step(model, optimizer, [5, 7])
    moved = (model.embedding.weight != before).any(dim=1).nonzero().ravel().tolist()
    assert moved == [3, 5, 7]


def test_the_first_sparse_step_equals_the_dense_one():
    sparse, dense = _model(sparse=True), _model(sparse=False)
    config = TrainConfig(**TRAIN, gradient_clip=0.0)
    _step(sparse, Optimizer(sparse, config), [3, 5, 3])
    _step(dense, Optimizer(dense, config), [3, 5, 3])
    for name, value in sparse.state_dict().items():
        torch.testing.assert_close(value, dense.state_dict()[name], msg=name)


def test_weight_decay_spares_the_embedding():
    model = _model(sparse=False)
    optimizer = Optimizer(
        model, TrainConfig(**{**TRAIN, "weight_decay": 10.0, "schedule": "constant"})
    )
    embedding = model.embedding.weight.detach().clone()
    kernel = model.rnn.weight_hh_l0.detach().abs().sum()
    _step(model, optimizer, [3])
    assert torch.equal(model.embedding.weight[10:], embedding[10:])
    assert model.rnn.weight_hh_l0.detach().abs().sum() < 0.99 * kernel


@pytest.mark.parametrize("sparse", [False, True])
def test_state_goes_on_exactly(sparse):
    def run(steps, resume_at=None):
        model = _model(sparse=sparse)
        optimizer = Optimizer(model, TrainConfig(**TRAIN))
        for step in range(steps):
            if step == resume_at:
                tensors = {k: v.clone() for k, v in optimizer.state_tensors().items()}
                assert tensors
                optimizer = Optimizer(model, TrainConfig(**TRAIN))
                optimizer.load_state_tensors(tensors)
            _step(model, optimizer, [3 + step, 5], step / steps)
        return model.state_dict()

    plain, resumed, forgetful = run(4), run(4, resume_at=2), run(3)
    for name, value in plain.items():
        assert torch.equal(value, resumed[name]), name
    assert not torch.equal(plain["classifier.weight"], forgetful["classifier.weight"])


@pytest.mark.parametrize("sparse", [False, True])
def test_state_goes_on_with_another_learning_rate_at_the_same_place_of_the_schedule(sparse):
    def moved(rate):
        model = _model(sparse=sparse)
        optimizer = Optimizer(model, TrainConfig(**TRAIN))
        for step in range(2):
            _step(model, optimizer, [3 + step, 5], step / 4)
        tensors = {k: v.clone() for k, v in optimizer.state_tensors().items()}
        optimizer = Optimizer(model, TrainConfig(**{**TRAIN, "learning_rate": rate}))
        optimizer.load_state_tensors(tensors)
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        _step(model, optimizer, [5, 3], 0.5)
        return {name: value.detach() - before[name] for name, value in model.named_parameters()}

    # Adam's step is its rate times what its moments say, and the rate is half of its peak here.
    same, tenfold = moved(TRAIN["learning_rate"]), moved(10 * TRAIN["learning_rate"])
    for name, value in same.items():
        torch.testing.assert_close(tenfold[name], 10 * value, rtol=1e-3, atol=1e-6, msg=name)
    assert 0 < same["classifier.bias"].abs().max() < 0.75 * TRAIN["learning_rate"]


def test_a_gradient_that_is_not_finite_changes_nothing():
    model = _model(sparse=True)
    optimizer = Optimizer(model, TrainConfig(**TRAIN))
    with torch.no_grad():
        model.classifier.bias[0] = float("nan")
    before = model.rnn.weight_hh_l0.detach().clone()
    assert not torch.isfinite(_step(model, optimizer, [3]))
    assert torch.equal(model.rnn.weight_hh_l0, before)


@pytest.mark.parametrize("sparse", [False, True])
def test_state_goes_on_with_the_other_kind_of_embedding_gradient(sparse):
    model = _model(sparse=sparse)
    optimizer = Optimizer(model, TrainConfig(**TRAIN))
    for step in range(3):
        _step(model, optimizer, [3 + step, 5])
    tensors = {key: value.clone() for key, value in optimizer.state_tensors().items()}
    assert tensors["embedding.weight/exp_avg"].abs().sum() > 0

    other = _model(sparse=not sparse)
    other.load_state_dict(model.state_dict())
    resumed = Optimizer(other, TrainConfig(**TRAIN))
    resumed.load_state_tensors(tensors)
    assert resumed.state_tensors().keys() == tensors.keys()
    for name, value in resumed.state_tensors().items():
        assert torch.equal(value.double(), tensors[name].double()), name
    before = other.embedding.weight.detach().clone()
    _step(model, optimizer, [5, 9])
    _step(other, resumed, [5, 9])
    moved = (other.embedding.weight != before).any(dim=1)
    assert moved[5]
    assert moved[9]
    for row in (5, 9):  # a dense step moves the rows of earlier batches on, too
        torch.testing.assert_close(other.embedding.weight[row], model.embedding.weight[row])
    torch.testing.assert_close(other.rnn.weight_hh_l0, model.rnn.weight_hh_l0)


def test_state_of_another_model_is_refused():
    model = _model(sparse=True)
    optimizer = Optimizer(model, TrainConfig(**TRAIN))
    _step(model, optimizer, [3, 5])
    tensors = optimizer.state_tensors()
    with pytest.raises(RunError, match="other/exp_avg: the model trains no such parameter"):
        Optimizer(model, TrainConfig(**TRAIN)).load_state_tensors({"other/exp_avg": torch.zeros(1)})
    tensors["embedding.weight/exp_avg"] = torch.zeros(3, 4)
    with pytest.raises(RunError, match=r"exp_avg is \(3, 4\), its parameter \(20, 4\)"):
        Optimizer(model, TrainConfig(**TRAIN)).load_state_tensors(tensors)
