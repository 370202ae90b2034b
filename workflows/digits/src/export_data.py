"""Writes the digits that scikit-learn ships as five raw files, about 360 images each.

    export_data.py FOLDER
"""

import csv
import pathlib
import sys

import numpy as np
from sklearn.datasets import load_digits

FILES = 5


def main(folder):
    data = load_digits()
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(np.array_split(np.arange(len(data.target)), FILES), start=1):
        with open(pathlib.Path(folder, f"digits-{number}.csv"), "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            for row in rows:
                writer.writerow([int(data.target[row]), *(int(pixel) for pixel in data.data[row])])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
