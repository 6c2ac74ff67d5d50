"""Files of settings: one configuration, or a list of several that are named by number.

A list, as a search writes it into `pareto.yaml`, holds mappings whose `config` is a configuration;
`RUN/pareto.yaml#3` is the third of them.
"""

from typing import Any

import yaml

from rnntune import storage
from rnntune.errors import ConfigError
from rnntune.location import Location

__all__ = ["parse_yaml", "settings_text"]


def settings_text(uri: str) -> str:
    """The text of a file of settings, or of one configuration of several in a file.

    Args:
        uri: of the file, with `#` and a number from 1 behind it if it holds several. A local file
            whose name itself has a `#` is that file.

    Raises:
        ConfigError: there is no such number, or the file holds no list of configurations.
        StorageError: it cannot be read.
    """
    file, mark, number = uri.rpartition("#")
    is_point = bool(mark and file) and "/" not in number
    if is_point and not Location.parse(uri).is_remote:
        is_point = not storage.exists(uri) and storage.exists(file)
    if not is_point:
        return storage.read_text(uri)
    configs = _configs(_load(storage.read_text(file), file))
    if not configs:
        raise ConfigError(f"{uri}: {file} holds no list of configurations; leave #{number} out")
    if not (number.isdecimal() and 1 <= int(number) <= len(configs)):
        raise ConfigError(f"{uri}: {file} holds the configurations #1 to #{len(configs)}")
    text: str = yaml.safe_dump(configs[int(number) - 1], sort_keys=False, allow_unicode=True)
    return text


def _configs(content: Any) -> list[dict[str, Any]]:
    """The configurations that a file holds as a list; none if it holds something else."""
    points = content if isinstance(content, list) else []
    configs = [point.get("config") for point in points if isinstance(point, dict)]
    whole = [config for config in configs if isinstance(config, dict)]
    return whole if len(whole) == len(points) else []


def parse_yaml(text: str, file: str) -> dict[str, Any]:
    """Parse a YAML mapping.

    Raises:
        ConfigError: not YAML, or not a mapping.
    """
    tree = _load(text, file)
    if tree is None:
        return {}
    if configs := _configs(tree):
        raise ConfigError(f"{file}: holds {len(configs)} configurations; name one, as {file}#1")
    if not isinstance(tree, dict):
        raise ConfigError(f"{file}: must be a mapping of settings, not {type(tree).__name__}")
    return tree


def _load(text: str, file: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(f"{file}{line}: {problem}") from error
    except RecursionError as error:
        raise ConfigError(f"{file}: nested too deeply") from error
    except ValueError as error:  # a date that is none
        raise ConfigError(f"{file}: {ConfigError.reason(error)}") from error
