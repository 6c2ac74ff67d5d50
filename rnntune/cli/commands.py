"""What each command does with its arguments."""

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rnntune import storage
from rnntune.config.load import Config, flatten, parse_yaml
from rnntune.config.schema import AUTO
from rnntune.config.settings_file import settings_text
from rnntune.errors import ConfigError

if TYPE_CHECKING:
    from rnntune.training.result import RunResult
    from rnntune.tuning.extension import Extension

__all__ = [
    "evaluate_command",
    "export_command",
    "parse_size",
    "predict_command",
    "prepare_command",
    "train_command",
    "tune_command",
]


def _config(args: argparse.Namespace) -> Config:
    return Config.load(args.config, args.overrides)


def _checked(args: argparse.Namespace, config: Config) -> Config:
    """Refuse data that cannot be read, before the libraries that train are loaded."""
    from rnntune.data.preflight import check_source

    if not getattr(args, "resume", None):
        check_source(config.data)
    return config


def _printed(args: argparse.Namespace) -> bool:
    if args.print_config:
        sys.stdout.write(_config(args).to_yaml())
    return bool(args.print_config)


def prepare_command(args: argparse.Namespace) -> int:
    """Prepare data and print what was found."""
    if _printed(args):
        return 0
    config = _checked(args, _config(args))
    from rnntune.console import Terminal
    from rnntune.data.summary import describe_data
    from rnntune.report.tables import data_table

    found = describe_data(config, Terminal(), verbose=args.verbose)
    _summary(args, found, data_table(found))
    return 0


def _run_folder(args: argparse.Namespace) -> Config:
    from rnntune.training.run_folder import RunFolder, refuse_inside

    if args.resume == "":
        return _begun(args)
    if args.resume:
        given = args.verb == "train" and args.overrides
        if given or args.config or args.overwrite:
            raise ConfigError("--resume goes on with the run's own settings; give no others")
        return dataclasses.replace(Config(), output=args.resume)
    config = _config(args)
    folder = RunFolder.named(config.output)
    if args.config:
        refuse_inside(folder.uri, [args.config], "holds the job file")
    return dataclasses.replace(config, output=folder.uri)


def _begun(args: argparse.Namespace) -> Config:
    """The run in `--output`, which must have the settings given, or a new one there."""
    from rnntune.training.run_folder import RunFolder

    config = _config(args)
    if args.overwrite:
        raise ConfigError("--resume and --overwrite exclude each other")
    if config.output is None:
        raise ConfigError("--resume without a RUN needs --output")
    folder = RunFolder(config.output)
    if not storage.exists(folder.inside("config.yaml")):
        args.resume = None
        return dataclasses.replace(config, output=folder.uri)
    there = flatten(folder.config().to_dict())
    for name, value in flatten(config.to_dict()).items():
        if name != "output" and value not in (there[name], AUTO):
            raise ConfigError(
                f"{name}: the run in {folder.uri} has {json.dumps(there[name])}, "
                f"not {json.dumps(value)}; --resume goes on with its settings"
            )
    args.resume = folder.uri
    return dataclasses.replace(config, output=folder.uri)


def _more(args: argparse.Namespace) -> "Extension | None":
    """What a search to go on with is given beyond its own settings."""
    from rnntune.tuning.extension import Extension

    if not args.resume or not args.overrides:
        return None
    return Extension.parse({name: str(getattr(args, name, "")) for name in args.overrides})


def _done(args: argparse.Namespace, call: Callable[..., Any], config: Config, **more: Any) -> Any:
    """The result of a run, which Ctrl-C stops with a word on how to go on."""
    from rnntune.console import Terminal

    flags = {"resume": bool(args.resume), "overwrite": args.overwrite, "verbose": args.verbose}
    try:
        return call(config, **flags, **more, terminal=Terminal())
    except KeyboardInterrupt:
        again = f"rnntune {args.verb} --resume {config.output}"
        print(f"rnntune: stopped; go on with: {again}", file=sys.stderr)
        raise SystemExit(130) from None


def _summarize_run(args: argparse.Namespace, done: "RunResult") -> None:
    """Print what a training or a search left."""
    from rnntune.report.tables import run_table

    shown = run_table(done.uri, done.result, done.report)
    _summary(args, {"output": done.uri, "report": done.report, **done.result}, shown)


def train_command(args: argparse.Namespace) -> int:
    """Train a classifier, or go on with a run."""
    if _printed(args):
        return 0
    config = _checked(args, _run_folder(args))
    from rnntune.api import train

    _summarize_run(args, _done(args, train, config))
    return 0


