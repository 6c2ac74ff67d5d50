import dataclasses

import numpy as np

from rnntune.training.diagnosis import diagnose_training
from rnntune.training.evaluation import SplitPredictions

CLASSES = ("ham", "spam")


def _predictions(labels, predicted) -> SplitPredictions:
    ones = np.ones(len(labels), dtype=np.float32)
    return SplitPredictions(
        rows=np.arange(len(labels)),
        labels=np.array(labels, dtype=np.int32),
        predicted=np.array(predicted, dtype=np.int32),
        probability=ones,
        calibrated=ones,
    )


def _history(*accuracies):
    return [{"validation_accuracy": accuracy} for accuracy in accuracies]


def test_a_sound_training_has_no_line():
    sound = _predictions([0, 1] * 50, [0, 1] * 50)
    assert diagnose_training(_history(0.8, 0.9, 0.902), sound, CLASSES) == []
    mostly_ham = _predictions([0] * 97 + [1] * 3, [0] * 99 + [1])
    assert diagnose_training(_history(0.9, 0.9), mostly_ham, CLASSES) == []


def test_one_class_for_nearly_everything():
    (line,) = diagnose_training(_history(0.5, 0.5), _predictions([0, 1] * 50, [0] * 100), CLASSES)
    assert line.startswith("class 'ham' is predicted for 100% of the test rows, 50% are of it")


def test_validation_that_still_rises():
    (line,) = diagnose_training(_history(0.7, 0.8, 0.85), None, CLASSES)
    assert line.startswith("validation accuracy still rose in the last epoch, by 0.050")
    assert "train.epochs 6" in line
    assert diagnose_training(_history(0.9, 0.85), None, CLASSES) == []
    assert diagnose_training([{}, {}], None, CLASSES) == []


def test_no_label_for_nearly_every_row():
    labels = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 25, dtype=bool)
    nothing = dataclasses.replace(_predictions([0] * 100, [0] * 100), labels=labels)
    nothing = dataclasses.replace(nothing, predicted=np.zeros((100, 2), dtype=bool))
    (line,) = diagnose_training([{}], nothing, CLASSES)
    assert line.startswith("no label is predicted for 100% of the test rows, 25% have none")
    sound = dataclasses.replace(nothing, predicted=labels)
    assert diagnose_training([{}], sound, CLASSES) == []
    rising = [{"validation_accuracy": 0.5, "validation_micro_f1": value} for value in (0.7, 0.8)]
    (line,) = diagnose_training(rising, sound, CLASSES)
    assert line.startswith("validation micro F1 still rose in the last epoch, by 0.100")
