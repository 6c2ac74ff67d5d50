"""More trials or more time for a search that is there, finished or not."""

from collections.abc import Mapping
from dataclasses import dataclass

from rnntune.config.load import Config
from rnntune.errors import ConfigError

__all__ = ["Extension"]
_TRIALS, _SECONDS = "tune.num_trials", "tune.time_budget_s"


@dataclass(frozen=True)
class Extension:
    """What a search is given beyond its own settings.

    Attributes:
        num_trials: further trials.
        time_budget_s: further seconds.
    """

    num_trials: int = 0
    time_budget_s: float = 0.0

    @classmethod
    def parse(cls, flags: Mapping[str, str]) -> "Extension":
        """Read flags of the command line: dotted names to text, such as `+16`.

        Raises:
            ConfigError: a setting that cannot be extended, or no number after a plus sign.
        """
        for name, text in flags.items():
            if name not in (_TRIALS, _SECONDS):
                raise ConfigError(
                    f"{name}: --resume goes on with the run's own settings; a search takes "
                    f"--{_TRIALS} +N and --{_SECONDS} +S beside it"
                )
            if not (text.startswith("+") and text[1:].isdecimal() and int(text) > 0):
                raise ConfigError(
                    f"{name}: beside --resume it is a number to add, as +16, not {text}"
                )
        return cls(int(flags.get(_TRIALS, "0")), float(flags.get(_SECONDS, "0")))

    def extend(self, config: Config) -> Config:
        """The settings of a search with what it is given.

        Raises:
            ConfigError: a grid, which has all its points, a population, or a search without a
                time budget.
        """
        tune = config.tune
        if tune.scheduler == "pbt":
            name = _TRIALS if self.num_trials else _SECONDS
            raise ConfigError(f"{name}: the members of a population (pbt) began together")
        if self.num_trials and tune.searcher == "grid":
            raise ConfigError(f"{_TRIALS}: a grid has its own number of trials")
        if self.time_budget_s and tune.time_budget_s is None:
            raise ConfigError(f"{_SECONDS}: this search has no time budget that could grow")
        overrides: dict[str, float] = {_TRIALS: tune.num_trials + self.num_trials}
        if tune.time_budget_s is not None:
            overrides[_SECONDS] = tune.time_budget_s + self.time_budget_s
        return config.override(overrides)
