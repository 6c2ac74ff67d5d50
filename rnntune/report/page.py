"""The report page: one HTML file that opens from disk without a network.

Its figures are plotly's. The library travels in the page, packed, and the browser unpacks it; what
the page says of itself (`Content-Security-Policy`) lets nothing else run and nothing be fetched.
"""

import base64
import datetime
import functools
import gzip
import importlib.resources
import json
import math
import secrets
from collections.abc import Sequence
from typing import Any

from rnntune import __version__, storage
from rnntune.console import format_duration
from rnntune.errors import RnntuneError
from rnntune.report.comparison import comparison_sections
from rnntune.report.content import Cell, Column, Fact, Figure, Section, Table, masked, visible
from rnntune.report.run_contents import RunContents, read_run
from rnntune.report.search_figures import search_sections, standing
from rnntune.report.tables import interval
from rnntune.report.training_figures import training_sections

__all__ = ["render_page", "report_path", "write_report", "written_report"]
REPORT = "report.html"


def report_path(uris: Sequence[str]) -> str:
    """Where a report goes if nobody says otherwise: into its run, of several next to us."""
    return storage.join(uris[0], REPORT) if len(uris) == 1 else REPORT


def write_report(uris: Sequence[str], output: str | None = None, *, refresh_s: int = 0) -> str:
    """Write the page of a run, or of several side by side.

    Args:
        uris: run folders.
        output: file or URI; None: see `report_path`.
        refresh_s: seconds after which the page loads itself again; 0: never.

    Returns:
        Where it is.

    Raises:
        RnntuneError: one of them is no run, or the page cannot be written.
    """
    runs = [read_run(uri) for uri in uris]
    target = output or report_path([run.uri for run in runs])
    storage.write_text(target, render_page(runs, refresh_s=refresh_s))
    return target


def written_report(uri: str) -> tuple[str | None, str | None]:
    """Write the page of a run that has just ended; it is not worth failing the run.

    Returns:
        Where the page is, and in one line why there is none.
    """
    try:
        return write_report([uri]), None
    except Exception as error:  # whatever it is, the run is done and its result is written
        return None, f"no report page: {type(error).__name__}: {RnntuneError.reason(error)}"


