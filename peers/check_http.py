"""Asks `bellwether serve` over HTTP with the published clients of other people: tritonclient, with tensors as JSON and as
bytes, ONNX Runtime for what the answers must be, and the strict parser of OpenMetrics of prometheus_client.

    python check_http.py BELLWETHER MODEL

BELLWETHER is the program, built with the feature `serve`; MODEL is the folder of a model. Needs the packages
tritonclient[http], prometheus-client and onnxruntime. Exit code 1 on the first thing that is not as it should be.
"""

import json
import pathlib
import signal
import subprocess
import sys
import urllib.request

import numpy
import onnxruntime
import tritonclient.http as triton
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

ROWS = 64


def main(program: str, model: str) -> None:
    command = [program, "--json", "serve", "--models", model, "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        told = json.loads(server.stdout.readline())
        address = told["endpoints"]["http"]
        refused = infer(address, told, model)
        describe(address, told, refused)
        scrape(address, told["model_version"], refused)
    finally:
        server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=30) == 0, "it drains and ends well"


def infer(address: str, told: dict, model: str) -> int:
    """Asks in every form; returns how many questions were refused."""
    name, version = told["model_name"], told["model_version"]
    client = triton.InferenceServerClient(address)
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(name) and client.is_model_ready(name, version)
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata(name, version)
    assert metadata["versions"] == [version]
    width, actions = metadata["inputs"][0]["shape"][1], metadata["inputs"][1]["shape"][1]

    draw = numpy.random.default_rng(7)
    states = draw.random((ROWS, width), dtype=numpy.float32)
    masks = draw.random((ROWS, actions)) < 0.7
    masks[numpy.arange(ROWS), draw.integers(actions, size=ROWS)] = True
    session = onnxruntime.InferenceSession(pathlib.Path(model) / "model.onnx", providers=["CPUExecutionProvider"])
    expected_values, expected = session.run(None, {"state": states, "action_mask": masks})
    scale = max(1.0, float(numpy.abs(expected_values).max()))
    ordered = numpy.sort(numpy.where(masks, expected_values, -numpy.inf), axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 1e-4 * scale
    assert clear.sum() > ROWS // 2
    answers = []
    for binary in (True, False):
        inputs = [
            triton.InferInput("state", states.shape, "FP32").set_data_from_numpy(states, binary_data=binary),
            triton.InferInput("action_mask", masks.shape, "BOOL").set_data_from_numpy(masks, binary_data=binary),
        ]
        names = ("action", "q_values")
        some = [triton.InferRequestedOutput(output, binary_data=binary) for output in names]
        mixed = [triton.InferRequestedOutput(output, binary_data=output == "action") for output in names]
        for outputs in (None, some, mixed):
            result = client.infer(name, inputs, outputs=outputs, request_id="7", model_version=version)
            values, action = result.as_numpy("q_values"), result.as_numpy("action")
            assert values.dtype == numpy.float32 and action.dtype == numpy.int64
            # The values of integers may be off by their bound, which is small beside the values.
            assert numpy.abs(values - expected_values).max() <= 0.01 * scale
            assert (action[clear] == expected[clear]).all()
            assert (result.get_response()["id"], result.get_response()["model_version"]) == ("7", version)
            answers.append((values, action))
    for values, action in answers[1:]:
        assert (values == answers[0][0]).all() and (action == answers[0][1]).all(), "every form has the same values"

    states[3, 5] = numpy.nan
    inputs[0].set_data_from_numpy(states, binary_data=True)
    try:
        client.infer(name, inputs)
        raise AssertionError("not a number was scored")
    except InferenceServerException as error:
        assert "row 3: value 5 of the state is NaN" in error.message(), error
    client.close()
    return 1


def describe(address: str, told: dict, refused: int) -> None:
    """How the model is served, and what was asked of it by `infer`."""
    name, version = told["model_name"], told["model_version"]
    client = triton.InferenceServerClient(address)
    metadata, config = client.get_model_metadata(name), client.get_model_config(name)
    assert config == client.get_model_config(name, version)
    described, configured = metadata["inputs"] + metadata["outputs"], config["input"] + config["output"]
    for tensor, same in zip(described, configured, strict=True):
        assert (tensor["name"], tensor["shape"]) == (same["name"], [-1, *same["dims"]]), config
        assert same["data_type"] == f"TYPE_{tensor['datatype']}", config
    [model] = client.get_inference_statistics()["model_stats"]
    assert [model] == client.get_inference_statistics(name, version)["model_stats"]
    assert (model["version"], model["inference_count"]) == (version, 6 * ROWS), model
    counts = [model["inference_stats"][what]["count"] for what in ("success", "compute_infer", "fail")]
    assert counts == [6, 6, refused], model
    [listed] = client.get_model_repository_index()
    assert (listed["name"], listed["version"], listed["state"]) == (name, version, "READY"), listed
    for change in (client.load_model, client.unload_model):
        try:
            change(name)
            raise AssertionError("the model was changed")
        except InferenceServerException as error:
            assert "bellwether.policy.v1.Admin" in error.message(), error
    client.close()


def scrape(address: str, version: str, refused: int) -> None:
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        text = answer.read().decode()
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    total = lambda name, **labels: sum(
        value for (known, have), value in samples.items() if known == name and labels.items() <= dict(have).items()
    )
    # Six batches, and the rows of the one that was refused at its fourth.
    assert total("bellwether_decisions_total", model_version=version) == 6 * ROWS + 3, text
    assert total("bellwether_decision_refusals_total", reason="non_finite_state") == refused
    route = "/v2/models/:model/infer"
    assert total("bellwether_requests_total", method=route, code="200") == 6
    assert total("bellwether_requests_total", method=route, code="400") == refused
    assert total("bellwether_request_duration_seconds_count", method=route) == 6 + refused
    assert total("bellwether_model_info", role="champion", model_version=version) == 1


if __name__ == "__main__":
    main(*sys.argv[1:])
    print("tritonclient and prometheus_client agree with the server over HTTP")
