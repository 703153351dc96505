"""The app, served for real on loopback."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import fastapi
import uvicorn

from imgalign.preferences.store import Store
from ui.app import Settings, build_app


def built(settings: Settings, store: Store) -> fastapi.FastAPI:
    """An app, built in a thread: playwright keeps an event loop running in the main one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(build_app, settings, store).result()


class Server(uvicorn.Server):
    """Leaves no connection open where a browser keeps one longer than it is waited for."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close all, and let the loop do it."""
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


@contextmanager
def served(settings: Settings, store: Store) -> Iterator[str]:
    """The address of an app on this store, served from a thread."""
    servers: list[Server] = []

    def serve() -> None:
        # Built here: playwright keeps an event loop running in the main thread.
        app = build_app(settings, store)
        config = uvicorn.Config(app, host="127.0.0.1", port=settings.port, log_level="error")
        config.timeout_graceful_shutdown = 1
        servers.append(Server(config))
        servers[0].run()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    while not (servers and servers[0].started):
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{settings.port}"
    servers[0].should_exit = True
    thread.join(20)
