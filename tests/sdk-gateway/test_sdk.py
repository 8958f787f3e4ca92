#!/usr/bin/python3
"""The npm packages of the hosted-sandbox SDKs, as they are, against a real Paddock: over http, and over TLS with a wildcard domain.
Arguments: only these programs, as novita.mjs."""
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.path.insert(0, os.path.join(HERE, "..", "ingress"))
import interpreter
import node
from check import check, done
from ingress import DOMAIN, Ingress
from criu import HAS_CRIU
from paddock import CLI, Instance

NODE = node.find()


def key(instance, name, *options):
    return subprocess.run([CLI, "key", "create", name, *options], env=dict(os.environ, PADDOCK_ADDR=f"unix:{instance.run}/admin.sock"),
                          capture_output=True, text=True, check=True).stdout.strip()


def run(program, prefix, environment):
    if len(sys.argv) > 1 and program not in sys.argv:
        return 0
    process = subprocess.run([NODE, "--require", f"{HERE}/hosts.cjs", f"{HERE}/{program}"], cwd=HERE, text=True, capture_output=True, timeout=300,
                             env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PREFIX": prefix, **environment})
    print(process.stdout, end="", flush=True)
    print(process.stderr, end="", file=sys.stderr)
    if process.returncode != 0 and "FAIL" not in process.stdout:
        check(f"{prefix}/{program}", False, (process.stderr or process.stdout)[-300:])
    return process.returncode


def main():
    if not NODE:
        print(f"skip sdk-gateway: e2b needs Node.js {node.NEEDED} or later")
        return 0
    error = node.npm_ci(HERE)
    if not check("sdk-gateway/npm ci", error is None, error):
        return done()
    failed = 0
    with Instance(template="base", pool="10G", ingress_user="paddock") as instance, Ingress(run=instance.run, user="paddock") as ingress:
        instance.admin.Admin.CreateTenant(name="other")
        keys = {"E2B_API_KEY": key(instance, "sdk", *(f"--scope={scope}" for scope in ("read", "sandbox", "template"))), "OTHER_KEY": key(instance, "other", "--tenant", "other")}
        plain, tls = f"http://127.0.0.1:{ingress.port}", f"https://api.{DOMAIN}:{ingress.tls_port}"
        criu = {"CRIU": "1"} if HAS_CRIU else {}
        failed |= run("template.mjs", "http/template", {**keys, **criu, "E2B_API_URL": plain, "E2B_SANDBOX_URL": plain})
        failed |= run("template.mjs", "tls/template", {**keys, "E2B_API_URL": tls, "NODE_EXTRA_CA_CERTS": ingress.ca})
        for program in ("control.mjs", "sandbox.mjs", "urls.mjs"):
            name = program.split(".")[0]
            failed |= run(program, f"http/{name}", {**keys, "E2B_API_URL": plain, "E2B_SANDBOX_URL": plain})
            failed |= run(program, f"tls/{name}", {**keys, "E2B_API_URL": tls, "NODE_EXTRA_CA_CERTS": ingress.ca})
        failed |= run("ports.mjs", "tls/ports", {**keys, "E2B_API_URL": tls, "NODE_EXTRA_CA_CERTS": ingress.ca})
        interpreter.add(instance)
        failed |= run("interpreter.mjs", "http/interpreter", {**keys, "E2B_API_URL": plain, "E2B_SANDBOX_URL": plain})
        failed |= run("interpreter.mjs", "tls/interpreter", {**keys, "E2B_API_URL": tls, "NODE_EXTRA_CA_CERTS": ingress.ca, "SHORT": "1"})
        novita = {"NOVITA_API_KEY": keys["E2B_API_KEY"], "OTHER_KEY": keys["OTHER_KEY"], "NOVITA_API_URL": plain, "NOVITA_SANDBOX_URL": plain}
        failed |= run("novita.mjs", "http/novita", novita)
        failed |= run("novita_code.mjs", "tls/novita", {"NOVITA_API_KEY": keys["E2B_API_KEY"], "NOVITA_API_URL": tls, "NODE_EXTRA_CA_CERTS": ingress.ca})
        failed |= run("template.mjs", "http/novita-template", {**novita, "SDK": "novita-sandbox"})
    return 1 if failed else done()


if __name__ == "__main__":
    sys.exit(main())
