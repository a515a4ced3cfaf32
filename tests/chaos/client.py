"""A client program: sends each request until it is answered, and writes down each answer. May be killed at any time.

`python client.py PORT JOURNAL` with a JSON list of requests on stdin. Loads nothing but the standard library.
"""

import http.client
import json
import os
import sys
import threading
from typing import Any

#: Whoever hears nothing for so long sends the same again, with the same key.
TIMEOUT_S = 15.0
AGAIN_S = 0.2


def send(port: int, request: dict[str, Any]) -> tuple[int, Any]:
    """Status and JSON of one try; raises OSError or HTTPException where there is no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        headers = {"Authorization": f"Bearer {request['token']}", "Content-Type": "application/json"}
        if "key" in request:
            headers["Idempotency-Key"] = request["key"]
        connection.request("POST", request["path"], json.dumps(request.get("body", {})), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def insist(port: int, request: dict[str, Any]) -> tuple[int, Any]:
    """The first answer that is not `come again`."""
    pause, parent = threading.Event(), os.getppid()
    while True:
        if os.getppid() != parent:
            sys.exit("nobody waits for the answers any more")
        try:
            status, told = send(port, request)
            if status != 429 and status < 500:
                return status, told
        except (OSError, http.client.HTTPException, ValueError):
            pass  # nobody there, or an answer that broke off
        pause.wait(AGAIN_S)


def main(port: int, journal: str) -> None:
    requests = json.load(sys.stdin)
    with open(journal, "a") as out:
        for request in requests:
            status, told = insist(port, request)
            line = {
                "name": request["name"],
                "status": status,
                "id": told.get("id"),
                "told": told.get("error"),
            }
            # One write: a killed client leaves a whole line or none.
            os.write(out.fileno(), (json.dumps(line) + "\n").encode())


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
