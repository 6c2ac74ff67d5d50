"""Settings as flags of a command line."""

import argparse
import json
import math
from collections.abc import Sequence
from typing import Any

import yaml

from rnntune.config.load import Setting, list_settings
from rnntune.config.schema import AUTO
from rnntune.errors import ConfigError

__all__ = ["add_config", "add_settings", "as_flag", "parse_overrides", "unknown_settings"]
_EVERYONES = {"data.source": "--data"}


def add_config(parser: argparse.ArgumentParser) -> None:
    """Give a command a file of settings."""
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file of settings, or RUN/pareto.yaml#3; flags win"
    )
    parser.add_argument(
        "--print_config", action="store_true", help="print all settings as YAML and stop"
    )


def add_settings(
    parser: argparse.ArgumentParser, groups: Sequence[str], names: Sequence[str] | None = None
) -> None:
    """Give a command a flag for each setting of some groups.

    Args:
        parser: of the command.
        groups: such as `data`.
        names: those of them that it takes, with dots; None: all.
    """
    for group in groups:
        section = parser.add_argument_group(group)
        for setting in list_settings():
            if setting.name.startswith(f"{group}.") and (names is None or setting.name in names):
                _add_setting(section, setting)


def _add_setting(section: argparse._ArgumentGroup, setting: Setting) -> None:
    names = [f"--{setting.name}"]
    if setting.name in _EVERYONES:
        names.insert(0, _EVERYONES[setting.name])
    default = json.dumps(setting.default) if setting.name != "tune.space" else "see --print_config"
    section.add_argument(
        *names,
        dest=setting.name,
        default=argparse.SUPPRESS,
        metavar="X",
        help=f"{setting.doc} [{default}]".replace("%", "%%"),
    )


def parse_overrides(args: argparse.Namespace) -> dict[str, Any]:
    """The settings among the arguments, as dotted names."""
    settings = {field.name: field for field in list_settings()}
    found = {name: _value(settings[name], text) for name, text in vars(args).items() if "." in name}
    if getattr(args, "output", None):
        found["output"] = args.output
    return found


def as_flag(name: str, value: Any) -> str:
    """`--name=text` that `parse_overrides` reads as the value again."""
    setting = next(
        (field for field in list_settings() if field.name == name), Setting(name, None, "")
    )
    if isinstance(value, str) and _value(setting, value) == value:
        return f"--{name}={value}"
    text: str = yaml.safe_dump(value, default_flow_style=True, width=math.inf)
    return f"--{name}=" + text.removesuffix("...\n").removesuffix("\n")


def unknown_settings(rest: Sequence[str]) -> dict[str, Any]:
    """Arguments that no command knows: misspelt settings, which the configuration refuses."""
    found: dict[str, Any] = {}
    left = list(rest)
    while left:
        name, mark, value = left.pop(0).partition("=")
        if not name.startswith("--") or "." not in name:
            raise ConfigError(f"unknown argument {name}")
        if not mark and left:
            value = left.pop(0)
        found[name.removeprefix("--")] = value
    return found


def _value(setting: Setting, text: str) -> Any:
    if setting.is_text or (setting.is_names and not text.startswith("[")):
        return text
    if setting.is_names:
        return _list(text)
    if isinstance(setting.default, list) and not text.startswith("["):
        return text.split(",")
    if _is_punctuation(text):  # to YAML a block of text, a comment and so on
        return text
    if isinstance(setting.default, str) and text.startswith(("*", "&", "!", "%", "@", "`")):
        return text
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # a date that is none is a ValueError
        return text
    keep = isinstance(value, str | int | float | bool | list | dict | None)
    is_text = isinstance(setting.default, str) and setting.default != AUTO
    is_text = is_text and not isinstance(value, bool)
    return text if is_text or not keep else value


def _is_punctuation(text: str) -> bool:
    empty = ("~", "[]", "{}", '""', "''")
    return bool(text.strip()) and text not in empty and not any(map(str.isalnum, text))


def _list(text: str) -> Any:
    """A list in brackets; other text stays as it is."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text
    return value if isinstance(value, list) else text
