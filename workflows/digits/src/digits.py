"""The data of this project: how a raw file becomes rows, and how rows are scored.

A raw file has one image per line: the digit, then its 8 x 8 pixels from 0 to 16. Everything here depends on the bytes
of its input only, so that a task with unchanged inputs may be taken from the cache, and a score can be recomputed by
anybody. Training is in train.py.
"""

import csv
import pathlib

import numpy as np

SIDE = 8
CLASSES = 10
# Every fifth row of a file is kept for validation. The rule looks at the row's place in its own file only: a new file
# never moves a row of an old one from one side to the other.
VALIDATION_EVERY = 5


def read_raw(path):
    """The labels (n) and images (n, 64), pixels scaled to 0..1, of one raw file."""
    with open(path, newline="") as file:
        rows = np.array([[int(cell) for cell in row] for row in csv.reader(file)], dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != 1 + SIDE * SIDE:
        raise SystemExit(f"{path}: expected lines of {1 + SIDE * SIDE} whole numbers")
    return rows[:, 0].astype(np.int64), rows[:, 1:] / 16.0


def split(labels, images):
    """((train labels, train images), (validation labels, validation images))."""
    held_back = np.arange(len(labels)) % VALIDATION_EVERY == 0
    return (labels[~held_back], images[~held_back]), (labels[held_back], images[held_back])


def shifted(images):
    """Each image, and the same moved by one pixel in four directions: five times the rows."""
    squares = images.reshape(-1, SIDE, SIDE)
    moved = [squares]
    for axis, step in ((1, 1), (1, -1), (2, 1), (2, -1)):
        copy = np.roll(squares, step, axis=axis)
        edge = [slice(None)] * 3
        edge[axis] = 0 if step == 1 else SIDE - 1
        copy[tuple(edge)] = 0.0
        moved.append(copy)
    return np.concatenate(moved).reshape(-1, SIDE * SIDE)


def read_features(folder):
    """All prepared files of a folder, in the order of their names: train labels and images, validation ones."""
    parts = [np.load(path) for path in sorted(pathlib.Path(folder).iterdir())]
    return tuple(
        np.concatenate([part[name] for part in parts])
        for name in ("train_labels", "train_images", "validation_labels", "validation_images")
    )


def save_model(path, coefficients, intercepts):
    """Writes the layers of a network as plain arrays: no code is run when they are read again."""
    layers = {f"coefficients_{i}": layer for i, layer in enumerate(coefficients)}
    layers |= {f"intercepts_{i}": layer for i, layer in enumerate(intercepts)}
    np.savez(path, **layers)


def load_model(path):
    """The layers of a network as a list of (coefficients, intercepts)."""
    with np.load(path) as arrays:
        count = len(arrays.files) // 2
        return [(arrays[f"coefficients_{i}"], arrays[f"intercepts_{i}"]) for i in range(count)]


def score(layers, labels, images):
    """Mean cross-entropy and accuracy of a network with rectified hidden layers and a softmax at its end."""
    values = images
    for coefficients, intercepts in layers[:-1]:
        values = np.maximum(values @ coefficients + intercepts, 0.0)
    coefficients, intercepts = layers[-1]
    values = values @ coefficients + intercepts
    values -= values.max(axis=1, keepdims=True)
    log_probability = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    loss = -log_probability[np.arange(len(labels)), labels].mean()
    accuracy = (log_probability.argmax(axis=1) == labels).mean()
    return round(float(loss), 6), round(float(accuracy), 6)
