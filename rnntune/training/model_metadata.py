"""What a model folder says of its weights: `config.yaml`, and which files hold them."""

import dataclasses
from typing import Annotated

from pydantic import Field

from rnntune import __version__
from rnntune.config.schema import ModelConfig, Tokenizer
from rnntune.data.task import Task

__all__ = ["MemberMetadata", "ModelMetadata"]
_MAX_MEMBERS = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemberMetadata:
    """One network of an ensemble.

    Args:
        model: the architecture.
        weight: in the mean, how often the network was chosen.
        vector_dim: size of its frozen word vectors; 0: none.
    """

    model: ModelConfig
    weight: Annotated[int, Field(ge=1, le=1_000_000)]
    vector_dim: Annotated[int, Field(ge=0)] = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """What is needed to use a model's weights; `config.yaml` of a model folder.

    Args:
        model: the architecture, of an ensemble that of its first member.
        classes: names of the classes, in the order of the outputs.
        clean: whether texts are cleaned first.
        tokenizer: how texts are split into tokens; models of earlier versions have none written.
        max_length: tokens of a text that are read.
        text_columns: columns that make the text of a row.
        label_column: column of its label, or several of 0 and 1.
        label_delimiter: what separates labels in that column; None: nothing does.
        task: whether a row has one label, or a set of them.
        thresholds: of a set of labels, the probability from which on a row has each class.
        vector_dim: size of the frozen word vectors; 0: none, or an ensemble's members have them.
        members: the networks of an ensemble, whose probabilities are averaged; none: one network.
        num_trained_words: words that have trained rows, the first ones; None: all.
        temperature: what logits are divided by before they become probabilities.
        version: of the package that wrote it.
    """

    model: ModelConfig
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    clean: bool
    max_length: Annotated[int, Field(ge=1)]
    text_columns: tuple[str, ...]
    label_column: str | tuple[str, ...]
    vector_dim: Annotated[int, Field(ge=0)] = 0
    num_trained_words: Annotated[int, Field(ge=2)] | None = None
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    tokenizer: Tokenizer = "basic_english"
    label_delimiter: str | None = None
    task: Task = Task.SINGLE_LABEL
    thresholds: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = None
    members: Annotated[tuple[MemberMetadata, ...], Field(max_length=_MAX_MEMBERS)] = ()
    version: str = __version__

    @property
    def networks(self) -> tuple[MemberMetadata, ...]:
        """The networks: the members, or the one that there is."""
        alone = MemberMetadata(model=self.model, weight=1, vector_dim=self.vector_dim)
        return self.members or (alone,)

    @property
    def packed(self) -> bool:
        """Whether no network reads the padding of a batch."""
        return all(network.model.packed for network in self.networks)

    @property
    def weight_files(self) -> tuple[str, ...]:
        """Names of the files of weights, in the order of the networks."""
        if not self.members:
            return ("model.safetensors",)
        return tuple(f"member-{number}.safetensors" for number in range(len(self.members)))
