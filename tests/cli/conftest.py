"""The command line alone: pratai-client against a control plane of a few lines.

The real control plane is in the whole-system tests; here it is a table of canned answers,
so that every answer it could give can be tried.  PRATAI_BUILD names the build directory
(default: build).
"""
import http.server
import json
import os
import pathlib
import subprocess
import threading

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("PRATAI_BUILD", "build")
CLIENT = BUILD / "pratai-client"


class Result:
    def __init__(self, process):
        self.code = process.returncode
        self.out_bytes, self.err_bytes = process.stdout, process.stderr
        self.out = process.stdout.decode("utf-8", "surrogateescape")
        self.err = process.stderr.decode("utf-8", "surrogateescape")


def run_client(*args, env=None, stdin=b"", timeout=30):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OS_", "PRATAI_"))}
    clean.update(env or {})
    return Result(subprocess.run([str(CLIENT), *args], input=stdin, capture_output=True,
                                 env=clean, timeout=timeout, check=False))


@pytest.fixture
def client():
    return run_client


class Request:
    def __init__(self, handler, body):
        self.method, self.path = handler.command, handler.path
        self.headers, self.body = handler.headers, body

    def json(self):
        return json.loads(self.body)


class ControlPlane:
    """Answers by (method, path without query): a status, a body and headers, or a function of
    the request that gives them.  A list is worked through, its last entry repeated."""

    def __init__(self):
        self.answers, self.requests = {}, []
        plane = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def answer(self):
                length = int(self.headers.get("Content-Length") or 0)
                request = Request(self, self.rfile.read(length))
                plane.requests.append(request)
                status, body, headers = plane.find(request)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                kind = "application/octet-stream" if isinstance(body, bytes) else \
                    "application/json" if status < 400 else "application/problem+json"
                self.send_response(status)
                self.send_header("Content-Type", kind)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if status != 204:
                    self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,),
                                       daemon=True)
        self.thread.start()

    def on(self, method, path, *answers):
        self.answers[method, path] = list(answers)

    def find(self, request):
        path = request.path.split("?")[0]
        queue = self.answers.get((request.method, path))
        if not queue:
            return 404, {"type": "not_found", "status": 404, "detail": f"no {path}"}, {}
        answer = queue[0] if len(queue) == 1 else queue.pop(0)
        if callable(answer):
            answer = answer(request)
        return (*answer, {})[:3]

    def run(self, *args, **keywords):
        env = {"OS_PRATAI_URL": self.url, "OS_TOKEN": "secret"}
        env.update(keywords.pop("env", {}))
        return run_client(*args, env=env, **keywords)

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def plane():
    p = ControlPlane()
    yield p
    p.close()
