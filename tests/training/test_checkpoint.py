import json
import resource
from pathlib import Path

import pytest
import torch
import yaml
from models import PLAIN, write_random_ensemble

from rnntune.config.schema import ModelConfig
from rnntune.errors import RunError
from rnntune.model.network import Classifier
from rnntune.training.checkpoint import Snapshot, State, load_snapshot, save_snapshot, verify
from rnntune.training.model_metadata import ModelMetadata
from rnntune.training.saved_model import read_model, write_model


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
    save_snapshot(tmp_path, _snapshot(best))
    found = load_snapshot(tmp_path, {"data": "abc"})
    assert found.state == _snapshot().state
    assert torch.equal(found.model["w"], _snapshot().model["w"])
    assert found.optimizer["0.1.step"] == 3
    assert (found.best is not None) == best


@pytest.mark.parametrize("name", ["model", "optimizer", "best"])
def test_a_truncated_file_is_refused(tmp_path, name):
    save_snapshot(tmp_path, _snapshot())
    file = tmp_path / f"{name}.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(RunError, match=f"{name}.safetensors: truncated checkpoint"):
        load_snapshot(tmp_path, {})


def test_a_changed_byte_is_refused(tmp_path):
    save_snapshot(tmp_path, _snapshot())
    file = tmp_path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunError, match="damaged"):
        verify(tmp_path)


def test_a_foreign_checkpoint_is_refused(tmp_path):
    save_snapshot(tmp_path, _snapshot())
    with pytest.raises(RunError, match="another run: data is 'abc', not 'xyz'"):
        load_snapshot(tmp_path, {"data": "xyz"})


def test_what_is_not_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(RunError, match="not a checkpoint"):
        verify(tmp_path)
    (tmp_path / "state.json").write_text(json.dumps({"version": 99}))
    with pytest.raises(RunError, match="of this version"):
        verify(tmp_path)


def _write(uri: str, weights: bytes | None = None) -> Classifier:
    from safetensors.torch import save

    config = ModelConfig(embedding_dim=3, hidden_size=2, **PLAIN)
    model = Classifier(config, 4, 2)
    description = ModelMetadata(
        model=config, classes=("a", "b"), clean=False, max_length=9,
        text_columns=("text",), label_column="label",
    )  # fmt: skip
    content = save(model.state_dict()) if weights is None else weights
    write_model(uri, content, "<pad>\n<unk>\nx\ny\n", description)
    return model


def test_a_model_folder_gives_the_model_back(tmp_path):
    model = _write(str(tmp_path / "run" / "model"))
    found, vocab_text, description = read_model(str(tmp_path / "run"))
    assert vocab_text.split() == ["<pad>", "<unk>", "x", "y"]
    assert description.classes == ("a", "b")
    assert not found.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, found.state_dict()[name])


def test_models_that_cannot_be_used(tmp_path):
    with pytest.raises(RunError, match="no model here"):
        read_model(str(tmp_path))
    _write(str(tmp_path), b"nothing")
    with pytest.raises(RunError, match="truncated or damaged"):
        read_model(str(tmp_path))
    _write(str(tmp_path))
    (tmp_path / "vocab.txt").write_text("<pad>\n<unk>\n")
    with pytest.raises(RunError, match="do not match"):
        read_model(str(tmp_path))


BRANCH = {
    "model.ngrams": 2, "model.ngram_buckets": 8, "model.letter_buckets": 8,
    "model.recurrent_weight": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.embedding_dim": 1_000_000_000}, "do not match"),
        ({"model.embedding_dim": 10**18}, "cannot be built|do not match"),
        ({"model.hidden_size": 1_000_000_000}, "cannot be built|do not match"),
        ({"model.hidden_size": 1_000_000}, "do not match"),
        ({"model.num_layers": 1_000_000_000}, "cannot be built"),
        ({**BRANCH, "model.ngram_buckets": 10**10}, "do not match"),
        ({**BRANCH, "model.letter_buckets": 10**10}, "do not match"),
        ({"model.hidden_size": "auto"}, "not a model's description"),
        ({"model.embedding_dim": "auto"}, "cannot be built"),
        ({"vector_dim": -1}, "not a model's description"),
        ({"vector_dim": 10**9}, "do not match"),
        ({"vector_dim": 7, "model.freeze_word_vectors": False}, "cannot be built"),
        ({"num_trained_words": -5}, "not a model's description"),
        ({"num_trained_words": 10**9}, "do not match"),
        ({"max_length": 0}, "not a model's description"),
        ({"classes": []}, "not a model's description"),
        ({"classes": {"a": 1}}, "not a model's description"),
    ],
)
def test_a_model_folder_from_a_stranger(tmp_path, change, message):
    """No memory for what it claims, and one line."""
    _write(str(tmp_path))
    tree = yaml.safe_load((tmp_path / "config.yaml").read_text())
    for dotted, value in change.items():
        *group, name = dotted.split(".")
        (tree["model"] if group else tree)[name] = value
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RunError, match=message):
        read_model(str(tmp_path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_weights_that_are_larger_than_the_network(tmp_path):
    _write(str(tmp_path))
    with (tmp_path / "model.safetensors").open("ab") as file:
        file.truncate(1 << 40)  # a hole, as a file that was never written
    with pytest.raises(RunError, match="do not match: 1,099,511,627,776 bytes"):
        read_model(str(tmp_path))


@pytest.mark.parametrize("text", ["[" * 5_000, "a: &a [x]\nb: *c", "\x00"])
def test_a_description_that_is_no_yaml(tmp_path, text):
    _write(str(tmp_path))
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(RunError, match="not a model's description"):
        read_model(str(tmp_path))


MEMBERS = [(3, {"hidden_size": 2}), (1, {"hidden_size": 3, "cell": "gru"})]


def test_an_ensemble_gives_its_networks_back(tmp_path):
    folder = write_random_ensemble(tmp_path / "run" / "model", MEMBERS, temperature=1.5)
    found, _, description = read_model(str(tmp_path / "run"))
    assert [(m.weight, m.model.hidden_size) for m in description.members] == [(3, 2), (1, 3)]
    assert found.shares.tolist() == [0.75, 0.25]
    assert not found.training
    for number, member in enumerate(found.members):
        alone, _, _ = read_model(f"{folder}-{number}")
        for name, value in alone.state_dict().items():
            assert torch.equal(value, member.state_dict()[name])


def test_weights_of_an_older_model_go(tmp_path):
    write_random_ensemble(tmp_path / "model", [(1, {}), *MEMBERS])
    _write(str(tmp_path / "model"))
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert files == {"config.yaml", "vocab.txt", "model.safetensors"}
    write_random_ensemble(tmp_path / "model", MEMBERS)
    assert not (tmp_path / "model" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 1_000_000}, "do not match"),
        ({"num_layers": 1_000_000_000}, "cannot be built"),
        ({"recurrent_length": "auto"}, "not a model's description"),
        ({"window": 10**12}, "not a model's description"),
        ({"weight": 0}, "not a model's description"),
        ({"weight": 10**30}, "not a model's description"),
        ({"vector_dim": 10**9}, "do not match"),
        (None, "not a model's description"),
    ],
)
def test_an_ensemble_from_a_stranger(tmp_path, change, message):
    """No memory for what its second network claims, nor for a number of them."""
    folder = Path(write_random_ensemble(tmp_path / "model", MEMBERS))
    tree = yaml.safe_load((folder / "config.yaml").read_text())
    if change is None:
        tree["members"] *= 100
    for name, value in (change or {}).items():
        member = tree["members"][1]
        (member if name in member else member["model"])[name] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RunError, match=message):
        read_model(str(folder))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
