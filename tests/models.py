"""Models with random weights, for tests that need a model but no training."""

import dataclasses
from pathlib import Path

import torch
from safetensors.torch import save

from rnntune.config.schema import ModelConfig
from rnntune.data.vocabulary import SPECIALS
from rnntune.model.network import Classifier
from rnntune.model.ngrams import letter_ngrams
from rnntune.training.model_metadata import MemberMetadata, ModelMetadata
from rnntune.training.saved_model import read_model, write_model

PLAIN = {
    "ngrams": 0,
    "recurrent_length": None,
    "embedding_std": 0.01,
    "row_dropout": 0.0,
    "embedding_dropout": 0.3,
    "dropout": 0.4,
    "word_dropout": 0.1,
}
"""Settings of a network without the branch of n-grams, which reads whole texts."""

CLASSES = ("World", "Sports", "Business", "Sci/Tech")
WORDS = [
    "the",
    "a",
    "cup",
    "final",
    "talks",
    "in",
    "geneva",
    "chips",
    "shares",
    "rise",
    "fall",
    "fast",
    "minister",
    "wins",
    ",",
    ".",
    "'",
]


def write_random_model(folder: Path, *, classes=CLASSES, model=None, std=1.0, **description) -> str:
    """Write a model of the words above with large weights, so that its predictions differ."""
    config = ModelConfig(**{"embedding_dim": 8, "hidden_size": 6, **PLAIN, **(model or {})})
    vocab = ["<pad>", "<unk>", *WORDS]
    torch.manual_seed(5)
    letters = letter_ngrams(vocab) if config.letter_buckets else None
    network = Classifier(config, len(vocab), len(classes), None, letters)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=std)
        if network.ngrams is not None:
            network.ngrams.idf.uniform_(0.5, 3)
            network.ngrams.idf[: len(SPECIALS)] = 0
    settings = {
        "clean": False,
        "max_length": 12,
        "text_columns": ("text",),
        "label_column": "label",
        **description,
    }
    write_model(
        str(folder),
        save(network.state_dict()),
        "".join(f"{word}\n" for word in vocab),
        ModelMetadata(model=config, classes=classes, **settings),
    )
    return str(folder)


def write_random_ensemble(folder: Path, members, *, std=1.0, **description) -> str:
    """Write an ensemble of networks as `write_random_model` writes one.

    Args:
        folder: to be made.
        members: of each network its weight in the mean and its settings.
        std: of the weights.
        description: of the model.
    """
    files, described = [], []
    for number, (weight, settings) in enumerate(members):
        alone = folder.parent / f"{folder.name}-{number}"
        write_random_model(alone, model=settings, std=std * (1 + number / 3), **description)
        files.append((alone / "model.safetensors").read_bytes())
        _, vocab_text, metadata = read_model(str(alone))
        described.append(MemberMetadata(model=metadata.model, weight=weight))
    metadata = dataclasses.replace(metadata, members=tuple(described))
    write_model(str(folder), files, vocab_text, metadata)
    return str(folder)


def texts(num_rows: int) -> list[str]:
    """Different texts of 1 to 15 words."""
    return [
        " ".join(WORDS[(row * 7 + i * (row % 5 + 1)) % len(WORDS)] for i in range(1 + row % 15))
        for row in range(num_rows)
    ]
