"""The whole configuration: one tree of frozen dataclasses, checked on construction.

A key is written with dots (`model.hidden_size`). A YAML file holds the difference from the
defaults; `Config.load` merges it with overrides, and `Config.to_yaml` writes every value.
"""

import dataclasses
import difflib
import os
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from rnntune import storage
from rnntune.config.schema import (
    STRICT,
    BatchingConfig,
    DataConfig,
    ModelConfig,
    TrainConfig,
    TuneConfig,
)
from rnntune.config.settings_file import parse_yaml, settings_text
from rnntune.errors import ConfigError

__all__ = ["Config", "Setting", "flatten", "list_settings", "parse_yaml"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Config:
    """All settings of a run.

    Raises:
        ConfigError: from `load` and `override`; the constructors raise pydantic's
            ValidationError, which is a ValueError too.
    """

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    """Where the text comes from and how it becomes token ids."""
    batching: BatchingConfig = dataclasses.field(default_factory=BatchingConfig)
    """How rows are grouped into batches."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    """The network."""
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    """The training loop and where it runs."""
    tune: TuneConfig = dataclasses.field(default_factory=TuneConfig)
    """The search over configurations."""
    output: str | None = None
    """Run folder or URI; null: runs/ and the time."""

    @classmethod
    def load(
        cls,
        file: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> "Config":
        """Read a YAML file (a difference from the defaults) and apply dotted overrides.

        Args:
            file: a path or URI, `#3` behind it for the third of several configurations in it; or
                what such a file holds: groups of settings or dotted names.
            overrides: dotted names to values.

        Raises:
            ConfigError: the file is not readable YAML, or a key or value is not valid; the
                message names the key, what would be right and the file.
        """
        if isinstance(file, Mapping):
            return _validated(_merged(_merged({}, file), overrides or {}), None)
        name = os.fspath(file) if file else None
        tree = parse_yaml(settings_text(name), name) if name else {}
        return _validated(_merged(tree, overrides or {}), name)

    def override(self, overrides: Mapping[str, Any]) -> "Config":
        """A copy with dotted names set to other values.

        Raises:
            ConfigError: a name or value is not valid.
        """
        return _validated(_merged(self.to_dict(), overrides), None)

    def to_dict(self) -> dict[str, Any]:
        """The tree as plain dictionaries, lists and scalars."""
        tree: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return tree

    def to_yaml(self) -> str:
        """The tree as YAML, in the order of the fields."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)


_ADAPTER = TypeAdapter(Config)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting: dotted name, default and what it is."""

    name: str
    default: Any
    doc: str
    is_text: bool = False
    """Whether its value is text, whatever it looks like."""
    is_names: bool = False
    """Whether its value is a name, or several: text, or a list in brackets."""


def list_settings() -> list[Setting]:
    """Every setting in the order of the tree."""
    found = []
    defaults = flatten(Config().to_dict())
    for group, info in _fields(Config).items():
        inner = _fields(info.annotation)
        if not inner:
            found.append(Setting(group, defaults.get(group), info.description or ""))
            continue
        for name, inner_info in inner.items():
            dotted = f"{group}.{name}"
            is_text = inner_info.annotation is str
            doc = inner_info.description or ""
            is_names = inner_info.annotation == str | tuple[str, ...]
            found.append(Setting(dotted, defaults.get(dotted), doc, is_text, is_names))
    return found


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Nested groups as dotted names; a setting's own mapping (`tune.space`) stays whole."""
    flat = {}
    for group, values in tree.items():
        if isinstance(values, Mapping) and group in _groups():
            flat.update({f"{group}.{name}": value for name, value in values.items()})
        else:
            flat[group] = values
    return flat


def _groups() -> dict[str, list[str]]:
    inner = {name: list(_fields(info.annotation)) for name, info in _fields(Config).items()}
    return {name: names for name, names in inner.items() if names}


def _fields(kind: Any) -> dict[str, FieldInfo]:
    """The fields of a group of settings; none of anything else."""
    return getattr(kind, "__pydantic_fields__", {})


def _merged(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in tree.items()
    }
    for dotted, value in overrides.items():
        group, _, name = dotted.partition(".")
        if not name:
            merged[group] = value
            continue
        inner = merged.setdefault(group, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{group} must be a mapping of settings, not {inner!r}")
        inner[name] = value
    return merged


def _validated(tree: Mapping[str, Any], file: str | None) -> Config:
    where = f"{file}: " if file else ""
    groups = _groups()
    _check_names("", tree, _fields(Config), where)
    for group, names in groups.items():
        inner = tree.get(group)
        if inner is None and group in tree:
            raise ConfigError(f"{where}{group} is empty; leave it out or give it settings")
        if isinstance(inner, Mapping):
            _check_names(f"{group}.", inner, names, where)
        elif group in tree:
            raise ConfigError(f"{where}{group} must be a mapping of settings, not {_shown(inner)}")
    _refuse_secrets(tree, where)
    try:
        config: Config = _ADAPTER.validate_python(dict(tree))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][:2])
        value = "" if isinstance(first["input"], Mapping) else f", not {_shown(first['input'])}"
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{where}{key}: {_lower_first(message)}{value}") from error
    return config


def _refuse_secrets(tree: Mapping[str, Any], where: str) -> None:
    for name, value in flatten(tree).items():
        texts = value if isinstance(value, list | tuple) else [value]
        for text in (text for text in texts if isinstance(text, str)):
            if not storage.holds_secret(text):
                continue
            raise ConfigError(
                f"{where}{name}: {storage.mask_secret(text)} holds a password, which would reach "
                "files and logs; set it in the environment, such as AWS_SECRET_ACCESS_KEY, instead"
            )


def _check_names(prefix: str, tree: Iterable[Any], valid: Iterable[str], where: str) -> None:
    valid = list(valid)
    for key in tree:
        if key not in valid:
            close = difflib.get_close_matches(str(key), valid, 1)
            hint = f" (did you mean {prefix}{close[0]}?)" if close else ""
            of = f" of {prefix[:-1]}" if prefix else ""
            names = ", ".join(valid)
            raise ConfigError(f"{where}unknown key {prefix}{key}{hint}; valid keys{of}: {names}")


def _shown(value: Any) -> str:
    """A value as Python writes it, cut where it is long; reprlib never builds the whole."""
    shown = reprlib.Repr()
    shown.maxstring = shown.maxother = 200
    return shown.repr(value)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
