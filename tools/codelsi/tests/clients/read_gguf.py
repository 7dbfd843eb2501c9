"""Reads a GGUF file with the `gguf` package: FILE. Prints its keys and tensors as JSON, values as little-endian f32 bytes
in hexadecimal digests."""

import hashlib
import json
import sys

import gguf

reader = gguf.GGUFReader(sys.argv[1])


def value(field):
    content = field.contents()
    return content if not isinstance(content, list) or len(content) < 1000 else len(content)


def tensor(t):
    values = gguf.dequantize(t.data, t.tensor_type).astype("<f4")
    return {
        "shape": [int(n) for n in t.shape],
        "type": t.tensor_type.name,
        "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
    }


keys = {name: value(field) for name, field in reader.fields.items()}
print(json.dumps({"keys": keys, "tensors": {t.name: tensor(t) for t in reader.tensors}}, default=str))
