#!/usr/bin/python3
"""G02-G04, G22: a tenant sees, names and exhausts only what is its own."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from check import check, done
from instance import Instance
import paddock_rpc
from paddock_rpc import Client, code_of


def id_methods(client):
    """Every unary-request method whose request names a sandbox: from the descriptors, so a new one is tested too."""
    for path, descriptor, proto in paddock_rpc.methods():
        names = [field.name for field in descriptor.input_type.fields]
        if "sandbox_id" in names and not proto.client_streaming and path.startswith("/paddock.v1."):
            yield path, getattr(getattr(client, descriptor.containing_service.name), descriptor.name)


FILL = {"argv": ["true"], "process_id": 1, "path": b"/tmp/x", "from": b"/tmp/x", "to": b"/tmp/y", "signal": 15,
        "data": b"x", "timeout_ms": 60000, "from_sequence": 0}


def request_for(method, sandbox_id):
    fields = {"sandbox_id": sandbox_id}
    for name, value in FILL.items():
        if name in [field.name for field in method.descriptor.input_type.fields]:
            fields[name] = value
    if method.path.endswith("/Resize"):
        fields["size"] = {"columns": 80, "rows": 24}
    return method.request_class(**fields)


def check_foreign_ids(mine, other, sandbox_id):
    for path, method in id_methods(other):
        if path in ("/paddock.v1.Audit/List", "/paddock.v1.Sandboxes/WatchEvents"):
            continue  # filters: another tenant's id matches nothing, checked below
        answers = {name: code_of(lambda m=method, i=value: m(request_for(m, i), timeout=10))
                   for name, value in (("foreign", sandbox_id), ("random", "i" + "z" * 20), ("malformed", "../x"))}
        check(f"tenancy/{path} foreign = random = malformed = NOT_FOUND",
                  set(answers.values()) == {("NOT_FOUND", "sandbox not found")}, str(answers))


def main():
    instance = Instance().start().template()
    try:
        admin = instance.client
        clients = {}
        for name in ("alpha", "beta"):
            admin.Admin.CreateTenant(name=name, quota={"max_sandboxes": 3})
            secret = admin.Admin.CreateKey(tenant=name, name="test").secret
            clients[name] = Client(f"unix:{instance.run}/paddock.sock", key=secret)
        alpha, beta = clients["alpha"], clients["beta"]
        sandbox = alpha.Sandboxes.Create(
            paddock_rpc.message("CreateSandboxRequest")(template="base", metadata={"who": "alpha"}))
        check("tenancy/the owner can use it", alpha.run(sandbox.id, "true")[0].exit_code == 0, "")
        check("tenancy/the tenant comes from the key", sandbox.tenant == "alpha", sandbox.tenant)
        check_foreign_ids(alpha, beta, sandbox.id)
        check("tenancy/it lives on after all of that", alpha.Sandboxes.Get(sandbox_id=sandbox.id).state == 2, "")
        check("tenancy/lists are apart", [s.id for s in beta.Sandboxes.List().sandboxes] == [], "")
        check("tenancy/all_tenants is the operator's",
                  code_of(lambda: beta.Sandboxes.List(all_tenants=True))[0] == "PERMISSION_DENIED", "")
        seen = admin.Sandboxes.List(all_tenants=True).sandboxes
        check("tenancy/the operator sees it", [s.id for s in seen] == [sandbox.id], "")
        records = beta.Audit.List(page_size=1000).records
        check("tenancy/audit shows own records only", {r.tenant for r in records} <= {"beta"}, "")
        futures = [beta.Sandboxes.Create.future(template="base") for _ in range(100)]
        codes = [code_of(f.result)[0] for f in futures]
        check("tenancy/100 parallel creates never pass the quota",
                  codes.count("OK") == 3 and codes.count("RESOURCE_EXHAUSTED") == 97, str(sorted(set(codes))))
        check("tenancy/another tenant is not touched by it",
                  alpha.run(sandbox.id, "echo", "x")[1] == b"x\n", "")
    finally:
        instance.stop()
    return done()


if __name__ == "__main__":
    sys.exit(main())
