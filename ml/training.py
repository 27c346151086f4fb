"""A dense net 7-16-8-2 over standardised features. Loads TensorFlow: run it as `ml.train`.

The only hyper-parameter chosen from data is the L2 penalty, by leaving training devices out in
turn; the number of epochs comes from early stopping on the last fifth of the training days. The
held-out device and period are looked at once, after both are fixed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
import polars as pl
import tensorflow as tf
from numpy.typing import NDArray

from ml.dataset import Split
from ml.evaluation import Bools, Floats, Score, mean_auc, score
from ml.features import FEATURES

HIDDEN: Final = (16, 8)
L2_PENALTIES: Final = (0.01, 0.03)
VALIDATION_SHARE: Final = 0.2
MAX_FOLDS: Final = 3
MAX_EPOCHS: Final = 150
PATIENCE: Final = 15
LEARNING_RATE: Final = 0.005
MIN_DEVIATION: Final = 1e-6
BATCH_ROWS: Final = 256
MAX_STEPS_PER_EPOCH: Final = 50
OUTPUT_CLASSES: Final = ("irrigate", "skip")
NORMALISATION: Final = "standardise"
"""Name of the first layer; conversion cuts the model behind it."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Rows:
    """Inputs and labels as arrays."""

    inputs: NDArray[np.float32]
    irrigate: Bools

    @property
    def soil_7d_avg(self) -> Floats:
        """The baseline's one input."""
        return self.inputs[:, FEATURES.index("soil_7d_avg")].astype(np.float64)


@dataclass(frozen=True)
class Trained:
    """A model that takes raw features, and how it came about."""

    model: keras.Model
    l2: float
    epochs: int
    cross_validation_auc: dict[float, float]


def to_rows(dataset: pl.DataFrame) -> Rows:
    """The arrays of a dataset, in its order."""
    inputs = dataset.select(FEATURES).to_numpy().astype(np.float32)
    return Rows(inputs, dataset["irrigate"].to_numpy().astype(np.bool_))


def train(dataset: pl.DataFrame, *, seed: int, progress: Progress) -> Trained:
    """Choose the penalty on the training split, then fit on all of it."""
    rows = dataset.filter(pl.col("split") == Split.TRAIN.value)
    aucs = {}
    for l2 in L2_PENALTIES:
        scores = [_left_out_score(fit, left, l2, seed) for fit, left in device_folds(rows)]
        aucs[l2] = mean_auc(scores)
        progress(f"L2 {l2}: AUC {aucs[l2]:.3f} on training devices left out")
    best = max(aucs, key=lambda l2: aucs[l2])
    model, epochs = fit_model(rows, best, seed)
    progress(f"fitted on {len(rows)} rows in {epochs} epochs with L2 {best}")
    return Trained(model, best, epochs, aucs)


def device_folds(rows: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """(rest, left out) for up to three groups of devices; nothing where there is one device."""
    devices = sorted(rows["device_id"].unique())
    folds = min(MAX_FOLDS, len(devices))
    if folds < 2:
        return
    for fold in range(folds):
        left_out = pl.col("device_id").is_in(devices[fold::folds])
        yield rows.filter(~left_out), rows.filter(left_out)


def by_period(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(earlier, last fifth of the days): what is fitted on, and what stops the fit."""
    days = rows["date"].unique().sort()
    border = days[int(len(days) * (1 - VALIDATION_SHARE))]
    return rows.filter(pl.col("date") < border), rows.filter(pl.col("date") >= border)


def fit_model(rows: pl.DataFrame, l2: float, seed: int) -> tuple[keras.Model, int]:
    """Fit on the earlier days and stop on the last fifth; returns the model and its epochs."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    earlier, later = map(to_rows, by_period(rows))
    batch_rows = max(BATCH_ROWS, len(earlier.inputs) // MAX_STEPS_PER_EPOCH)
    model = build_model(earlier.inputs, l2)
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        keras.losses.CategoricalCrossentropy(),
        # one call into TensorFlow an epoch: half the time of one a batch
        steps_per_execution=max(1, len(earlier.inputs) // batch_rows),
    )
    history = model.fit(
        earlier.inputs,
        one_hot(earlier.irrigate),
        validation_data=tf.data.Dataset.from_tensors((later.inputs, one_hot(later.irrigate))),
        epochs=MAX_EPOCHS,
        batch_size=batch_rows,
        callbacks=[keras.callbacks.EarlyStopping(patience=PATIENCE, restore_best_weights=True)],
        verbose=0,
    )
    return model, len(history.epoch)


def build_model(inputs: NDArray[np.float32], l2: float) -> keras.Model:
    """An untrained net that standardises raw inputs with the mean and spread of `inputs`."""
    mean, deviation = inputs.mean(axis=0), spread(inputs)
    normalise = keras.layers.Normalization(name=NORMALISATION, mean=mean, variance=deviation**2)
    hidden = [
        keras.layers.Dense(units, activation="relu", kernel_regularizer=keras.regularizers.L2(l2))
        for units in HIDDEN
    ]
    output = keras.layers.Dense(len(OUTPUT_CLASSES), activation="softmax")
    return keras.Sequential([keras.Input((len(FEATURES),)), normalise, *hidden, output])


def spread(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Standard deviations; an input that never varied gets its own size, to have little say."""
    deviation = inputs.std(axis=0)
    constant = deviation <= MIN_DEVIATION * np.maximum(np.abs(inputs.mean(axis=0)), 1)
    size: NDArray[np.float32] = np.maximum(np.abs(inputs.mean(axis=0)), 1)
    return np.where(constant, size, deviation).astype(np.float32)


def one_hot(irrigate: Bools) -> NDArray[np.float32]:
    """Columns in the order of OUTPUT_CLASSES."""
    return np.stack([irrigate, ~irrigate], axis=1).astype(np.float32)


def predict(model: Any, rows: Rows) -> Floats:
    """Probability of `irrigate`."""
    outputs: Floats = np.asarray(model(rows.inputs, training=False), dtype=np.float64)
    return outputs[:, OUTPUT_CLASSES.index("irrigate")]


def score_model(model: Any, dataset: pl.DataFrame) -> Score:
    """Score on the rows of a dataset."""
    rows = to_rows(dataset)
    return score(rows.irrigate, predict(model, rows), rows.soil_7d_avg)


def _left_out_score(rest: pl.DataFrame, left_out: pl.DataFrame, l2: float, seed: int) -> Score:
    model, _ = fit_model(rest, l2, seed)
    return score_model(model, left_out)
