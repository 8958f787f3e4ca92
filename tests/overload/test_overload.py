#!/usr/bin/python3
"""O01, G22: 10,000 creates thrown at a small quota. The admitted ones work, the rest are refused at once."""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from check import check, done
import grpc
import host
from paddock import Instance

CREATES = int(os.environ.get("OVERLOAD_CREATES", "10000"))
QUOTA = 20


def throw(client, count):
    """`count` creates, at most 500 on the wire at once: status name -> number, ids, latencies of refusals."""
    codes, ids, latency, waiting = {}, [], [], []

    def settle(entry):
        started, future = entry
        try:
            ids.append(future.result().id)
            name = "OK"
        except grpc.RpcError as error:
            name = error.code().name
            codes.setdefault("text", error.details())
        codes[name] = codes.get(name, 0) + 1

    for _ in range(count):
        started = time.monotonic()
        future = client.Sandboxes.Create(template="base", later=True)
        future.add_done_callback(lambda f, s=started: latency.append(time.monotonic() - s))
        waiting.append((started, future))
        if len(waiting) >= 500:
            settle(waiting.pop(0))
    for entry in waiting:
        settle(entry)
    return codes, ids, sorted(latency)


def main():
    instance = Instance(template="base", pool="20G", tcp=False, quota_max_sandboxes=QUOTA,
                        quota_creates_per_minute=10000000)
    try:
        instance.start()
        client = instance.admin
        rss = host.rss(instance.paddockd.pid)
        codes, ids, latency = throw(client, CREATES)
        text = codes.pop("text", "")
        check("overload/exactly the quota is admitted", codes.get("OK") == QUOTA, str(codes))
        check("overload/the rest is RESOURCE_EXHAUSTED", codes.get("RESOURCE_EXHAUSTED") == CREATES - QUOTA,
                  str(codes))
        check("overload/the text names the quota", "max_sandboxes" in text, text)
        grown = host.rss(instance.paddockd.pid) - rss
        check("overload/memory of paddockd grew by less than 200 MB", grown < 200 << 20, str(grown))
        check("overload/half are answered within a second at 500 at once", latency[len(latency) // 2] < 1.0,
                  f"{latency[len(latency) // 2]:.3f} s")
        works = [client.run(id, "true").code for id in ids]
        check("overload/every admitted sandbox works", works == [0] * QUOTA, str(works))
        started = time.monotonic()
        client.Sandboxes.Kill(sandbox_id=ids[0])
        check("overload/kill answers within a second", time.monotonic() - started < 1.0, "")
        again = client.Sandboxes.Create(template="base")
        check("overload/a freed place can be taken", again.id != "", "")
    finally:
        instance.stop()
    return done()


if __name__ == "__main__":
    sys.exit(main())
