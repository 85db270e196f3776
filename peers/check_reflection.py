"""Asks `bellwether serve` as grpcurl does: it knows no proto file, learns from reflection what there is, and sends and reads
JSON. Both protocols of reflection are asked, on the listener of decisions and on that of admin calls.

    python check_reflection.py BELLWETHER MODEL

BELLWETHER is the program, built with the feature `serve`; MODEL is the folder of a model. Needs the package
grpcio-reflection. Exit code 1 on the first thing that is not as it should be.
"""

import json
import pathlib
import signal
import subprocess
import sys
import tempfile

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

DATA = {
    "bellwether.policy.v1.PolicyService",
    "inference.GRPCInferenceService",
    "grpc.health.v1.Health",
}
ADMIN = {"bellwether.policy.v1.Admin", "grpc.health.v1.Health"}
PROTOCOLS = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
# For a socket, grpcio sends the path as the authority, which HTTP/2 servers in Rust refuse.
LOCAL = [("grpc.default_authority", "localhost")]


class Peer:
    """A server of which nothing is known but its address."""

    def __init__(self, address: str):
        self.channel = grpc.insecure_channel(address, LOCAL)
        self.pool = DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))

    def services(self, protocol: str) -> set[str]:
        """What it lists in one of the protocols, whose messages are the same on the wire."""
        call = self.channel.stream_stream(
            f"/{protocol}.ServerReflection/ServerReflectionInfo",
            ServerReflectionRequest.SerializeToString,
            ServerReflectionResponse.FromString,
        )
        (answer,) = call(iter([ServerReflectionRequest(list_services="")]))
        return {service.name for service in answer.list_services_response.service}

    def call(self, path: str, *questions: dict) -> list[dict]:
        """Sends JSON to a call, and reads all its answers as JSON."""
        service, name = path.split("/")
        method = self.pool.FindServiceByName(service).FindMethodByName(name)
        question, answer = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        messages = [json_format.ParseDict(one, question()) for one in questions]
        streams = method.client_streaming, method.server_streaming
        kind = {(False, False): "unary_unary", (False, True): "unary_stream", (True, True): "stream_stream"}[streams]
        stub = getattr(self.channel, kind)(f"/{path}", question.SerializeToString, answer.FromString)
        answers = stub(iter(messages) if method.client_streaming else messages[0], timeout=30)
        if not method.server_streaming:
            answers = [answers]
        shown = json_format.MessageToDict
        return [shown(one, preserving_proto_field_name=True, always_print_fields_with_no_presence=True) for one in answers]


def main(program: str, model: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        admin = str(pathlib.Path(folder) / "admin.sock")
        command = [program, "--json", "serve", "--models", model, "--grpc", "127.0.0.1:0", "--admin", f"unix:{admin}"]
        # Nobody need hold a token to look around.
        command += ["--set", "auth.open_reflection=true"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            told = json.loads(server.stdout.readline())
            manifest = json.loads((pathlib.Path(model) / "model.json").read_text())
            decisions(Peer(told["endpoints"]["grpc"]), told, manifest)
            operator(Peer(f"unix:{admin}"), told)
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0, "it drains and ends well"


def decisions(peer: Peer, told: dict, manifest: dict) -> None:
    for protocol in PROTOCOLS:
        assert peer.services(protocol) == DATA | {f"{protocol}.ServerReflection"}, peer.services(protocol)
    for service in DATA:
        described(peer.pool.FindServiceByName(service))
    assert peer.call("grpc.health.v1.Health/Check", {})[0]["status"] == "SERVING"

    width, names = manifest["features"]["width"], manifest["actions"]["names"]
    golden = manifest["golden"][0]
    state = [0.0] * width
    for place, value in golden["state"]:
        state[place] = value
    question = {"state": state, "mask": golden["mask"], "with_q_values": True}
    (answer,) = peer.call("bellwether.policy.v1.PolicyService/Decide", question)
    assert answer["model_version"] == told["model_version"] == manifest["version"]
    assert (answer.get("action", 0), answer["action_name"]) == (golden["action"], names[golden["action"]]), answer
    scale = max(1.0, *map(abs, golden["q_values"]))
    # The values of integers may be off by their bound, which is small beside the values.
    assert all(abs(one - other) <= 0.01 * scale for one, other in zip(answer["q_values"], golden["q_values"], strict=True))
    batch = {"requests": [question, {"state": [0.5]}]}
    (answers,) = peer.call("bellwether.policy.v1.PolicyService/DecideBatch", batch)
    decided, refused = answers["results"]
    assert decided["decision"]["action"] == answer["action"] and "1" in refused["refusal"]["message"], answers

    session = [
        {"open": {"episode_id": "e", "with_q_values": True}},
        {"state": {"episode_id": "e", "state": state, "mask": golden["mask"]}},
        {"end": {"episode_id": "e"}},
    ]
    window, ended = peer.call("bellwether.policy.v1.PolicyService/Session", *session)
    assert window["decision"]["episode_id"] == "e" and ended["ended"]["episode_id"] == "e", (window, ended)

    infer = {"name": told["model_name"]}
    (metadata,) = peer.call("inference.GRPCInferenceService/ModelMetadata", infer)
    assert metadata["versions"] == [told["model_version"]]


def operator(peer: Peer, told: dict) -> None:
    for protocol in PROTOCOLS:
        assert peer.services(protocol) == ADMIN | {f"{protocol}.ServerReflection"}, peer.services(protocol)
    described(peer.pool.FindServiceByName("bellwether.policy.v1.Admin"))
    (status,) = peer.call("bellwether.policy.v1.Admin/Pin", {})
    assert status["pinned"] and status["champion"]["version"] == told["model_version"], status
    (status,) = peer.call("bellwether.policy.v1.Admin/Unpin", {})
    assert not status["pinned"], status
    try:
        peer.call("bellwether.policy.v1.Admin/SetCanary", {"share": 0.5})
        raise AssertionError("there is no canary to give a share")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error


def described(service) -> None:
    """Every message of every call can be told apart to its last field, as `grpcurl describe` does."""
    waiting = [message for method in service.methods for message in (method.input_type, method.output_type)]
    known = set()
    while waiting:
        message = waiting.pop()
        if message.full_name in known:
            continue
        known.add(message.full_name)
        for field in message.fields:
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                waiting.append(field.message_type)
            elif field.type == FieldDescriptor.TYPE_ENUM:
                assert field.enum_type.values, field.full_name
    assert known, service.full_name


if __name__ == "__main__":
    main(*sys.argv[1:])
    print("what reflection tells is enough to call the server, as grpcurl does")
