import json

import pytest
import torch

from rnntune import checkpoint
from rnntune.checkpoint import Snapshot, State
from rnntune.config import ModelConfig
from rnntune.errors import RunError
from rnntune.model import Classifier


def _snapshot(best: bool = True) -> Snapshot:
    return Snapshot(
        state=State(epoch=2, position=7, rows=50, history=[{"epoch": 1}, {"epoch": 2}]),
        model={"w": torch.arange(6.0).reshape(2, 3)},
        optimizer={"0.1.step": torch.tensor(3.0)},
        best={"w": torch.zeros(2, 3)} if best else None,
        identity={"data": "abc"},
    )


@pytest.mark.parametrize("best", [False, True])
def test_round_trip(tmp_path, best):
    checkpoint.save_snapshot(tmp_path, _snapshot(best))
    found = checkpoint.load_snapshot(tmp_path, {"data": "abc"})
    assert found.state == _snapshot().state
    assert torch.equal(found.model["w"], _snapshot().model["w"])
    assert found.optimizer["0.1.step"] == 3
    assert (found.best is not None) == best


@pytest.mark.parametrize("name", ["model", "optimizer", "best"])
def test_a_truncated_file_is_refused(tmp_path, name):
    checkpoint.save_snapshot(tmp_path, _snapshot())
    file = tmp_path / f"{name}.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(RunError, match=f"{name}.safetensors: truncated checkpoint"):
        checkpoint.load_snapshot(tmp_path, {})


def test_a_changed_byte_is_refused(tmp_path):
    checkpoint.save_snapshot(tmp_path, _snapshot())
    file = tmp_path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunError, match="damaged"):
        checkpoint.verify(tmp_path)


def test_a_foreign_checkpoint_is_refused(tmp_path):
    checkpoint.save_snapshot(tmp_path, _snapshot())
    with pytest.raises(RunError, match="another run: data is 'abc', not 'xyz'"):
        checkpoint.load_snapshot(tmp_path, {"data": "xyz"})


def test_what_is_not_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(RunError, match="not a checkpoint"):
        checkpoint.verify(tmp_path)
    (tmp_path / "state.json").write_text(json.dumps({"version": 99}))
    with pytest.raises(RunError, match="of this version"):
        checkpoint.verify(tmp_path)


def _write(place: str, weights: bytes | None = None) -> Classifier:
    from safetensors.torch import save

    config = ModelConfig(embedding_dim=3, hidden_size=2)
    model = Classifier(config, 4, 2)
    description = checkpoint.Description(
        model=config, classes=("a", "b"), clean=False, max_length=9,
        text_columns=("text",), label_column="label",
    )  # fmt: skip
    content = save(model.state_dict()) if weights is None else weights
    checkpoint.write_model(place, content, "<pad>\n<unk>\nx\ny\n", description)
    return model


def test_a_model_folder_gives_the_model_back(tmp_path):
    model = _write(str(tmp_path / "run" / "model"))
    found, vocab_text, description = checkpoint.read_model(str(tmp_path / "run"))
    assert vocab_text.split() == ["<pad>", "<unk>", "x", "y"]
    assert description.classes == ("a", "b")
    assert not found.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, found.state_dict()[name])


def test_models_that_cannot_be_used(tmp_path):
    with pytest.raises(RunError, match="no model here"):
        checkpoint.read_model(str(tmp_path))
    _write(str(tmp_path), b"nothing")
    with pytest.raises(RunError, match="truncated or damaged"):
        checkpoint.read_model(str(tmp_path))
    _write(str(tmp_path))
    (tmp_path / "vocab.txt").write_text("<pad>\n<unk>\n")
    with pytest.raises(RunError, match="do not match"):
        checkpoint.read_model(str(tmp_path))
