import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from rnntune.cluster.resources import Resources
from rnntune.config.load import Config
from rnntune.errors import ClusterError, RunError
from rnntune.training.api import train
from rnntune.training.placement import place_workers
from rnntune.training.result import RunResult
from rnntune.training.saved_model import read_model

pytestmark = pytest.mark.ray

RESULT = {
    "test_accuracy", "test_macro_f1", "test_rows", "validation_accuracy", "train_rows",
    "train_rows_per_s", "padding_fraction", "num_parameters", "world_size", "epochs", "seconds",
}  # fmt: skip


def test_a_run_leaves_what_the_design_names(sample_run):
    uri = Path(sample_run.uri)
    result = json.loads((uri / "result.json").read_text())
    assert result == sample_run.result
    assert set(result) >= RESULT
    calibrated = result["validation_calibration_error"]
    assert 0 <= calibrated <= result["validation_calibration_error_before"] + 0.02
    assert read_model(str(uri))[2].temperature == result["temperature"] != 1
    parts = dict(result["seconds"])
    total = parts.pop("total")
    assert set(parts) == {"prepare", "startup", "train", "evaluate", "finish"}
    assert sum(parts.values()) == pytest.approx(total, abs=0.05)
    assert result["test_rows"] == 1000
    assert 0.5 < result["test_accuracy"] <= 1
    assert 0 <= result["padding_fraction"] < 0.05
    _check_predictions(sample_run)
    epochs = [json.loads(line) for line in (uri / "metrics.jsonl").read_text().splitlines()]
    assert [epoch["epoch"] for epoch in epochs] == [1]
    assert epochs[0]["rows"] == epochs[0]["epoch_rows"] == result["train_rows"]
    model, _vocab_text, description = read_model(str(uri))
    assert description.classes == ("World", "Sports", "Business", "Sci/Tech")
    assert result["num_parameters"] == sum(p.numel() for p in model.parameters())
    assert Config.load(str(uri / "config.yaml")).output == str(uri)
    assert list((uri / "tensorboard").glob("events.out.tfevents.*"))
    assert {path.name for path in (uri / "model").iterdir()} == {
        "README.md", "model.safetensors", "vocab.txt", "config.yaml",
    }  # fmt: skip


def test_an_existing_run_is_refused(sample_run, tiny):
    with pytest.raises(RunError, match="use --resume or --overwrite"):
        train(tiny(output=sample_run.uri))


def test_a_folder_that_holds_something_else_is_refused(ray_session, tiny, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(RunError, match="holds no run"):
            train(tiny(output=str(tmp_path)), overwrite=overwrite)
    assert (tmp_path / "mine.txt").exists()


def test_nothing_to_resume(tmp_path):
    with pytest.raises(RunError, match="no run to resume"):
        train(dataclasses.replace(Config(), output=str(tmp_path / "none")), resume=True)


def test_a_finished_run_is_not_run_again(sample_run):
    before = (Path(sample_run.uri) / "result.json").stat().st_mtime_ns
    again = train(dataclasses.replace(Config(), output=sample_run.uri), resume=True)
    assert again.result == sample_run.result
    assert (Path(sample_run.uri) / "result.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_two_workers_score_every_row_once_and_agree(sample_run, tiny):
    done = train(tiny(train__num_workers=2, batching__batch_rows=32, train__epochs=1))
    assert done.result["world_size"] == 2
    assert done.result["test_rows"] == 1000
    assert done.result["train_rows"] == sample_run.result["train_rows"]
    epoch = json.loads((Path(done.uri) / "metrics.jsonl").read_text().splitlines()[0])
    assert epoch["rows"] == done.result["train_rows"]
    assert done.result["test_accuracy"] > 0.5
    _check_predictions(done)


def _check_predictions(done: RunResult) -> None:
    """The predictions that a report reads are those that the result scores."""
    kept = pq.read_table(f"{done.uri}/test_predictions.parquet").to_pydict()
    assert kept["row"] == list(range(1000))
    right = [label == given for label, given in zip(kept["label"], kept["predicted"], strict=True)]
    assert sum(right) / 1000 == pytest.approx(done.result["test_accuracy"])
    assert [text is not None for text in kept["text"]].count(True) == min(100, right.count(False))
    data = json.loads(Path(done.uri, "data.json").read_text())
    assert data["splits"]["train"]["rows"] == done.result["train_rows"]
    assert all(len(words) > 2 for words in data["telling_words"])


@pytest.mark.slow
def test_word_vectors_go_into_the_model(ray_session, tiny, tmp_path):
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("the 1 2 3\nof 4 5 6\n")
    done = train(tiny(model__word_vectors=str(vectors)))
    tensors = load_file(Path(done.uri) / "model" / "model.safetensors")
    assert tensors["frozen.weight"].shape[1] == 3
    assert tensors["frozen.weight"].abs().sum() == 21
    model, _, description = read_model(done.uri)
    assert description.vector_dim == 3
    assert model.frozen is not None


def _cluster(*node_cpus: float, gpus: float = 0, autoscales: bool = False) -> Resources:
    nodes = tuple({"CPU": cpus, "GPU": gpus} for cpus in node_cpus)
    return Resources(nodes=nodes, object_store_bytes=10**9, autoscales=autoscales)


def _workers(num_workers: int | list[int], **train: Any) -> Config:
    settings = {"num_workers": num_workers, **train}
    return Config.load(None, {f"train.{name}": value for name, value in settings.items()})


@pytest.mark.parametrize(
    ("config", "there", "scaled"),
    [
        (_workers(1), _cluster(4), (False, {"CPU": 4.0})),
        (_workers(2), _cluster(5), (False, {"CPU": 2.0})),
        (_workers(4), _cluster(4, 4, 4), (False, {"CPU": 2.0})),
        (_workers(2), _cluster(8, 2), (False, {"CPU": 4.0})),
        (_workers([1, 4]), _cluster(2), (False, {"CPU": 1.0})),
        (_workers(2), _cluster(0, autoscales=True), (False, {"CPU": 1.0})),
        (_workers(2), _cluster(8, gpus=2), (True, {"CPU": 1.0, "GPU": 1.0})),
        (_workers(1, use_gpu=False), _cluster(8, gpus=2), (False, {"CPU": 8.0})),
        (
            _workers(1, resources_per_worker={"CPU": 3}),
            _cluster(4, gpus=1),
            (True, {"CPU": 3.0, "GPU": 1.0}),
        ),
    ],
)
def test_workers_share_the_cpus_as_the_nodes_hold_them(config, there, scaled):
    assert place_workers(config, there) == scaled


@pytest.mark.parametrize(
    ("config", "there", "told"),
    [
        (_workers(2), _cluster(1), r"2 workers with 1 CPU: .* 1 CPU on 1 node, room for 1"),
        (
            _workers(2, resources_per_worker={"CPU": 3}),
            _cluster(4, 2),
            "2 workers with 3 CPU: .* 6 CPU on 2 nodes, room for 1",
        ),
        (_workers(1, use_gpu=True), _cluster(4), "4 CPU, 0 GPU on 1 node, room for 0"),
    ],
)
def test_workers_that_the_nodes_do_not_hold_are_refused(config, there, told):
    with pytest.raises(ClusterError, match=told):
        place_workers(config, there)
