"""An OpenAI-compatible server on the loopback interface that answers by a rule of the test."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answered = tuple[int, dict[str, str], bytes]
"""Status, headers and content of a response."""
Rule = Callable[[dict[str, Any]], Answered]


@dataclass
class JudgeServer:
    """`rule` may be changed while it runs; `asked` are the requests so far."""

    url: str
    rule: Rule
    asked: list[dict[str, Any]] = field(default_factory=list)
    """Each with the `path`, the `headers` and the `body`."""
    most_at_once: int = 0


class HangUpError(Exception):
    """Raised by a rule: the connection ends without a response."""


def completion(text: str | list[dict[str, str]] | None, *, finish_reason: str = "stop") -> Answered:
    """A chat completion; of a list, its parts."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": finish_reason,
    }
    return 200, {}, json.dumps({"object": "chat.completion", "choices": [choice]}).encode()


def failure(status: int, message: str = "no", **headers: str) -> Answered:
    """An error as OpenAI's and most servers put it."""
    return status, headers, json.dumps({"error": {"message": message, "type": "x"}}).encode()


def texts_in(body: dict[str, Any]) -> tuple[str, str]:
    """The two texts of a question."""
    one, other = re.findall(r"<text>\n(.*?)\n</text>", body["messages"][0]["content"], re.DOTALL)
    return one, other


def prefers_shorter(body: dict[str, Any]) -> Answered:
    """A rule: the shorter text is better; of two as long, the one shown first."""
    one, other = texts_in(body)
    return completion("A" if len(one) <= len(other) else "B")


@contextmanager
def judge_server(rule: Rule = prefers_shorter) -> Iterator[JudgeServer]:
    """Serve until the end of the block."""
    at_once, lock = 0, threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal at_once
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                at_once += 1
                running.most_at_once = max(running.most_at_once, at_once)
                running.asked.append(
                    {"path": self.path, "headers": dict(self.headers), "body": body}
                )
            try:
                status, headers, content = running.rule(body)
            except HangUpError:
                self.close_connection = True
                return
            finally:
                with lock:
                    at_once -= 1
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            with suppress(OSError):  # the client may have given up
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    running = JudgeServer(url=f"http://127.0.0.1:{server.server_address[1]}/v1", rule=rule)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
