"""Commands: argument parsing, one line for a mistake, a summary at the end."""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from rnntune import __version__
from rnntune.cli.cache_command import add_cache_arguments, cache_command
from rnntune.cli.commands import (
    evaluate_command,
    export_command,
    predict_command,
    prepare_command,
    train_command,
    tune_command,
)
from rnntune.cli.report_command import add_report_arguments, report_command
from rnntune.config.flags import add_config, add_settings, parse_overrides, unknown_settings
from rnntune.errors import ConfigError, RnntuneError
from rnntune.storage import mask_secret

__all__ = ["main"]
_WIDTH = 118
_INPUT_SETTINGS = ("data.format", "data.encoding", "data.delimiter", "data.header")


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
            args.overrides = {**parse_overrides(args), **unknown_settings(rest)}
        elif args.verb == "predict" and not any(item.startswith("-") for item in rest):
            args.texts += rest  # argparse ends `TEXT ...` at the first option
            args.overrides = parse_overrides(args)
        elif rest:
            raise ConfigError(f"unknown argument {rest[0]}; see rnntune {args.verb} --help")
        return int(verbs[args.verb](args))
    except RnntuneError as error:
        from rnntune.console import printable

        print(f"rnntune: {printable(mask_secret(' '.join(str(error).split())))}", file=sys.stderr)
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
    _add_escape(evaluate)
    evaluate.add_argument("--workers", type=int, metavar="N", help="processes; default: by size")
    add_config(evaluate)
    add_settings(evaluate, ("data",))
    predict = command("predict", "Classify texts, standard input or files.")
    predict.add_argument("model", metavar="MODEL", help="a model folder or a run folder")
    predict.add_argument("texts", nargs="*", metavar="TEXT", help="texts; none: lines of stdin")
    predict.add_argument("--input", nargs="+", metavar="FILE", help="files, globs or URIs")
    predict.add_argument("--output", metavar="DIR", help="folder or URI for the predictions")
    predict.add_argument("--format", choices=("parquet", "jsonl", "csv"), default="parquet")
    _add_escape(predict)
    predict.add_argument("--text-columns", metavar="A,B", help="default: the model's")
    predict.add_argument("--workers", type=int, metavar="N", help="processes; default: by size")
    predict.add_argument("--overwrite", action="store_true", help="replace what is there")
    add_settings(predict, ("data",), _INPUT_SETTINGS)
    _add_export(command("export", "Write a model as files for onnxruntime, without PyTorch."))
    cache = command("cache", "List or clean the cache of prepared data.")
    add_cache_arguments(cache)
    report = command("report", "Write the page of a run, or compare several.")
    add_report_arguments(report)
    verbs = {
        "prepare": prepare_command,
        "train": train_command,
        "tune": tune_command,
        "evaluate": evaluate_command,
        "predict": predict_command,
        "export": export_command,
        "report": report_command,
        "cache": cache_command,
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


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a run folder or a model folder")
    parser.add_argument("--output", metavar="DIR", required=True, help="folder or URI to be made")
    parser.add_argument("--format", choices=("onnx",), default="onnx", help="form of the files")
    parser.add_argument("--quantize", choices=("int8",), help="store numbers in 8 bits")
    parser.add_argument(
        "--max-size", metavar="SIZE", help="such as 2MB: leave out what has no room"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the export that is there")


def _add_escape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-escape",
        action="store_true",
        help="write cells of CSV that begin with = + - @ without a quote before them",
    )


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


def _add_submit(commands: Any, verbs: dict[str, Any]) -> None:
    from rnntune.submission.submit import add_arguments, add_jobs_arguments, run, run_jobs

    usage = "rnntune submit JOB --address URL --output RUN [--GROUP.NAME VALUE ...]"
    one = _command(commands, "submit", "Run a job file on a cluster.", usage)
    add_arguments(one)
    add_settings(one, ("data", "batching", "model", "train", "tune"))
    verbs["submit"] = run
    jobs = commands.add_parser("jobs", help="List, read or stop a cluster's jobs.")
    add_jobs_arguments(jobs)
    verbs["jobs"] = run_jobs
