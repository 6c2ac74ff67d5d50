import dataclasses
import html
import html.parser
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from runs import INJECTIONS, write_run, write_search

from rnntune.cli import report_command
from rnntune.cli.main import main
from rnntune.config.metric import Metric
from rnntune.data.reliability import expected_calibration_error
from rnntune.errors import ConfigError, RunError
from rnntune.report.class_figures import confusion_matrix
from rnntune.report.comparison import paired_test, same_rows
from rnntune.report.page import write_report, written_report
from rnntune.report.run_contents import read_run
from rnntune.report.search_figures import pareto_front


class Parsed(html.parser.HTMLParser):
    """What a page holds, as a parser that knows nothing of its template sees it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.raw: dict[str, str] = {}
        self._raw: str | None = None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._raw = dict(attrs).get("id", tag) if tag in ("script", "style") else None

    def handle_endtag(self, tag):
        self._raw = None if tag in ("script", "style") else self._raw

    def handle_data(self, data):
        if self._raw:
            self.raw[self._raw] = self.raw.get(self._raw, "") + data
        else:
            self.texts.append(data)

    @property
    def figures(self) -> dict[str, dict]:
        return {figure["key"]: figure for figure in json.loads(self.raw["figures"])}


def page_of(*uris: str, refresh_s=0) -> tuple[str, Parsed]:
    target = Path(uris[0]) / "page.html"
    write_report(uris, str(target), refresh_s=refresh_s)
    text = target.read_text("utf-8")
    return text, Parsed(text)


def strings(value) -> list[str]:
    if isinstance(value, dict):
        return [s for inner in value.values() for s in strings(inner)]
    if isinstance(value, list):
        return [s for inner in value for s in strings(inner)]
    return [value] if isinstance(value, str) else []


def test_a_run_of_train(tmp_path):
    uri = write_run(tmp_path / "run", settings={"data.source": "mine.csv", "model.cell": "gru"})
    text, page = page_of(uri)
    assert set(page.figures) == {
        "epochs-loss", "epochs-accuracy", "confusion", "reliability", "confidence", "lengths",
    }  # fmt: skip
    shown = " ".join(" ".join(page.texts).split())
    for part in (
        f"rnntune train --data mine.csv --model.cell gru --output {uri}", "on 400 test rows",
        "123,456 parameters", "2,000 rows", "temperature, 1.21", "1.23% of the cells", "cup",
        "the cup final <unk>", "0:06 (prepare 1.2 s, startup 0.1 s, train 4.5 s, evaluate 0.3 s)",
    ):  # fmt: skip
        assert part in shown, part
    low = re.search(r"(0\.\d{4}) \(95%: (0\.\d{4}) to (0\.\d{4})\)", shown)
    assert low
    assert float(low[2]) < float(low[1]) < float(low[3])
    assert len(text) < 5_000_000


def test_nothing_of_a_page_is_somewhere_else(tmp_path):
    text, page = page_of(write_search(tmp_path / "run"))
    for tag, attributes in page.tags:
        assert not (attributes.get("src") or "").strip(), (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#"), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "base"}
    without_library = text.replace(page.raw["plotly"], "")
    assert "http" not in re.sub("http-equiv", "", without_library)
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert len(re.findall("nonce", policy)) == 1


@pytest.mark.parametrize("kind", ["train", "tune"])
def test_labels_and_texts_stay_text(kind, tmp_path):
    write = write_run if kind == "train" else write_search
    settings = {"data.source": INJECTIONS[1], "data.label_column": INJECTIONS[3]}
    uri = write(tmp_path / "run", classes=INJECTIONS, texts=INJECTIONS, settings=settings)
    _, plain = page_of(write(tmp_path / "plain", classes=tuple("abcdef"), texts=tuple("ghijkl")))
    text, page = page_of(uri)
    ours, others = ([tag for tag, _ in p.tags if tag != "span"] for p in (page, plain))
    assert ours == others  # spans, which have no attributes, are the words of a command
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    shown = " ".join(page.texts)
    for injection in INJECTIONS[:4]:
        assert injection in shown
    assert "\\u001b[31m\\u0000" in shown
    for string in strings(page.figures):
        assert not re.search(r"<(?!br>|extra>|/extra>)", string), string
    assert str(7701 * 7) not in shown


def test_77_classes(tmp_path):
    names = [f"a rather long name of class number {n:02}" for n in range(77)]
    text, page = page_of(write_run(tmp_path / "run", classes=names, num_rows=5_000))
    confusion = page.figures["confusion"]
    assert np.array(confusion["data"][0]["z"]).shape == (77, 77)
    assert "texttemplate" not in confusion["data"][0]
    assert len(set(confusion["layout"]["xaxis"]["ticktext"])) == 77
    assert all(np.isclose(np.sum(confusion["data"][0]["z"], axis=1), 1, atol=0.01))
    assert len(text) < 5_000_000


def test_of_a_thousand_classes_the_most_confused_are_drawn(tmp_path):
    text, page = page_of(
        write_run(tmp_path / "run", classes=[f"class {n}" for n in range(1_000)], num_rows=100_000)
    )
    assert len(page.figures["confusion"]["data"][0]["z"]) == 100
    assert len(text) < 5_000_000


def test_two_classes_show_their_numbers(tmp_path):
    uri = write_run(tmp_path / "run", classes=("ham", "spam"))
    _, page = page_of(uri)
    trace = page.figures["confusion"]["data"][0]
    predictions = read_run(uri).predictions
    assert trace["texttemplate"] == "%{text}"
    assert trace["text"] == confusion_matrix(predictions, 2).astype(str).tolist()


def test_a_search(tmp_path):
    uri = write_search(tmp_path / "run")
    _, page = page_of(uri)
    assert set(page.figures) > {
        "search-history", "search-curves", "parallel", "importance", "slice-model-hidden_size",
        "cost-latency-ms", "cost-num-parameters", "confusion",
    }  # fmt: skip
    best = page.figures["search-history"]["data"][1]["y"]
    assert best == sorted(best)
    assert len(page.figures["search-curves"]["data"]) == 12
    assert page.figures["slice-train-learning_rate"]["layout"]["xaxis"]["type"] == "log"
    assert any(attributes.get("data-filter") == "trials-table" for _, attributes in page.tags)
    assert "12 trials: 8 finished, 4 stopped." in page.texts
    (bars,) = page.figures["importance"]["data"]
    assert bars["error_x"]["arrayminus"] == pytest.approx([0.3, 0.2])  # the largest share last
    assert any(
        "Cannot tell which of model.hidden_size, train.learning_rate mattered most." in text
        for text in page.texts
    )


def test_a_search_that_is_running_loads_itself_again(tmp_path):
    uri = write_search(tmp_path / "run", finished=False)
    text, page = page_of(uri, refresh_s=5)
    assert 'http-equiv="refresh" content="5"' in text
    assert "Not finished. 12 trials: 8 finished, 3 stopped, 1 running." in page.texts
    assert "importance" not in page.figures
    text, _ = page_of(write_search(tmp_path / "other"))
    assert 'http-equiv="refresh"' not in text


@pytest.mark.parametrize("trials", [0, 1])
def test_a_search_that_has_hardly_begun(trials, tmp_path):
    uri = write_search(tmp_path / "run", num_trials=trials, finished=False, epochs=0)
    _, page = page_of(uri, refresh_s=5)
    assert ("No trial has started." in " ".join(page.texts)) == (trials == 0)


def test_runs_side_by_side(tmp_path):
    uris = [
        write_run(tmp_path / "one", seed=1, right=0.9),
        write_run(tmp_path / "two", seed=2, right=0.7, settings={"model.hidden_size": 99}),
    ]
    _, page = page_of(*uris)
    cells = [text.strip() for text in page.texts]
    assert "model.hidden_size" in cells
    assert "99" in cells
    assert "model.cell" not in cells
    one, two = map(read_run, uris)
    assert same_rows(one, two)
    only_one, only_two, p = paired_test(one, two)
    assert only_one > only_two
    assert p < 1e-4
    assert f"{p:.3g}" in cells


def test_the_paired_test_is_mcnemars(tmp_path):
    one = read_run(write_run(tmp_path / "one", right=1))
    two = read_run(write_run(tmp_path / "two", right=1))
    assert paired_test(one, two) == (0, 0, 1.0)
    one, two = (_with_mistakes(run, rows) for run, rows in ((one, [9]), (two, range(9))))
    assert paired_test(one, two) == (9, 1, pytest.approx(2 * 11 / 1024))


def _with_mistakes(run, rows):
    predicted = run.predictions.label.copy()
    predicted[list(rows)] += 1
    predictions = dataclasses.replace(run.predictions, predicted=predicted)
    return dataclasses.replace(run, predictions=predictions)


def test_other_rows_are_not_compared(tmp_path):
    one = write_run(tmp_path / "one")
    two = write_run(tmp_path / "two", num_rows=401)
    _, page = page_of(one, two)
    assert "kept no predictions: one and two." in " ".join(page.texts)


def test_calibration_error_of_known_cases():
    right = np.array([True, True, False, False])
    assert expected_calibration_error(np.full(4, 0.9), right) == pytest.approx(0.4)
    assert expected_calibration_error(np.array([1.0, 1.0, 0.0, 0.0]), right) == 0


def test_the_pareto_front():
    points = [(3.0, 0.9), (1.0, 0.7), (2.0, 0.6), (2.0, 0.8), (4.0, 0.9)]
    assert pareto_front(points, Metric("validation_accuracy")) == [1, 3, 0]
    assert pareto_front(points, Metric("validation_loss")) == [1, 2]


def test_a_search_with_several_aims_shows_its_front(tmp_path):
    settings = {"tune.metric": ["validation_accuracy", "latency_ms", "num_parameters"]}
    uri = write_search(tmp_path / "run", settings=settings)
    run = read_run(uri)
    front = run.aims.front(run.trials)
    assert len(front) > 1
    _, page = page_of(uri)
    figure = page.figures["front-points"]
    drawn = next(trace for trace in figure["data"] if trace["name"] == "Pareto front")
    assert drawn["x"] == [trial.latency_ms for trial in front]
    assert drawn["text"] == [str(number) for number in range(1, len(front) + 1)]
    assert drawn["marker"]["symbol"].count("star") == 1
    text = " ".join(page.texts)
    assert f"rnntune train --config {uri}/pareto.yaml#N" in text
    assert "in all of validation accuracy, latency ms and num parameters" in text
    _, plain = page_of(write_search(tmp_path / "plain"))
    assert "front-points" not in plain.figures


def test_a_search_with_an_ensemble_shows_its_models(tmp_path):
    uri = write_search(tmp_path / "run")
    scores = {"validation_accuracy": 0.91, "test_accuracy": 0.9, "test_macro_f1": 0.89}
    members = [{"trial": 3, "weight": 3, "validation_accuracy": 0.9}, {"trial": 1, "weight": 1}]
    compared = {
        "best_single": scores,
        "ensemble": {**scores, "test_accuracy": 0.9123, "members": members},
        "distilled": scores,
    }
    result = Path(uri, "result.json")
    result.write_text(json.dumps(json.loads(result.read_text()) | compared))
    text, _ = page_of(uri)
    for expected in ("Models of the ensemble", "0.9123", "0.75", "distilled model"):
        assert expected in text
    plain, _ = page_of(write_search(tmp_path / "plain"))
    assert "Models of the ensemble" not in plain


def test_secrets_in_uris_are_masked(tmp_path):
    settings = {"data.source": "s3://KEY:SECRET@bucket/rows.csv"}
    with pytest.raises(ConfigError) as refused:
        page_of(write_run(tmp_path / "run", settings=settings))
    assert ":SECRET@" not in str(refused.value)
    assert "s3://***@bucket/rows.csv" in str(refused.value)


def test_what_is_no_run(tmp_path):
    with pytest.raises(RunError, match="no run here"):
        write_report([str(tmp_path)])
    (tmp_path / "config.yaml").write_text("model: {cell: lstm}\nclasses: [a, b]\n")
    with pytest.raises(RunError, match="a model, not a run"):
        write_report([str(tmp_path)])
    run = write_run(tmp_path / "run")
    (tmp_path / "run" / "result.json").write_text("{")
    with pytest.raises(RunError, match=r"result\.json: damaged, not JSON"):
        write_report([run])


def test_a_page_that_cannot_be_written_does_not_fail_a_run(tmp_path):
    run = write_run(tmp_path / "run")
    assert written_report(run) == (f"{run}/report.html", None)
    (tmp_path / "run" / "data.json").write_text('{"classes": 3}')
    target, problem = written_report(run)
    assert target is None
    assert problem.startswith("no report page: RunError: ")
    assert "\n" not in problem


def test_the_command(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    assert main(["report", run]) == 0
    assert capsys.readouterr().out == f"{run}/report.html\n"
    assert main(["report", run, run, "--watch"]) == 2
    assert "--watch follows one run, not 2" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "none")]) == 2


def test_watch_ends_with_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report_command, "_REFRESH_S", 0.05)
    run = Path(write_search(tmp_path / "run", finished=False))
    page = run / "report.html"
    seen = []

    def end() -> None:
        until = time.monotonic() + 30
        while not page.exists() and time.monotonic() < until:
            time.sleep(0.01)
        seen.append('id="refresh"' in page.read_text("utf-8"))
        done = Path(write_search(tmp_path / "done"))
        (run / "result.json").write_bytes((done / "result.json").read_bytes())

    thread = threading.Thread(target=end, daemon=True)
    thread.start()
    assert main(["report", str(run), "--watch"]) == 0
    thread.join(30)
    assert seen == [True]
    assert 'id="refresh"' not in page.read_text("utf-8")


def test_figures_are_what_plotly_knows(tmp_path):
    from plotly.graph_objects import Figure

    uri = write_search(tmp_path / "run")
    _, search = page_of(uri)
    _, both = page_of(uri, write_run(tmp_path / "other"))
    for figure in [*search.figures.values(), *both.figures.values()]:
        plain = json.loads(re.sub(r"var\(--[a-z0-9-]+\)", "#123456", json.dumps(figure)))
        Figure(data=plain["data"], layout=plain["layout"])  # refuses unknown names and values


def test_figures_are_imported_when_a_page_is_written():
    code = (
        "import sys, rnntune.cli.main, rnntune.report.page\n"
        "assert not {'plotly', 'jinja2'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_marks_of_epochs_and_trials_are_whole_numbers_and_few(tmp_path):
    _, page = page_of(write_search(tmp_path / "run", num_trials=25))
    assert page.figures["search-curves"]["layout"]["xaxis"]["dtick"] == 1
    assert page.figures["search-history"]["layout"]["xaxis"]["dtick"] == 3
    _, page = page_of(write_run(tmp_path / "long", epochs=42))
    assert page.figures["epochs-loss"]["layout"]["xaxis"]["dtick"] == 5


def test_short_words_in_tables_stay_on_their_line(tmp_path):
    text, _ = page_of(write_search(tmp_path / "run"))
    assert re.search(r'<td class="short"[^>]*>finished</td>', text)
    short = re.findall(r'<td class="short"[^>]*>([^<]*)</td>', text)
    assert max(len(html.unescape(cell)) for cell in short) < 15
