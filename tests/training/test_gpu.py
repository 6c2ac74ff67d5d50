import numpy as np
import pytest
import torch
from models import PLAIN
from strategies import coded_rows

from rnntune.config.schema import BatchingConfig, ModelConfig, TrainConfig
from rnntune.data.batching import EncodedRows
from rnntune.data.loader import Shard, TrainBatches, scoring_batches
from rnntune.model.network import Classifier
from rnntune.training.loop import fit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


TRAIN = {
    "epochs": 2,
    "learning_rate": 0.002,
    "warmup_fraction": 0.0,
    "label_smoothing": 0.0,
    "patience": 0,
    "average_weights": False,
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_loop_trains_on_a_gpu(precision):
    device = torch.device("cuda")
    rows = coded_rows(np.random.default_rng(0).integers(2, 9, 64).astype(np.int32))
    rows = EncodedRows(ids=rows.ids % 28 + 2, lengths=rows.lengths, labels=rows.labels % 2)
    parts = [Shard(num_rows=64, load=lambda: rows)]
    model = Classifier(ModelConfig(embedding_dim=8, hidden_size=8, **PLAIN), 30, 2).to(device)
    state = fit(
        model,
        TrainBatches(parts, BatchingConfig(batch_rows=16), seed=0, default_width=8),
        lambda: scoring_batches(parts),
        TrainConfig(**TRAIN, precision=precision),
        device=device,
        report=lambda _: None,
    )
    assert state.trained_rows == 128
    assert np.isfinite(state.history[-1]["validation_loss"])


def test_a_gpu_gives_the_cpus_logits():
    torch.manual_seed(0)
    model = Classifier(ModelConfig(embedding_dim=8, hidden_size=8, **PLAIN), 30, 3).eval()
    ids, lengths = torch.randint(2, 30, (4, 9)), torch.tensor([9, 3, 5, 9])
    expected = model(ids, lengths)
    there = model.cuda()(ids.cuda(), lengths).cpu()
    torch.testing.assert_close(there, expected, rtol=1e-3, atol=1e-4)
