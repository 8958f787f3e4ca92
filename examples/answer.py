#!/usr/bin/python3
"""A sandbox by plain gRPC, with Debian's python3-grpcio, python3-protobuf and protobuf-compiler: one command with its output
as it comes, then gone. PADDOCK_ADDR (default: the local socket) and PADDOCK_API_KEY as for the paddock command;
PADDOCK_PROTO is the folder of the contract."""
import os
import subprocess
import sys
import tempfile

import grpc

PROTO = os.environ.get("PADDOCK_PROTO", "/usr/share/paddock/proto")
ADDRESS = os.environ.get("PADDOCK_ADDR", "unix:/run/paddock/admin.sock")

generated = tempfile.TemporaryDirectory()
contract = [os.path.join("paddock/v1", name) for name in os.listdir(os.path.join(PROTO, "paddock/v1"))]
subprocess.run(["protoc", "-I", PROTO, "--python_out", generated.name, *contract], check=True)
sys.path.insert(0, generated.name)
from paddock.v1 import processes_pb2, sandboxes_pb2  # noqa: E402 (made above)

key = os.environ.get("PADDOCK_API_KEY")
metadata = [("authorization", f"Bearer {key}")] if key else []
channel = grpc.insecure_channel(ADDRESS)


def method(kind, path, reply):
    return kind(path, request_serializer=lambda message: message.SerializeToString(), response_deserializer=reply.FromString)


create = method(channel.unary_unary, "/paddock.v1.Sandboxes/Create", sandboxes_pb2.Sandbox)
kill = method(channel.unary_unary, "/paddock.v1.Sandboxes/Kill", sandboxes_pb2.Sandbox)
start = method(channel.unary_stream, "/paddock.v1.Processes/Start", processes_pb2.ProcessEvent)

sandbox = create(sandboxes_pb2.CreateSandboxRequest(template="base"), metadata=metadata)
try:
    status = 1
    request = processes_pb2.StartProcessRequest(sandbox_id=sandbox.id, argv=["python3", "-c", "print(6 * 7)"])
    for event in start(request, metadata=metadata):
        if event.HasField("output"):
            sys.stdout.write(event.output.data.decode())
        elif event.HasField("exited"):
            status = event.exited.exit_code or 128 * bool(event.exited.signal) + event.exited.signal
finally:
    kill(sandboxes_pb2.KillSandboxRequest(sandbox_id=sandbox.id), metadata=metadata)
sys.exit(status)
