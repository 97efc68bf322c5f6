"""The same as rows.c from Python, with nothing but ctypes:
    python3 rows.py target/release/libembc_device.so model.embc user 42"""

import ctypes
import sys
from ctypes import POINTER, c_char_p, c_double, c_float, c_int, c_int64, c_size_t, c_uint32, c_void_p


class Embc:
    """A packed model."""

    def __init__(self, library, path):
        self.c = ctypes.CDLL(library)
        for name, result, *arguments in [
            ("embc_open", c_void_p, c_char_p),
            ("embc_close", None, c_void_p),
            ("embc_error", c_char_p),
            ("embc_inputs", c_size_t, c_void_p),
            ("embc_input", c_int64, c_void_p, c_char_p),
            ("embc_width", c_size_t, c_void_p, c_size_t),
            ("embc_dense", c_size_t, c_void_p),
            ("embc_outputs", c_size_t, c_void_p),
            ("embc_id", c_int64, c_void_p, c_size_t, c_char_p, c_size_t),
            ("embc_rows", c_int, c_void_p, c_size_t, POINTER(c_uint32), c_size_t, POINTER(c_float)),
            ("embc_score", c_int, c_void_p, POINTER(POINTER(c_uint32)), c_void_p, POINTER(c_double), c_size_t, POINTER(c_float)),
        ]:
            function = getattr(self.c, name)
            function.restype, function.argtypes = result, arguments
        self.model = self.c.embc_open(path.encode())
        self.check(self.model is None)

    def check(self, failed):
        if failed:
            raise ValueError(self.c.embc_error().decode())

    def input(self, name):
        return self.c.embc_input(self.model, name.encode())

    def id(self, input, value):
        value = value.encode()
        return self.c.embc_id(self.model, input, value, len(value))

    def rows(self, input, ids):
        """The rows of ids, a list each."""
        width = self.c.embc_width(self.model, input)
        out = (c_float * (len(ids) * width))()
        self.check(self.c.embc_rows(self.model, input, (c_uint32 * len(ids))(*ids), len(ids), out))
        return [out[i * width : (i + 1) * width] for i in range(len(ids))]

    def ids(self, values):
        """The ids of an example's values, {"user": "u17", …}, in the order of the model's inputs."""
        order = sorted(values, key=self.input)
        return [self.id(self.input(name), values[name]) for name in order]

    def score(self, ids, dense=()):
        """The logits of one example: an id of each input, and the dense features."""
        each = (POINTER(c_uint32) * len(ids))(*[ctypes.pointer(c_uint32(id)) for id in ids])
        out = (c_float * self.c.embc_outputs(self.model))()
        dense = (c_double * max(1, len(dense)))(*dense)
        self.check(self.c.embc_score(self.model, each, None, dense, 1, out))
        return list(out)


if __name__ == "__main__":
    library, path, name, value = sys.argv[1:]
    model = Embc(library, path)
    input = model.input(name)
    id = model.id(input, value)
    (row,) = model.rows(input, [id])
    print(id, *[f"{x:.9g}" for x in row])
    if model.c.embc_outputs(model.model):
        inputs, dense = model.c.embc_inputs(model.model), model.c.embc_dense(model.model)
        print(*[f"{x:.9g}" for x in model.score([0] * inputs, [0.0] * dense)], sep="\n")
    model.c.embc_close(model.model)
