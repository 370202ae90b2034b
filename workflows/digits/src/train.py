"""Trains a small neural network, one epoch at a time, and reports as it goes.

    train.py FEATURES OUT

Settings come from the environment, where the workflow's matrix puts them: HIDDEN (neurons), LEARNING_RATE, EPOCHS.
The seed is fixed: the same data and settings give the same model.
"""

import json
import os
import pathlib
import sys

import numpy as np
from sklearn.neural_network import MLPClassifier

import digits

# Rows per step of gradient descent.
BATCH = 16


def report(step, **metrics):
    """Adds lines to the file that the engine reads metrics from, if there is one."""
    path = os.environ.get("KICKWHEEL_METRICS")
    if path:
        with open(path, "a") as file:
            for name, value in metrics.items():
                file.write(json.dumps({"name": name, "value": value, "step": step}) + "\n")


def main(features, out):
    hidden = int(os.environ.get("HIDDEN", "64"))
    learning_rate = float(os.environ.get("LEARNING_RATE", "0.001"))
    epochs = int(os.environ.get("EPOCHS", "40"))
    train_labels, train_images, validation_labels, validation_images = digits.read_features(features)
    print(f"{len(train_labels)} rows, {hidden} hidden neurons, learning rate {learning_rate}, {epochs} epochs", flush=True)

    network = MLPClassifier((hidden,), learning_rate_init=learning_rate, batch_size=BATCH, random_state=7)
    order = np.random.default_rng(7)
    for epoch in range(1, epochs + 1):
        rows = order.permutation(len(train_labels))
        network.partial_fit(train_images[rows], train_labels[rows], classes=np.arange(digits.CLASSES))
        layers = list(zip(network.coefs_, network.intercepts_))
        loss, accuracy = digits.score(layers, validation_labels, validation_images)
        report(epoch, progress=epoch / epochs, train_loss=float(network.loss_), val_loss=loss, val_accuracy=accuracy)
        print(f"epoch {epoch:3d} of {epochs}: val_loss {loss:.6f}, val_accuracy {accuracy:.4f}", flush=True)

    pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
    digits.save_model(out, network.coefs_, network.intercepts_)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
