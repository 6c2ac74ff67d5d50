"""Commands: argument parsing, one line for a mistake, a summary at the end."""

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from rnntune import __version__, storage
from rnntune.config import Config, flatten
from rnntune.errors import ConfigError, RnntuneError
from rnntune.flags import add_config, add_settings, given, unknown

__all__ = ["main"]

_WIDTH = 118


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0, 2 after a mistake of the user's, 130 after Ctrl-C.
    """
    with contextlib.suppress(AttributeError, ValueError):
        signal.signal(signal.SIGTERM, _terminated)
    parser, verbs = _parser()
    try:
        args, rest = parser.parse_known_args(argv)
        if args.verb in ("train", "tune", "prepare", "evaluate", "submit"):
            args.overrides = {**given(args), **unknown(rest)}
        elif args.verb == "predict" and not any(item.startswith("-") for item in rest):
            args.texts += rest  # argparse ends `TEXT ...` at the first option
        elif rest:
            raise ConfigError(f"unknown argument {rest[0]}; see rnntune {args.verb} --help")
        return int(verbs[args.verb](args))
    except RnntuneError as error:
        print(f"rnntune: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rnntune: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _terminated(*_: object) -> NoReturn:
    raise KeyboardInterrupt


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, max_help_position=36, width=_WIDTH)


def _parser() -> tuple[_Parser, dict[str, Any]]:
    parser = _Parser(
        prog="rnntune",
        description="Train and tune recurrent text classifiers on Ray.",
        formatter_class=_formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rnntune {__version__}")
    commands = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")

    def command(name: str, summary: str, **options: str) -> _Parser:
        added = _command(commands, name, summary, **options)
        added.add_argument("--verbose", action="store_true", help="let Ray log")
        added.add_argument("--json", action="store_true", help="print the summary as a JSON line")
        return added

    prepare = command("prepare", "Prepare data and say what was found.", usage=_usage("prepare"))
    add_config(prepare)
    add_settings(prepare, ("data", "batching"))
    train = command("train", "Train a classifier.", usage=_usage("train"))
    _add_run(train)
    add_config(train)
    add_settings(train, ("data", "batching", "model", "train"))
    tune = command("tune", "Search for the best classifier.", usage=_usage("tune"))
    _add_run(tune)
    tune.add_argument("--dry-run", action="store_true", help="say what would be done")
    add_config(tune)
    add_settings(tune, ("tune", "data", "batching", "model", "train"))
    evaluate = command("evaluate", "Score a model on labelled rows.")
    evaluate.add_argument("model", metavar="MODEL", help="a model folder or a run folder")
    evaluate.add_argument("--errors", metavar="FILE", help="write the misclassified rows")
    evaluate.add_argument("--workers", type=int, metavar="N", help="processes; default: by size")
    add_config(evaluate)
    add_settings(evaluate, ("data",))
    predict = command("predict", "Classify texts, standard input or files.")
    predict.add_argument("model", metavar="MODEL", help="a model folder or a run folder")
    predict.add_argument("texts", nargs="*", metavar="TEXT", help="texts; none: lines of stdin")
    predict.add_argument("--input", nargs="+", metavar="FILE", help="files, globs or URIs")
    predict.add_argument("--output", metavar="DIR", help="folder or URI for the predictions")
    predict.add_argument("--format", choices=("parquet", "jsonl"), default="parquet")
    predict.add_argument("--text-columns", metavar="A,B", help="default: the model's")
    predict.add_argument("--workers", type=int, metavar="N", help="processes; default: by size")
    predict.add_argument("--overwrite", action="store_true", help="replace what is there")
    verbs = {
        "prepare": _prepare,
        "train": _train,
        "tune": _tune,
        "evaluate": _evaluate,
        "predict": _predict,
    }
    _add_submit(commands, verbs)
    return parser, verbs


def _command(commands: Any, name: str, summary: str, usage: str | None = None) -> _Parser:
    added: _Parser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        formatter_class=_formatter,
        allow_abbrev=False,
        usage=usage,
    )
    return added


def _usage(verb: str) -> str:
    return f"rnntune {verb} [--config FILE] [--data SOURCE] [--GROUP.NAME VALUE ...]"


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", metavar="RUN", help="run folder or URI; default: runs/TIME")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="go on with a run that was stopped; without RUN the one in --output, if there is one",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the run that is there")


def _config(args: argparse.Namespace) -> Config:
    return Config.load(args.config, args.overrides)


def _printed(args: argparse.Namespace) -> bool:
    if args.print_config:
        sys.stdout.write(_config(args).to_yaml())
    return bool(args.print_config)


def _prepare(args: argparse.Namespace) -> int:
    if _printed(args):
        return 0
    from rnntune import report
    from rnntune.progress import Terminal

    found = report.describe(_config(args), Terminal(), verbose=args.verbose)
    _summary(args, found, report.data_table(found))
    return 0


def _run_folder(args: argparse.Namespace) -> Config:
    from rnntune.run import RunFolder

    if args.resume == "":
        return _begun(args)
    if args.resume:
        if args.overrides or args.config or args.overwrite:
            raise ConfigError("--resume goes on with the run's own settings; give no others")
        return dataclasses.replace(Config(), output=args.resume)
    config = _config(args)
    return dataclasses.replace(config, output=RunFolder.named(config.output).place)


def _begun(args: argparse.Namespace) -> Config:
    """The run in `--output`, which must have the settings given, or a new one there."""
    from rnntune.run import RunFolder

    config = _config(args)
    if args.overwrite:
        raise ConfigError("--resume and --overwrite exclude each other")
    if config.output is None:
        raise ConfigError("--resume without a RUN needs --output")
    folder = RunFolder(config.output)
    if not storage.exists(folder.inside("config.yaml")):
        args.resume = None
        return dataclasses.replace(config, output=folder.place)
    there = flatten(folder.config().to_dict())
    for name, value in flatten(config.to_dict()).items():
        if name != "output" and there[name] != value:
            raise ConfigError(
                f"{name}: the run in {folder.place} has {json.dumps(there[name])}, "
                f"not {json.dumps(value)}; --resume goes on with its settings"
            )
    args.resume = folder.place
    return dataclasses.replace(config, output=folder.place)


def _done(args: argparse.Namespace, call: Callable[..., Any], config: Config) -> Any:
    """The result of a run, which Ctrl-C stops with a word on how to go on."""
    from rnntune.progress import Terminal

    flags = {"resume": bool(args.resume), "overwrite": args.overwrite, "verbose": args.verbose}
    try:
        return call(config, **flags, terminal=Terminal())
    except KeyboardInterrupt:
        again = f"rnntune {args.verb} --resume {config.output}"
        print(f"rnntune: stopped; go on with: {again}", file=sys.stderr)
        raise SystemExit(130) from None


def _train(args: argparse.Namespace) -> int:
    if _printed(args):
        return 0
    config = _run_folder(args)
    from rnntune import report
    from rnntune.train import train

    done = _done(args, train, config)
    _summary(args, {"output": done.place, **done.result}, report.run_table(done.place, done.result))
    return 0


def _tune(args: argparse.Namespace) -> int:
    if _printed(args):
        return 0
    if args.dry_run and args.resume:
        raise ConfigError("--dry-run plans a new search; --resume RUN goes on with one")
    config = _run_folder(args)
    from rnntune import report
    from rnntune.progress import Terminal
    from rnntune.tune import leaderboard, plan, tune

    if args.dry_run:
        planned = plan(config, verbose=args.verbose, terminal=Terminal())
        _summary(args, planned.to_dict(), planned.table())
        return 0
    done = _done(args, tune, config)
    if not args.json:
        _show(leaderboard(done.trials, done.result.get("importance") or {}))
    _summary(args, {"output": done.place, **done.result}, report.run_table(done.place, done.result))
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    if _printed(args):
        return 0
    from rnntune.evaluate import evaluate, table
    from rnntune.progress import Terminal

    done = evaluate(
        args.model,
        _config(args).data,
        num_workers=args.workers,
        errors=args.errors,
        verbose=args.verbose,
        terminal=Terminal(),
    )
    _summary(args, done.to_dict(), table(done))
    return 0


def _predict(args: argparse.Namespace) -> int:
    from rnntune.predict import load, predict_files
    from rnntune.progress import Terminal

    if bool(args.input) != bool(args.output):
        raise ConfigError("--input and --output go together")
    if args.input and args.texts:
        raise ConfigError("give texts or --input, not both")
    if args.input:
        done = predict_files(
            args.model,
            args.input,
            args.output,
            format=args.format,
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
    for text, row in zip(texts, probabilities, strict=True):
        label, probability = model.classes[int(row.argmax())], float(row.max())
        if args.json:
            each = dict(zip(model.classes, map(float, row), strict=True))
            print(json.dumps({"text": text, "label": label, "probabilities": each}))
        else:
            print(f"{label}\t{probability:.4f}\t{text}")
    return 0


def _add_submit(commands: Any, verbs: dict[str, Any]) -> None:
    from rnntune import submit

    usage = "rnntune submit JOB --address URL --output RUN [--GROUP.NAME VALUE ...]"
    one = _command(commands, "submit", "Run a job file on a cluster.", usage)
    submit.add_arguments(one)
    add_settings(one, ("data", "batching", "model", "train", "tune"))
    verbs["submit"] = submit.run
    jobs = commands.add_parser("jobs", help="List, read or stop a cluster's jobs.")
    submit.add_jobs_arguments(jobs)
    verbs["jobs"] = submit.run_jobs


def _summary(args: argparse.Namespace, content: Mapping[str, Any], shown: Any) -> None:
    if args.json:
        print(json.dumps(content))
    else:
        _show(shown)


def _show(shown: Any) -> None:
    from rich.console import Console

    Console(highlight=False, soft_wrap=True).print(shown)
