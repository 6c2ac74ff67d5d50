"""Train and tune recurrent text classifiers on Ray.

Importing the package is quick: what it offers is imported when it is first used.

    rnntune.train(config)             train a classifier
    rnntune.tune(config)              search for a configuration
    rnntune.evaluate(model, data)     score a trained model
    rnntune.load(model)               use a trained model in this process
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnntune.api import train, tune
    from rnntune.config.load import Config
    from rnntune.config.schema import DataConfig
    from rnntune.errors import (
        ClusterError,
        ConfigError,
        DataError,
        DivergedError,
        OverLimitError,
        RnntuneError,
        RunError,
        StorageError,
    )
    from rnntune.inference.classifier import TextClassifier
    from rnntune.inference.evaluate import evaluate
    from rnntune.inference.loading import load

__all__ = [
    "ClusterError",
    "Config",
    "ConfigError",
    "DataConfig",
    "DataError",
    "DivergedError",
    "OverLimitError",
    "RnntuneError",
    "RunError",
    "StorageError",
    "TextClassifier",
    "__version__",
    "evaluate",
    "load",
    "train",
    "tune",
]

__version__ = "0.1.0"

_MODULES = {
    "ClusterError": "errors",
    "Config": "config.load",
    "ConfigError": "errors",
    "DataConfig": "config.schema",
    "DataError": "errors",
    "DivergedError": "errors",
    "OverLimitError": "errors",
    "RnntuneError": "errors",
    "RunError": "errors",
    "StorageError": "errors",
    "TextClassifier": "inference.classifier",
    "evaluate": "inference.evaluate",
    "load": "inference.loading",
    "train": "api",
    "tune": "api",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