def tune_command(args: argparse.Namespace) -> int:
    """Search for the best classifier, or say what a search would do."""
    if _printed(args):
        return 0
    if args.dry_run and args.resume:
        raise ConfigError("--dry-run plans a new search; --resume RUN goes on with one")
    has_run = bool(args.resume)  # else --resume began one with the settings given
    config = _checked(args, _run_folder(args))
    more = _more(args) if has_run else None
    from rnntune.api import tune
    from rnntune.console import Terminal
    from rnntune.tuning.api import plan
    from rnntune.tuning.leaderboard import leaderboard

    if args.dry_run:
        planned = plan(config, verbose=args.verbose, terminal=Terminal())
        _summary(args, planned.to_dict(), planned.table())
        return 0
    done = _done(args, tune, config, more=more)
    if not args.json:
        result = done.result
        shares, intervals = (result.get(f"importance{end}") or {} for end in ("", "_interval"))
        _show(leaderboard(done.trials, shares, intervals))
    _summarize_run(args, done)
    return 0


def evaluate_command(args: argparse.Namespace) -> int:
    """Score a model on labelled rows."""
    if _printed(args):
        return 0
    from rnntune.console import Terminal
    from rnntune.inference.evaluate import evaluate
    from rnntune.report.evaluation_table import evaluation_table

    config = _config(args)
    in_file = parse_yaml(settings_text(args.config), args.config) if args.config else {}
    given = {*flatten(in_file), *args.overrides}
    is_own = "data.source" not in given
    if is_own and (others := sorted(name for name in given if name.startswith("data."))):
        raise ConfigError(
            f"{others[0]} without --data: a run's own test split is scored as the run read it"
        )
    done = evaluate(
        args.model,
        None if is_own else config.data,
        num_workers=args.workers,
        errors=args.errors,
        escape_formulas=not args.no_escape,
        verbose=args.verbose,
        terminal=Terminal(),
    )
    _summary(args, done.to_dict(), evaluation_table(done))
    return 0


def predict_command(args: argparse.Namespace) -> int:
    """Classify texts, standard input or files."""
    from rnntune.console import Terminal, printable
    from rnntune.data.task import decide, label_names
    from rnntune.inference.loading import load
    from rnntune.inference.texts import free_delimiter

    if bool(args.input) != bool(args.output):
        raise ConfigError("--input and --output go together")
    if args.input and args.texts:
        raise ConfigError("give texts or --input, not both")
    if args.input:
        from rnntune.inference.predict import predict_files

        done = predict_files(
            args.model,
            args.input,
            args.output,
            format=args.format,
            escape_formulas=not args.no_escape,
            data=Config.load(None, args.overrides).data,
            num_workers=args.workers,
            text_columns=tuple(args.text_columns.split(",")) if args.text_columns else None,
            overwrite=args.overwrite,
            verbose=args.verbose,
            terminal=Terminal(),
        )
        _summary(args, done.to_dict(), f"{done.rows:,} rows to {done.output}")
        return 0
    model = load(args.model)
    texts = args.texts or [line.rstrip("\n") for line in sys.stdin]
    probabilities = model.predict_proba(texts)
    delimiter = free_delimiter(model.classes, model.description.label_delimiter)
    decisions = label_names(decide(probabilities, model.thresholds), model.classes)
    for text, label, row in zip(texts, decisions, probabilities, strict=True):
        each = dict(zip(model.classes, map(float, row), strict=True))
        if args.json:
            name = "label" if isinstance(label, str) else "labels"
            print(json.dumps({"text": text, name: label, "probabilities": each}))
            continue
        labels = [label] if isinstance(label, str) else label
        shown = delimiter.join(labels), delimiter.join(f"{each[name]:.4f}" for name in labels)
        line = "\t".join([*shown, text])
        print(printable(line) if sys.stdout.isatty() else line)
    return 0


def export_command(args: argparse.Namespace) -> int:
    """Write a model as files for onnxruntime."""
    from rnntune.console import Terminal
    from rnntune.inference.export import export_model

    done = export_model(
        args.model,
        args.output,
        quantize=args.quantize,
        max_bytes=parse_size(args.max_size) if args.max_size else None,
        overwrite=args.overwrite,
        terminal=Terminal(),
    )
    _summary(args, done.to_dict(), done.to_text())
    return 0


def parse_size(text: str, flag: str = "--max-size") -> int:
    """Bytes of a size such as 2MB, 1.5MiB or 800000.

    Args:
        text: the size.
        flag: that gave it, for the message.

    Raises:
        ConfigError: not a size.
    """
    units = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2**10, "MIB": 2**20}
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", text)
    if not found or found[2].upper() not in units or not float(found[1]):
        raise ConfigError(f"{flag} {text}: not a size such as 2MB, 800kB or 1.5MiB")
    return int(float(found[1]) * units[found[2].upper()])


def _summary(args: argparse.Namespace, content: Mapping[str, Any], shown: Any) -> None:
    if args.json:
        print(json.dumps(content))
    else:
        _show(shown)


def _show(shown: Any) -> None:
    from rich.console import Console

    # What comes from data, such as a label `[/b]`, is no markup.
    Console(highlight=False, soft_wrap=True, markup=False, emoji=False).print(shown)