def render_page(runs: Sequence[RunContents], *, refresh_s: int = 0) -> str:
    """The HTML of a page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("rnntune.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(cell=_cell, sort_key=_sort_key, visible=visible)
    title, facts, sections = _contents(runs)
    figures = [figure for section in sections for figure in section.figures]
    template = importlib.resources.files("rnntune.report").joinpath("template")
    return environment.get_template("page.html").render(
        title=title,
        facts=facts,
        sections=sections,
        refresh_s=refresh_s,
        nonce=secrets.token_urlsafe(16),
        style=Markup(template.joinpath("page.css").read_text("utf-8")),
        script=Markup(template.joinpath("page.js").read_text("utf-8")),
        figures=Markup(_json([_spec(figure) for figure in figures])),
        plotly=_plotly() if figures else "",
        made=f"rnntune {__version__}, {datetime.datetime.now():%Y-%m-%d %H:%M}",
    )


def _contents(runs: Sequence[RunContents]) -> tuple[str, list[Fact], list[Section]]:
    if len(runs) > 1:
        return f"{len(runs)} runs", [], comparison_sections(runs)
    run = runs[0]
    sections = search_sections(run) if run.trials is not None else []
    return run.name, _head(run), [*sections, *training_sections(run), *_configuration(run)]


def _head(run: RunContents) -> list[Fact]:
    result = run.result
    facts = [Fact(name="run", value=run.uri, code=True)]
    if result is None:
        state = standing(run) if run.trials is not None else f"{len(run.history)} epochs so far."
        facts.append(Fact(name="state", value=f"Not finished. {state}"))
    else:
        accuracy, rows = result["test_accuracy"], result["test_rows"]
        low, high = interval(accuracy, rows)
        scores = f"{accuracy:.4f} (95%: {low:.4f} to {high:.4f}) on {rows:,} test rows"
        name = "accuracy"
        if "test_micro_f1" in result:
            name = "all labels right"
            facts.append(Fact(name="micro F1", value=f"{result['test_micro_f1']:.4f}"))
        facts.append(Fact(name=name, value=scores))
        facts.append(Fact(name="macro F1", value=f"{result['test_macro_f1']:.4f}"))
        if result.get("validation_accuracy") is not None:
            facts.append(
                Fact(name=f"validation {name}", value=f"{result['validation_accuracy']:.4f}")
            )
        if result.get("refit"):
            rows = f"{result['train_rows']:,} training plus validation rows, after validation"
            facts.append(Fact(name="trained on", value=rows))
    facts.append(Fact(name="made again by", value=run.command, code=True))
    facts.append(Fact(name="data", value=masked(str(run.settings.get("data.source"))) + _size(run)))
    if result is not None:
        facts.append(Fact(name="model", value=_model(run, result)))
        facts.append(Fact(name="time", value=_time(result.get("seconds") or {})))
    return facts


def _size(run: RunContents) -> str:
    if run.data is None:
        return ""
    rows = ", ".join(f"{split.rows:,} {name}" for name, split in run.data.splits.items())
    return f": {rows} rows, {len(run.data.classes):,} classes"


def _model(run: RunContents, result: Any) -> str:
    megabytes = 4 * result["num_parameters"] / 1e6
    text = f"{result['num_parameters']:,} parameters, {megabytes:,.1f} MB as float32"
    return f"{text}, {run.settings['model.cell']}" if run.trials is None else text


def _time(seconds: Any) -> str:
    parts = ", ".join(
        f"{name} {value:.1f}\u00a0s" for name, value in seconds.items() if name != "total"
    )
    return f"{format_duration(seconds.get('total', 0.0))} ({parts})"


def _configuration(run: RunContents) -> list[Section]:
    chosen = Table(
        key="auto-table",
        caption="Chosen for this data, where the setting was auto",
        columns=(Column(name="setting"), Column(name="value"), Column(name="reason")),
        rows=[
            [name, json.dumps(value, ensure_ascii=False), str(reason)]
            for name, (value, reason) in run.chosen.items()
        ],
    )
    settings = Table(
        key="configuration-table",
        caption="All settings",
        columns=(Column(name="setting"), Column(name="value")),
        rows=[
            [name, masked(json.dumps(value, ensure_ascii=False))]
            for name, value in run.settings.items()
            if run.trials is not None or not name.startswith("tune.")
        ],
        filter="Filter settings",
    )
    tables = (chosen, settings) if run.chosen else (settings,)
    return [Section(key="configuration", title="Configuration", tables=tables)]


def _cell(value: Cell, column: Column) -> str:
    """What a cell shows."""
    if value is None:
        return ""
    if isinstance(value, str) or column.form is None:
        return visible(str(value))
    return format(value, column.form)


def _sort_key(value: Cell) -> str:
    """What a cell is sorted by: a number, or nothing where it shows text."""
    return repr(float(value)) if isinstance(value, int | float) else ""


def _spec(figure: Figure) -> dict[str, Any]:
    return {
        "key": figure.key,
        "data": list(figure.data),
        "layout": dict(figure.layout),
        "height": figure.height,
        "minWidth": figure.min_width,
    }


def _json(content: Any) -> str:
    """JSON that may stand in a script element: it has no `<`, `>` or `&`."""
    text = json.dumps(_finite(content), separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _finite(content: Any) -> Any:
    """The same without numbers that JSON lacks."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


@functools.cache
def _plotly() -> str:
    """Plotly's library, packed: base64 of gzip."""
    file = importlib.resources.files("plotly").joinpath("package_data").joinpath("plotly.min.js")
    return base64.b64encode(gzip.compress(file.read_bytes(), 6, mtime=0)).decode()
