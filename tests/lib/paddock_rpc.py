"""A gRPC client of Paddock that Paddock did not write: Debian's grpcio and protobuf, with messages made from the
descriptor set that the build leaves in build/proto/paddock.protoset.

    client = Client()                      # PADDOCK_ADDR, PADDOCK_API_KEY
    sandbox = client.Sandboxes.Create(template="base")
    for event in client.Processes.Start(sandbox_id=sandbox.id, argv=["true"]): ...
"""
import os

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

BUILD = os.environ.get("BUILD", os.path.join(os.path.dirname(__file__), "..", "..", "build"))


def load(path=None):
    """The pool of all public messages and services."""
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet()
    with open(path or os.path.join(BUILD, "proto", "paddock.protoset"), "rb") as stream:
        files.ParseFromString(stream.read())
    for file in files.file:
        pool.Add(file)
    return pool, files


POOL, FILES = load()
FACTORY = message_factory.MessageFactory(POOL)


def message(name):
    """The class of a message by its full name, or its name in paddock.v1."""
    if "." not in name:
        name = "paddock.v1." + name
    return FACTORY.GetPrototype(POOL.FindMessageTypeByName(name))


def methods():
    """(path, method descriptor) of every method of every service."""
    for file in FILES.file:
        for service in file.service:
            full = f"{file.package}.{service.name}"
            for method in POOL.FindServiceByName(full).methods:
                yield f"/{full}/{method.name}", method, service.method[method.index]


class Method:
    def __init__(self, client, path, descriptor, proto):
        self.client, self.path, self.descriptor = client, path, descriptor
        self.request_class = FACTORY.GetPrototype(descriptor.input_type)
        kind = ("stream" if proto.client_streaming else "unary") + "_" + (
            "stream" if proto.server_streaming else "unary")
        self.client_streaming, self.server_streaming = proto.client_streaming, proto.server_streaming
        self.stub = getattr(client.channel, kind)(
            path, request_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
            response_deserializer=FACTORY.GetPrototype(descriptor.output_type).FromString)

    def __call__(self, request=None, timeout=60, metadata=None, **fields):
        """Fields of the request as keywords; for client streams an iterable of requests."""
        if request is None:
            request = self.request_class(**fields)
        return self.stub(request, timeout=timeout, metadata=self.client.metadata if metadata is None else metadata)

    def future(self, request=None, timeout=60, metadata=None, **fields):
        if request is None:
            request = self.request_class(**fields)
        return self.stub.future(request, timeout=timeout,
                                metadata=self.client.metadata if metadata is None else metadata)


class Service:
    pass


class Client:
    def __init__(self, addr=None, key=None, credentials=None, options=()):
        addr = addr or os.environ["PADDOCK_ADDR"]
        key = key if key is not None else os.environ.get("PADDOCK_API_KEY")
        options = [("grpc.max_receive_message_length", 8 << 20), ("grpc.max_send_message_length", 64 << 20),
                   ("grpc.use_local_subchannel_pool", 1), *options]
        self.channel = (grpc.secure_channel(addr, credentials, options) if credentials
                        else grpc.insecure_channel(addr, options))
        self.metadata = [("authorization", "Bearer " + key)] if key else []
        for path, descriptor, proto in methods():
            service = descriptor.containing_service.name
            if not hasattr(self, service):
                setattr(self, service, Service())
            setattr(getattr(self, service), descriptor.name, Method(self, path, descriptor, proto))

    def close(self):
        self.channel.close()

    def run(self, sandbox_id, *argv, **fields):
        """Run a command to its end: (exit event, stdout, stderr)."""
        out, err, exited = b"", b"", None
        for event in self.Processes.Start(sandbox_id=sandbox_id, argv=list(argv), **fields):
            kind = event.WhichOneof("event")
            if kind == "output":
                if event.output.stream == 2:
                    err += event.output.data
                else:
                    out += event.output.data
            elif kind == "exited":
                exited = event.exited
        return exited, out, err


def code_of(call):
    """Run it; the name of its gRPC status and the text."""
    try:
        result = call()
        if hasattr(result, "__next__"):
            for _ in result:
                pass
        return "OK", ""
    except grpc.RpcError as error:
        return error.code().name, error.details()
