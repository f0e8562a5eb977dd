#!/usr/bin/env python3
"""Runs HAProxy with deploy/haproxy.cfg before three stand-ins of gateways, and looks which requests it sends twice.

A request that only reads goes to another replica when one fails. A publish must not: the first one may have stored it.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CONFIG = Path(__file__).resolve().parent.parent / "deploy/haproxy.cfg"

# Replicas that fail a request before one answers it.
FAILING = 2


class Gateway(BaseHTTPRequestHandler):
    """Takes a whole request, and fails it in the way that `failure` says as long as it is one of the first."""

    failure = ""
    taken = 0
    lock = threading.Lock()

    def answer(self):
        if self.path == "/readyz":
            return self.say(200)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with Gateway.lock:
            Gateway.taken += 1
            fails = Gateway.taken <= FAILING
        if not fails:
            return self.say(200)
        if Gateway.failure == "503":
            return self.say(503)
        # Without a word, as a process that is killed.
        self.close_connection = True

    def say(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


def ask(address, method):
    """The status that a request is answered with. Head and body go in one piece: only such a request can be sent again."""
    body = "{}" if method == "POST" else ""
    head = f"{method} /v1/any HTTP/1.1\r\nHost: akis\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(address, 10) as connection:
        connection.sendall((head + body).encode())
        return int(connection.makefile().readline().split()[1])


def wait_for(address):
    for _ in range(100):
        try:
            return socket.create_connection(address, 1).close()
        except OSError:
            time.sleep(0.1)
    sys.exit("haproxy does not listen after 10 s")


def main():
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Gateway) for _ in range(3)]
    # An address of this process alone: a free port of 127.0.0.1 may be taken by the time that HAProxy binds it.
    address = (f"127.64.{os.getpid() // 256 % 256}.{os.getpid() % 256}", 8080)
    env = {**os.environ, "AKIS_LISTEN": f"{address[0]}:{address[1]}"}
    for number, server in enumerate(servers, 1):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env[f"AKIS_GATEWAY_{number}"] = f"127.0.0.1:{server.server_port}"
        env[f"AKIS_ADMIN_{number}"] = str(server.server_port)
    haproxy = subprocess.Popen(["haproxy", "-f", CONFIG], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wrong = []
    try:
        wait_for(address)
        for method, failure, status, times in (
            ("GET", "503", 200, 3),
            ("GET", "no answer", 200, 3),
            ("POST", "503", 503, 1),
            ("POST", "no answer", 502, 1),
        ):
            Gateway.failure, Gateway.taken = failure, 0
            told = ask(address, method)
            if (told, Gateway.taken) != (status, times):
                wrong.append(f"{method} with {failure} from {FAILING} gateways: {told} after {Gateway.taken} took it, not {status} after {times}")
    finally:
        haproxy.kill()
        haproxy.wait()
    print("\n".join(f"{CONFIG.name}: {one}" for one in wrong) or f"{CONFIG.name}: what may have been done is not done again")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
