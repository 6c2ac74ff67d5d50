"""Train and tune recurrent text classifiers on Ray.

Importing the package is quick: what it offers is imported when it is first used.

    rnntune.train(config)             train a classifier
    rnntune.tune(config)              search for a configuration
    rnntune.evaluate(model, data)     score a trained model
    rnntune.load(model)               use a trained model in this process
"""

import importlib
import inspect
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnntune.classifier import TextClassifier, load
    from rnntune.config import Config, DataConfig
    from rnntune.errors import ClusterError, ConfigError, DataError, RnntuneError, RunError
    from rnntune.evaluate import evaluate
    from rnntune.train import train
    from rnntune.tune import tune

__all__ = [
    "ClusterError",
    "Config",
    "ConfigError",
    "DataConfig",
    "DataError",
    "RnntuneError",
    "RunError",
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
    "Config": "config",
    "ConfigError": "errors",
    "DataConfig": "config",
    "DataError": "errors",
    "RnntuneError": "errors",
    "RunError": "errors",
    "TextClassifier": "classifier",
    "load": "classifier",
}
_VERBS = frozenset({"evaluate", "train", "tune"})


class _Verb(ModuleType):
    """A module named after its main function, which is called when the module is."""

    @property
    def _function(self) -> Any:
        return vars(self)[self.__name__.rpartition(".")[2]]

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)


class _Package(ModuleType):
    """This package: a verb's module can be called, whoever imports it and in whatever order."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _VERBS and type(value) is ModuleType:
            value.__class__ = _Verb
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
