#!/usr/bin/python3
"""G02-G04, G22: a tenant sees, names and exhausts only what is its own."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from check import check, done
from paddock import Instance, all_methods, code_of, message_class


def id_methods():
    """Every unary-request method whose request names a sandbox: from the descriptors, so a new one is tested too."""
    for path, proto in all_methods().items():
        request = message_class(proto.input_type[1:])
        if "sandbox_id" in request.DESCRIPTOR.fields_by_name and not proto.client_streaming:
            yield path, request


FILL = {"argv": ["true"], "process_id": 1, "path": b"/tmp/x", "from": b"/tmp/x", "to": b"/tmp/y", "signal": 15,
        "data": b"x", "timeout_ms": 60000, "from_sequence": 0, "port": 8080}


def request_for(path, request, sandbox_id):
    fields = {name: value for name, value in FILL.items() if name in request.DESCRIPTOR.fields_by_name}
    if path.endswith("/Resize"):
        fields["size"] = {"columns": 80, "rows": 24}
    return request(sandbox_id=sandbox_id, **fields)


def check_foreign_ids(other, sandbox_id):
    for path, request in id_methods():
        if path in ("/paddock.v1.Audit/List", "/paddock.v1.Sandboxes/WatchEvents", "/paddock.v1.Snapshots/List"):
            continue  # filters: another tenant's id matches nothing, checked below
        answers = {name: code_of(lambda i=value: other.call(path, request_for(path, request, i), deadline=10))
                   for name, value in (("foreign", sandbox_id), ("random", "i" + "z" * 20), ("malformed", "../x"))}
        check(f"tenancy/{path} foreign = random = malformed = NOT_FOUND",
              set(answers.values()) == {("NOT_FOUND", "sandbox not found")}, str(answers))


def main():
    instance = Instance(template="base", pool="20G", tcp=False)
    try:
        instance.start()
        admin = instance.admin
        clients = {}
        for name in ("alpha", "beta"):
            admin.Admin.CreateTenant(name=name, quota={"max_sandboxes": 3})
            secret = admin.Admin.CreateKey(tenant=name, name="test").secret
            clients[name] = instance.client(f"unix:{instance.run}/paddock.sock", secret)
        alpha, beta = clients["alpha"], clients["beta"]
        sandbox = alpha.Sandboxes.Create(template="base", metadata={"who": "alpha"})
        check("tenancy/the owner can use it", alpha.run(sandbox.id, "true").code == 0, "")
        check("tenancy/the tenant comes from the key", sandbox.tenant == "alpha", sandbox.tenant)
        check_foreign_ids(beta, sandbox.id)
        check("tenancy/it lives on after all of that", alpha.Sandboxes.Get(sandbox_id=sandbox.id).state == 2, "")
        check("tenancy/lists are apart", [s.id for s in beta.Sandboxes.List().sandboxes] == [], "")
        snapshot = alpha.Snapshots.Create(sandbox_id=sandbox.id)
        found = [[x.id for x in client.Snapshots.List(sandbox_id=sandbox.id).snapshots] for client in (alpha, beta)]
        check("tenancy/lists of snapshots are apart", found == [[snapshot.id], []], str(found))
        check("tenancy/all_tenants is the operator's",
                  code_of(lambda: beta.Sandboxes.List(all_tenants=True))[0] == "PERMISSION_DENIED", "")
        seen = admin.Sandboxes.List(all_tenants=True).sandboxes
        check("tenancy/the operator sees it", [s.id for s in seen] == [sandbox.id], "")
        records = beta.Audit.List(page_size=1000).records
        check("tenancy/audit shows own records only", {r.tenant for r in records} <= {"beta"}, "")
        futures = [beta.Sandboxes.Create(template="base", later=True) for _ in range(100)]
        codes = [code_of(f.result)[0] for f in futures]
        check("tenancy/100 parallel creates never pass the quota",
                  codes.count("OK") == 3 and codes.count("RESOURCE_EXHAUSTED") == 97, str(sorted(set(codes))))
        check("tenancy/another tenant is not touched by it",
                  alpha.run(sandbox.id, "echo", "x").out == b"x\n", "")
    finally:
        instance.stop()
    return done()


if __name__ == "__main__":
    sys.exit(main())
