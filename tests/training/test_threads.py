import pytest
import torch
from models import CLASSES, PLAIN

from rnntune.config.schema import ModelConfig
from rnntune.model.network import Classifier
from rnntune.training import threads
from rnntune.training.threads import ThreadTuner, worthwhile_threads

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _restore():
    yield
    torch.set_num_threads(1)


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = ModelConfig(embedding_dim=8, hidden_size=6, **PLAIN)
    return Classifier(config, 20, len(CLASSES), sparse=True)


@pytest.fixture
def clock(monkeypatch):
    """Seconds of a step by number of threads, and the time of day."""
    step_s = {1: 1.0, 2: 1.0, 4: 1.0}
    now = [0.0]
    monkeypatch.setattr(threads, "_timed", lambda *_: step_s[torch.get_num_threads()])
    monkeypatch.setattr(threads.time, "perf_counter", lambda: now[0])
    return step_s, now


def tuner(model, most, **settings):
    made = ThreadTuner(model, CPU, most=most, batch_rows=4, **settings)
    made.measure()
    return made


@pytest.mark.parametrize(
    ("step_s", "chosen"),
    [
        ({1: 1.0, 2: 0.7, 4: 0.5}, 4),
        ({1: 1.0, 2: 0.7, 4: 0.69}, 2),
        ({1: 1.0, 2: 0.95, 4: 0.94}, 1),
        ({1: 1.0, 2: 90.0, 4: 90.0}, 1),
    ],
)
def test_more_threads_must_pay(model, clock, step_s, chosen):
    clock[0].update(step_s)
    assert tuner(model, 4).num_threads == chosen
    assert torch.get_num_threads() == chosen


def test_a_given_number_is_not_measured(model, monkeypatch):
    monkeypatch.setattr(threads, "_timed", lambda *_: pytest.fail("measured"))
    fixed = tuner(model, 4, fixed=3)
    fixed.on_progress(10)
    assert torch.get_num_threads() == 3
    assert tuner(model, 1).num_threads == 1


def test_a_busy_neighbour_is_noticed_and_its_end_too(model, clock):
    step_s, now = clock
    step_s.update({1: 1.0, 2: 0.6})
    made = tuner(model, 2)
    assert made.num_threads == 2
    rows = 0

    def train(rows_per_s, seconds):
        nonlocal rows
        for _ in range(2 * seconds):
            now[0] += 0.5
            rows += rows_per_s // 2
            made.on_progress(rows)

    train(10_000, 5)
    assert made.num_threads == 2
    step_s[2] = 30.0
    train(300, 2)
    assert made.num_threads == 1
    step_s[2] = 0.6
    train(6_000, 40)
    assert made.num_threads == 2


def test_measuring_changes_nothing_that_training_sees(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    model.eval()
    tuner(model, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training


def test_small_products_gain_nothing():
    assert [worthwhile_threads(size, 16) for size in (32, 64, 128)] == [1, 2, 8]
    assert [worthwhile_threads(size, 1) for size in (32, 64, 128)] == [1, 1, 1]
