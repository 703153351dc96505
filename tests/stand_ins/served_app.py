"""The app, served for real on loopback."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from imgalign.preferences.store import Store
from ui.app import Settings, build_app


@contextmanager
def served(settings: Settings, store: Store) -> Iterator[str]:
    """The address of an app on this store, served from a thread."""
    servers: list[uvicorn.Server] = []

    def serve() -> None:
        # Built here: playwright keeps an event loop running in the main thread.
        app = build_app(settings, store)
        config = uvicorn.Config(app, host="127.0.0.1", port=settings.port, log_level="error")
        config.timeout_graceful_shutdown = 1
        servers.append(uvicorn.Server(config))
        servers[0].run()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    while not (servers and servers[0].started):
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{settings.port}"
    servers[0].should_exit = True
    thread.join(20)
