"""Models with random weights, for tests that need a model but no training."""

from pathlib import Path

import torch
from safetensors.torch import save

from rnntune.checkpoint import Description, write_model
from rnntune.config import ModelConfig
from rnntune.model import Classifier

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


def write_random_model(folder: Path, *, classes=CLASSES, model=None, **description) -> str:
    """Write a model of the words above with large weights, so that its predictions differ."""
    config = ModelConfig(embedding_dim=8, hidden_size=6, **(model or {}))
    vocab = ["<pad>", "<unk>", *WORDS]
    torch.manual_seed(5)
    network = Classifier(config, len(vocab), len(classes))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
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
        Description(model=config, classes=classes, **settings),
    )
    return str(folder)


def texts(num_rows: int) -> list[str]:
    """Different texts of 1 to 15 words."""
    return [
        " ".join(WORDS[(row * 7 + i * (row % 5 + 1)) % len(WORDS)] for i in range(1 + row % 15))
        for row in range(num_rows)
    ]
