"""Turns one raw file into the arrays that training reads.

    prepare.py RAW OUT
"""

import pathlib
import sys

import numpy as np

import digits


def main(raw, out):
    labels, images = digits.read_raw(raw)
    (train_labels, train_images), (validation_labels, validation_images) = digits.split(labels, images)
    copies = 5
    pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        out,
        train_labels=np.tile(train_labels, copies),
        train_images=digits.shifted(train_images),
        validation_labels=validation_labels,
        validation_images=validation_images,
    )
    print(f"{len(labels)} images: {len(train_labels)} x {copies} to train with, {len(validation_labels)} to validate")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
