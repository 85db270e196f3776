"""Asks `bellwether serve` what to do in each of some states.

    pip install "tritonclient[grpc]"
    bellwether serve --models models/quickstart --grpc 127.0.0.1:8001
    python decide.py 127.0.0.1:8001 quickstart states.npy

`states.npy` holds float32 values, a row per state. One JSON object comes out for each. An address may be a Unix
socket, `unix:PATH`.
"""

import argparse
import json

import numpy
import tritonclient.grpc as triton

# Actions have these numbers in every model.
ACTIONS = ("continue", "raise_isolation", "release", "terminate", "quarantine")


def decide(client, model, states, allowed=None, episode=None, target_fpr=None):
    """Returns the action in each state, the values of all actions, and the version of the model that decided.

    `states` is float32 [rows, width]; `allowed`, bool [rows, actions], leaves actions out. All questions of an
    episode, which a number or a text names, are answered by the same model while another one is on trial.
    `target_fpr` is a rate of false positives that the model was calibrated for.
    """
    inputs = [triton.InferInput("state", states.shape, "FP32").set_data_from_numpy(states)]
    if allowed is not None:
        inputs.append(triton.InferInput("action_mask", allowed.shape, "BOOL").set_data_from_numpy(allowed))
    terms = {"episode": episode, "target_fpr": target_fpr}
    terms = {name: value for name, value in terms.items() if value is not None}
    # A decision that comes late is worth nothing: give up and do what is safe.
    answer = client.infer(model, inputs, parameters=terms, client_timeout=5.0)
    return answer.as_numpy("action"), answer.as_numpy("q_values"), answer.get_response().model_version


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("address", help="HOST:PORT or unix:PATH")
    arguments.add_argument("model", help="what the server calls the model")
    arguments.add_argument("states", help="file of states (.npy)")
    arguments.add_argument("--episode", help="name of the episode that the states are of")
    arguments.add_argument("--target-fpr", type=float, help="rate of false positives to serve")
    given = arguments.parse_args()

    # grpcio sends the path of a socket as authority, which HTTP/2 forbids.
    options = [("grpc.default_authority", "localhost")]
    states = numpy.load(given.states).astype(numpy.float32)
    with triton.InferenceServerClient(given.address, channel_args=options) as client:
        actions, values, version = decide(
            client, given.model, states, episode=given.episode, target_fpr=given.target_fpr
        )
    for action, of_state in zip(actions, values):
        told = {"action": ACTIONS[action], "q_values": of_state.tolist(), "model_version": version}
        print(json.dumps(told))


if __name__ == "__main__":
    main()
