"""What every maker of fixtures draws and writes with."""

import json
import zlib

import numpy as np

import tensors


def generator(*name):
    """A stream of random numbers of its own for every name, the same in every version of numpy."""
    return np.random.RandomState(zlib.crc32(repr(name).encode()))


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


def write_weights(path, arrays):
    tensors.write(path, {name: (array, "BF16") for name, array in arrays.items()})


def write_expected(path, integers, floats):
    tensors.write(path, {**{n: (x, "I64") for n, x in integers.items()},
                         **{n: (x, "F32") for n, x in floats.items()}})
