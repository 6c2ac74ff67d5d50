"""`rnntune cache`: what the cache of prepared data holds, and cleaning it."""

import argparse
import dataclasses
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rnntune.cli.commands import parse_size
from rnntune.config.schema import DataConfig
from rnntune.errors import ConfigError
from rnntune.location import Location

if TYPE_CHECKING:
    from rnntune.data.cache import CacheEntry

__all__ = ["add_cache_arguments", "cache_command"]
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def add_cache_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("action", choices=("list", "clean"), help="clean deletes, list does not")
    parser.add_argument("--cache_dir", metavar="DIR", help="folder or URI; default: the settings'")
    parser.add_argument("--older_than", metavar="AGE", help="clean what was not used for 30d, 12h")
    parser.add_argument("--max_size", metavar="SIZE", help="clean the oldest until 10GB are left")
    parser.add_argument("--all", action="store_true", help="clean all that nobody uses")
    parser.add_argument("--dry-run", action="store_true", help="say what would be deleted")


def cache_command(args: argparse.Namespace) -> int:
    """List the cache, or clean it; what killed preparations left always goes."""
    from rnntune.console import printable
    from rnntune.data.cache import clean_cache, list_cache

    cache_dir = args.cache_dir or DataConfig().cache_dir
    limits = {
        "older_than_s": _parse_age(args.older_than) if args.older_than else None,
        "max_bytes": parse_size(args.max_size, "--max_size") if args.max_size else None,
        "everything": args.all,
    }
    if args.action == "list":
        if args.dry_run or any(limits.values()):
            raise ConfigError("cache list deletes nothing; cache clean takes such options")
        entries = list_cache(cache_dir)
        lines = [*_table(entries), f"{_size(entries)} in {cache_dir}"]
        content = {"entries": [dataclasses.asdict(entry) for entry in entries]}
    else:
        freed, used = clean_cache(cache_dir, dry_run=args.dry_run, **limits)
        verb = "would delete" if args.dry_run else "deleted"
        lines = [*_table(freed), f"{verb} {_size(freed)} in {cache_dir}"]
        lines += [f"in use, left: {entry.uri} by {', '.join(entry.users)}" for entry in used]
        content = {
            "deleted": [dataclasses.asdict(entry) for entry in freed],
            "in_use": [dataclasses.asdict(entry) for entry in used],
            "dry_run": args.dry_run,
        }
    print(json.dumps(content) if args.json else printable("\n".join(lines)))
    return 0


def _parse_age(text: str) -> float:
    """Seconds of an age such as 30d or 12h.

    Raises:
        ConfigError: not an age.
    """
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?) ?([smhdw])", text)
    if not found:
        raise ConfigError(f"--older_than {text}: not an age such as 30d, 12h or 2w")
    return float(found[1]) * _UNITS_S[found[2]]


def _size(entries: Sequence["CacheEntry"]) -> str:
    noun = "entry" if len(entries) == 1 else "entries"
    return f"{len(entries)} {noun}, {_bytes(sum(entry.num_bytes for entry in entries))}"


def _table(entries: Sequence["CacheEntry"]) -> list[str]:
    """A line an entry: its size, when it was used, rows, source, state, folder."""
    rows = [
        (
            _bytes(entry.num_bytes),
            _age(entry.age_s),
            f"{entry.num_rows:,} rows of {entry.source}" if entry.is_complete else "unfinished",
            f"in use by {', '.join(entry.users)}" if entry.users else "",
            Location.parse(entry.uri).name,
        )
        for entry in entries
    ]
    return [
        "  ".join([row[0].rjust(10), row[1].rjust(12), row[4], *filter(None, row[2:4])])
        for row in rows
    ]


def _bytes(number: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} B"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"
