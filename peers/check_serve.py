"""Asks `bellwether serve` with the published clients of other people: tritonclient, ONNX Runtime for what the answers
must be, and grpcio-reflection. Runs the example for clients in Python as well.

    python check_serve.py BELLWETHER MODEL

BELLWETHER is the program, built with the feature `serve`; MODEL is the folder of a model. Needs the packages
tritonclient[grpc], grpcio-reflection and onnxruntime. Exit code 1 on the first thing that is not as it should be.
"""

import json
import pathlib
import queue
import signal
import subprocess
import sys
import tempfile
import time

import grpc
import numpy
import onnxruntime
import tritonclient.grpc as triton
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

ROWS = 64
EXAMPLE = pathlib.Path(__file__).parents[1] / "inference/examples/python/decide.py"


def main(program: str, model: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        socket = str(pathlib.Path(folder) / "serve.sock")
        command = [program, "--json", "serve", "--models", model, "--grpc", "127.0.0.1:0", "--unix", socket]
        command += ["--set", "auth.open_reflection=true"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            told = json.loads(server.stdout.readline())
            for address in (told["endpoints"]["grpc"], f"unix:{socket}"):
                before = statistics(address, told)
                infer(address, told, model)
                describe(address, told, before)
                example(address, told, folder)
            reflect(told["endpoints"]["grpc"])
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0, "it drains and ends well"
        assert not pathlib.Path(socket).exists(), "it gives up its socket"


def infer(address: str, told: dict, model: str) -> None:
    name, version = told["model_name"], told["model_version"]
    # For a socket, grpcio sends the path as the authority, which HTTP/2 servers in Rust refuse.
    client = triton.InferenceServerClient(address, channel_args=[("grpc.default_authority", "localhost")])
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(name) and client.is_model_ready(name, version)
    assert not client.is_model_ready(name, "0123456789abcdef")
    metadata = client.get_model_metadata(name)
    assert list(metadata.versions) == [version]
    width, actions = metadata.inputs[0].shape[1], metadata.inputs[1].shape[1]

    draw = numpy.random.default_rng(7)
    states = draw.random((ROWS, width), dtype=numpy.float32)
    masks = draw.random((ROWS, actions)) < 0.7
    masks[numpy.arange(ROWS), draw.integers(actions, size=ROWS)] = True
    inputs = [
        triton.InferInput("state", states.shape, "FP32").set_data_from_numpy(states),
        triton.InferInput("action_mask", masks.shape, "BOOL").set_data_from_numpy(masks),
    ]
    session = onnxruntime.InferenceSession(pathlib.Path(model) / "model.onnx", providers=["CPUExecutionProvider"])
    expected_values, expected = session.run(None, {"state": states, "action_mask": masks})
    for outputs in (None, [triton.InferRequestedOutput("action"), triton.InferRequestedOutput("q_values")]):
        result = client.infer(name, inputs, outputs=outputs, request_id="7")
        values, action = result.as_numpy("q_values"), result.as_numpy("action")
        assert values.dtype == numpy.float32 and action.dtype == numpy.int64
        # The values of integers may be off by their bound, which is small beside the values.
        scale = max(1.0, float(numpy.abs(expected_values).max()))
        assert numpy.abs(values - expected_values).max() <= 0.01 * scale
        ordered = numpy.sort(numpy.where(masks, expected_values, -numpy.inf), axis=1)
        clear = ordered[:, -1] - ordered[:, -2] > 1e-4 * scale
        assert (action[clear] == expected[clear]).all() and clear.sum() > ROWS // 2
        response = result.get_response()
        assert (response.id, response.model_version) == ("7", version)

    # Requests in flight at the same time, and a deadline.
    answered = queue.Queue()
    for _ in range(20):
        client.async_infer(name, inputs, callback=lambda result, error: answered.put((result, error)))
    for _ in range(20):
        result, error = answered.get(timeout=30)
        assert error is None and (result.as_numpy("action") == action).all(), error
    client.infer(name, inputs, client_timeout=10.0)

    states[3, 5] = numpy.nan
    inputs[0].set_data_from_numpy(states)
    try:
        client.infer(name, inputs)
        raise AssertionError("not a number was scored")
    except InferenceServerException as error:
        assert "row 3: value 5 of the state is NaN" in error.message(), error
    client.close()


def statistics(address: str, told: dict):
    client = triton.InferenceServerClient(address, channel_args=[("grpc.default_authority", "localhost")])
    [model] = client.get_inference_statistics(told["model_name"]).model_stats
    assert [model] == list(client.get_inference_statistics().model_stats)
    client.close()
    return model


def describe(address: str, told: dict, before) -> None:
    """How the model is served, and what `infer` has asked of it since `before`."""
    name, version = told["model_name"], told["model_version"]
    client = triton.InferenceServerClient(address, channel_args=[("grpc.default_authority", "localhost")])
    metadata, config = client.get_model_metadata(name), client.get_model_config(name, version).config
    assert (config.name, config.platform) == (name, metadata.platform)
    assert config.max_batch_size >= ROWS
    described, configured = (*metadata.inputs, *metadata.outputs), (*config.input, *config.output)
    for tensor, same in zip(described, configured, strict=True):
        assert (tensor.name, list(tensor.shape)) == (same.name, [-1, *same.dims]), config
        assert model_config_pb2.DataType.Name(same.data_type) == f"TYPE_{tensor.datatype}", config

    model = statistics(address, told)
    assert (model.name, model.version) == (name, version)
    # Two questions, twenty at the same time, one with a deadline; and one that was refused.
    requests = 23
    assert model.inference_count - before.inference_count == requests * ROWS, model
    assert model.execution_count == model.inference_count, model
    stats, past = model.inference_stats, before.inference_stats
    for what in ("success", "compute_input", "compute_infer", "compute_output"):
        assert getattr(stats, what).count - getattr(past, what).count == requests, model
    assert stats.fail.count - past.fail.count == 1, model
    spent = stats.compute_input.ns + stats.compute_infer.ns + stats.compute_output.ns
    assert past.compute_infer.ns < stats.compute_infer.ns < spent == stats.success.ns and stats.queue.ns == 0, model
    assert abs(model.last_inference / 1000 - time.time()) < 600, model

    [listed] = client.get_model_repository_index().models
    assert (listed.name, listed.version, listed.state) == (name, version, "READY"), listed
    for change in (client.load_model, client.unload_model):
        try:
            change(name)
            raise AssertionError("the model was changed")
        except InferenceServerException as error:
            assert "bellwether.policy.v1.Admin" in error.message(), error
    client.close()


def example(address: str, told: dict, folder: str) -> None:
    """The example for clients says what a client says, and comes to an end where it is refused."""
    name = told["model_name"]
    options = [("grpc.default_authority", "localhost")]
    with triton.InferenceServerClient(address, channel_args=options) as client:
        width = client.get_model_metadata(name).inputs[0].shape[1]
        states = numpy.random.default_rng(8).random((ROWS, width), dtype=numpy.float32)
        state = triton.InferInput("state", states.shape, "FP32").set_data_from_numpy(states)
        expected = client.infer(name, [state])
    path = pathlib.Path(folder) / "states.npy"
    numpy.save(path, states)
    command = [sys.executable, str(EXAMPLE), address, name, str(path), "--episode", "a"]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    actions = ("continue", "raise_isolation", "release", "terminate", "quarantine")
    assert [line["action"] for line in found] == [actions[number] for number in expected.as_numpy("action")]
    assert (numpy.float32([line["q_values"] for line in found]) == expected.as_numpy("q_values")).all()
    assert {line["model_version"] for line in found} == {told["model_version"]}
    refused = subprocess.run([*command, "--target-fpr", "0.123"], capture_output=True, text=True, timeout=60)
    assert refused.returncode != 0 and "was not calibrated for" in refused.stderr, refused


def reflect(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = set(database.get_services())
        assert {"bellwether.policy.v1.PolicyService", "inference.GRPCInferenceService"} <= services, services
        assert "bellwether.policy.v1.Admin" not in services
        file = database.FindFileContainingSymbol("bellwether.policy.v1.PolicyService")
        methods = [method.name for service in file.service for method in service.method]
        assert {"Decide", "DecideBatch", "Session"} <= set(methods), methods


if __name__ == "__main__":
    main(*sys.argv[1:])
    print("tritonclient, ONNX Runtime and reflection agree with the server")
