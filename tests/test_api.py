import re
from pathlib import Path

import pytest

import rnntune
from rnntune import api
from rnntune.console import Terminal
from rnntune.training.result import RunResult

nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed (extra `test`)")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (extra `test`)")


@pytest.fixture
def ended(monkeypatch, tmp_path):
    """Runs that end at once, in a folder that holds one."""
    from runs import write_run, write_search

    def end(config, **_):
        return RunResult(uri=config.output, result={"test_accuracy": 0.5})

    monkeypatch.setattr("rnntune.training.api.train", end)
    monkeypatch.setattr("rnntune.tuning.api.tune", end)
    return {
        "train": rnntune.Config.load(None, {"output": write_run(tmp_path / "run")}),
        "tune": rnntune.Config.load(None, {"output": write_search(tmp_path / "search")}),
    }


@pytest.mark.parametrize("name", ["train", "tune"])
def test_a_run_from_python_leaves_its_report(ended, name):
    config = ended[name]
    done = getattr(rnntune, name)(config)
    assert done.report == f"{config.output}/report.html"
    assert "<html" in Path(done.report).read_text(encoding="utf-8")
    shown = done._repr_html_()
    assert "0.5000" in shown
    assert "<iframe" in shown
    assert 'sandbox="allow-scripts"' in shown
    assert "&lt;html" in shown  # the page is data of an attribute


def test_a_page_that_cannot_be_written_costs_a_line(ended, monkeypatch):
    def fail(_):
        raise OSError("no room")

    monkeypatch.setattr("rnntune.report.page.write_report", fail)
    lines = []
    terminal = Terminal(silent=True)
    terminal.line = lines.append
    done = api.train(ended["train"], terminal=terminal)
    assert done.report is None
    assert "iframe" not in done._repr_html_()
    assert lines == ["no report page: OSError: no room"]


@pytest.mark.slow
def test_a_notebook_shows_progress_scores_and_the_page(tmp_path):
    rows = [
        f"{'cup final goal' if n % 2 else 'shares rise fast'} {n % 7},{n % 2}" for n in range(400)
    ]
    (tmp_path / "rows.csv").write_text("text,label\n" + "\n".join(rows))
    cell = (
        "import rnntune\n"
        "rnntune.train(rnntune.Config.load(None, {'data.source': 'rows.csv', 'output': 'run',"
        " 'data.cache_dir': 'cache', 'model.ngrams': 0, 'model.word_vectors': None,"
        " 'train.epochs': 2, 'train.use_gpu': False}))"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    outputs = notebook.cells[0].outputs
    printed = "".join(part.text for part in outputs if part.output_type == "stream")
    assert re.search(r"epoch 2/2 .*validation", printed)
    assert "\x1b" not in printed
    shown = next(part for part in outputs if part.output_type == "execute_result").data
    assert "test_accuracy" in shown["text/html"]
    assert "<iframe" in shown["text/html"]
    assert (tmp_path / "run" / "report.html").is_file()
