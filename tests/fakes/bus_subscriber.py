"""A subscriber in a process of its own, written as a stranger would: plain zmq and json.

    python -m tests.fakes.bus_subscriber ADDRESS TOPIC COUNT

Prints "ready" once a message on .../health/ has shown that the subscription is in force, then,
after COUNT messages on TOPIC, one JSON line: their seq numbers and event ids.
"""

from __future__ import annotations

import json
import sys

import zmq


def main(address: str, topic: str, count: int) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.set(zmq.RCVHWM, 0)
        socket.connect(address)
        socket.subscribe(topic)
        socket.subscribe("sensebind/v1/hat/health/")
        got = []
        ready = False
        while len(got) < count:
            name, body = socket.recv_multipart()
            if name.decode().endswith("/health/"):
                if not ready:
                    print("ready", flush=True)
                ready = True
                continue
            message = json.loads(body)
            got.append([message["seq"], message["id"]])
        print(json.dumps(got), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
