"""safetensors files and bfloat16, with numpy alone."""

import json
import struct

import numpy as np

SIZES = {"F32": 4, "BF16": 2, "I64": 8}


def round_to_bf16(x):
    """The nearest bfloat16, ties to even, as float64."""
    bits = np.asarray(x, dtype=np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def encode(array, dtype):
    if dtype == "I64":
        return np.ascontiguousarray(array, dtype="<i8").tobytes()
    bits = np.ascontiguousarray(array, dtype="<f4")
    if dtype == "F32":
        return bits.tobytes()
    assert np.array_equal(round_to_bf16(bits), bits), "not representable as bfloat16"
    return (bits.view("<u4") >> 16).astype("<u2").tobytes()


def write(path, tensors):
    """tensors: name -> (array, dtype), stored in this order, but wide types first: so all are aligned."""
    header, parts, at = {}, [], 0
    for name, (array, dtype) in sorted(tensors.items(), key=lambda item: -SIZES[item[1][1]]):
        data = encode(array, dtype)
        header[name] = {"dtype": dtype, "shape": list(np.shape(array)),
                        "data_offsets": [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def read(path):
    """name -> array, floating types as float64."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    out = {}
    for name, entry in header.items():
        begin, end = (8 + length + at for at in entry["data_offsets"])
        raw = data[begin:end]
        if entry["dtype"] == "I64":
            array = np.frombuffer(raw, "<i8")
        elif entry["dtype"] == "F32":
            array = np.frombuffer(raw, "<f4").astype(np.float64)
        else:
            assert entry["dtype"] == "BF16", entry["dtype"]
            bits = np.frombuffer(raw, "<u2").astype(np.uint32) << 16
            array = bits.view(np.float32).astype(np.float64)
        out[name] = array.reshape(entry["shape"])
    return out
