"""Scores a model on the validation rows of raw files, without anything that training computed.

    evaluate.py MODEL RAW...

Prints one line of JSON: val_loss, val_accuracy, rows.
"""

import json
import sys

import numpy as np

import digits


def main(model, files):
    parts = [digits.split(*digits.read_raw(path))[1] for path in files]
    labels = np.concatenate([part[0] for part in parts])
    images = np.concatenate([part[1] for part in parts])
    loss, accuracy = digits.score(digits.load_model(model), labels, images)
    print(json.dumps({"val_loss": loss, "val_accuracy": accuracy, "rows": len(labels)}))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(sys.argv[1], sys.argv[2:])
