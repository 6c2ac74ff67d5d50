"""Reading a trained model, whichever form it has."""

from typing import TYPE_CHECKING, TypeAlias

from rnntune.inference.exported import is_export, load_export

if TYPE_CHECKING:
    from rnntune.inference.classifier import TextClassifier
    from rnntune.inference.exported import ExportedClassifier

__all__ = ["AnyClassifier", "load"]
AnyClassifier: TypeAlias = "TextClassifier | ExportedClassifier"


def load(uri: str) -> AnyClassifier:
    """Read a trained model; an export is read without PyTorch.

    Args:
        uri: a run folder, its model folder or an export; a local path or a URI.

    Raises:
        RnntuneError: there is no whole model.
    """
    if is_export(uri):
        return load_export(uri)
    from rnntune.inference import classifier

    return classifier.load(uri)
