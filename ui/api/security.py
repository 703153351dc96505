"""Access control: hosts, origins, routes and the size of request bodies.

On loopback the threat is another website that makes this machine's browser send requests, by
posting across origins or under a name of its own that resolves to 127.0.0.1 (DNS rebinding). On a
network it is also anybody who can reach the port: they must log in (`login.py`), and may use the
app, and none of Gradio's other routes. No gradio here.
"""

import json
import re
from collections.abc import Collection, Mapping
from ipaddress import ip_address
from math import inf

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
LARGEST_BODY = 256 * 1024
"""Bytes. The largest that a page sends is the form of Generate, some 20 kB."""

FILE = "gradio.FileData"
"""Marks the name of a file, or an address, among what is sent to Gradio."""

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
FILES = (
    r"/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)",
    r"/(assets|static|svelte)/.+",
)
QUEUE = (
    r"/gradio_api/(queue/(join|data)|cancel|reset|startup-events)",
    r"/gradio_api/heartbeat/[^/]+",
)
"""What Gradio's browser code requests where a page has events; Rank has none."""


class Guard:
    """Refuses requests with 403 (host, origin), 404 (route) or 413 (size) before anything else.

    `host` is where the app listens; `allow_hosts` are other names of it, those of a proxy included,
    whose pages may send requests whatever name the proxy passes on. `routes` are regular
    expressions of paths, `prefix` a path that a proxy puts before all of them; it is removed here
    unless the proxy has removed it. Bodies are read whole before they are passed on, but for
    `uploads`, regular expressions of paths that read theirs in pieces, with the most bytes of each.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        allow_hosts: Collection[str],
        routes: Collection[str],
        prefix: str = "",
        uploads: Mapping[str, int] = {},
    ) -> None:
        self.app = app
        self.host = host.lower()
        self.allow_hosts = {name.lower() for name in allow_hosts}
        self.routes = re.compile("|".join(f"(?:{route})" for route in routes))
        self.prefix = prefix
        self.uploads = [(re.compile(path), most) for path, most in uploads.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, passed on or answered with one line of JSON."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the app has no WebSockets
            await send({"type": "websocket.close", "code": 1008})
            return
        scope = self._without_prefix(scope)
        headers = Headers(scope=scope)
        if reason := self.objection(headers) or _from_elsewhere(headers):
            await JSONResponse({"error": reason}, status_code=403)(scope, receive, send)
            return
        if not self.routes.fullmatch(scope["path"]):
            await JSONResponse({"error": "not found"}, status_code=404)(scope, receive, send)
            return
        sent = (most for path, most in self.uploads if path.fullmatch(scope["path"]))
        if (largest := next(sent, None)) is not None:
            # Counted again as it comes in: a length may be wrong, or missing.
            if _length(headers) > largest:
                await _refuse_size(largest)(scope, receive, send)
                return
        elif scope["method"] not in SAFE_METHODS:
            body = await _body(headers, receive)
            if body is None:
                await _refuse_size(LARGEST_BODY)(scope, receive, send)
                return
            if scope["path"].startswith("/gradio_api/") and _names_a_file(body):
                reason = "expected values of the page, got the name of a file"
                await JSONResponse({"error": reason}, status_code=422)(scope, receive, send)
                return
            receive = _replay(body, receive)
        await self.app(scope, receive, send)

    def objection(self, headers: Headers) -> str | None:
        """Why a request is refused because of its host or origin, or None."""
        hosts = [headers.get("host", "")]
        if "x-forwarded-host" in headers:
            hosts.append(headers["x-forwarded-host"].partition(",")[0].strip())
        for name in map(_name, hosts):
            if not self._allowed(name):
                return (
                    f"host {name!r}: not a name of this app; "
                    f"if it is yours, start it with --allow-host {name}"
                )
        origin = headers.get("origin")
        if origin is None:
            return None
        sender = origin.partition("://")[2]
        if sender not in hosts and _name(sender) not in self.allow_hosts:
            return f"origin {origin!r}: requests must come from the app itself ({hosts[0]})"
        return None

    def _allowed(self, name: str) -> bool:
        if name in LOOPBACK or name in self.allow_hosts:
            return True
        # Rebinding needs a name: no foreign page can have been loaded from an address.
        return not on_loopback(self.host) and (name == self.host or _is_address(name))

    def _without_prefix(self, scope: Scope) -> Scope:
        path = scope["path"]
        if self.prefix and (path == self.prefix or path.startswith(f"{self.prefix}/")):
            path = path.removeprefix(self.prefix) or "/"
            return {**scope, "path": path, "raw_path": path.encode()}
        return scope


def _from_elsewhere(headers: Headers) -> str | None:
    """Why a request that a page of another site makes is refused, or None.

    Browsers name no origin where a page only embeds what it asks for, but say that they come from
    elsewhere. A link to the app in a page of its own is let through.
    """
    site = headers.get("sec-fetch-site", "same-origin")
    is_link = headers.get("sec-fetch-mode") == "navigate" and (
        headers.get("sec-fetch-dest", "document") == "document"
    )
    if site in ("same-origin", "none") or is_link or "origin" in headers:
        return None  # an origin was checked already
    return f"sec-fetch-site {site!r}: requests must come from the app itself; open it in a tab"


def on_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    return host in ("127.0.0.1", "localhost", "::1")


def _name(host: str) -> str:
    """A Host header without its port; an IPv6 address keeps its brackets."""
    end = host.find("]") + 1
    return (host[:end] if host.startswith("[") and end else host.partition(":")[0]).lower()


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _names_a_file(body: bytes) -> bool:
    """Whether there is something in it of which Gradio would make a copy, or that it would fetch.

    No page of the app has a part that takes files from Gradio.
    """
    try:
        return FILE in json.dumps(json.loads(body))  # whatever escapes it was written with
    except (ValueError, RecursionError):
        return False  # the app finds out by itself


def _length(headers: Headers) -> float:
    """How long a body says that it is; infinite for what is no length."""
    length = headers.get("content-length", "0")
    return int(length) if re.fullmatch(r"[0-9]{1,12}", length) else inf


def _refuse_size(most: int) -> JSONResponse:
    reason = f"expected at most {most >> 10} kB at once, got more; send it in parts"
    return JSONResponse({"error": reason}, status_code=413)


async def _body(headers: Headers, receive: Receive) -> bytes | None:
    """The body of a request, or None as soon as it is too large."""
    if _length(headers) > LARGEST_BODY:
        return None
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body)  # the client has gone; the app finds out by itself
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body first, then what comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
