"""Checks model files with the tools of ONNX itself: the checker with everything on, the bytes that the reference
library writes, and the answers of ONNX Runtime on batches of several sizes.

    python check_onnx.py MODEL...

Needs the packages onnx and onnxruntime. Exit code 1 on the first file that fails.
"""

import sys

import numpy
import onnx
import onnxruntime


def check(path: str) -> str:
    content = open(path, "rb").read()
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, [(set_.domain, set_.version) for set_ in model.opset_import]) == (8, [("", 17)])
    assert model.SerializeToString(deterministic=True) == content, "the reference library writes other bytes"

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    state, mask = session.get_inputs()
    assert (state.name, state.type, state.shape[0]) == ("state", "tensor(float)", "batch")
    assert (mask.name, mask.type, mask.shape[0]) == ("action_mask", "tensor(bool)", "batch")
    assert [output.name for output in session.get_outputs()] == ["q_values", "action"]
    width, actions = state.shape[1], mask.shape[1]
    draw = numpy.random.default_rng(1)
    for batch in (1, 2, 33):
        states = draw.random((batch, width), dtype=numpy.float32)
        masks = draw.random((batch, actions)) < 0.7
        masks[numpy.arange(batch), draw.integers(actions, size=batch)] = True
        q_values, action = session.run(None, {"state": states, "action_mask": masks})
        assert q_values.shape == (batch, actions) and q_values.dtype == numpy.float32
        assert action.dtype == numpy.int64
        # numpy's argmax also takes the first of equals.
        assert (action == numpy.where(masks, q_values, -numpy.inf).argmax(axis=1)).all()

    # Equal q-values: the lowest allowed number wins.
    for tensor in model.graph.initializer:
        if tensor.dims:
            tensor.raw_data = bytes(len(tensor.raw_data))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for first in range(actions):
        masks = numpy.arange(actions)[None, :] >= first
        _, action = session.run(None, {"state": numpy.ones((1, width), numpy.float32), "action_mask": masks})
        assert action.tolist() == [first]
    return f"{path}: sound, {width} to {actions}, {len(content)} bytes"


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(check(argument))
