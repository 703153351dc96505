"""The app: settings, the three pages, and the server. Wiring only.

    imgalign ui                      # http://127.0.0.1:7860

Everything a person does is in the database or in a run folder before it is acknowledged, so the
server may be killed at any time. Nothing is asked from the internet.
"""

import asyncio
import logging
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from socket import create_server, getaddrinfo, socket
from types import FrameType

# Before gradio is imported: it reads these once.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import fastapi
import gradio as gr
import uvicorn

from imgalign.errors import InputError
from imgalign.preferences.store import Store
from ui import routes
from ui.pages import generate, rank, train
from ui.runs import Runs
from ui.shelf import Shelf
from ui.theme import asset, theme

GRACE_SECONDS = 2
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
PAGES = {"rank": "Rank", "train": "Train", "generate": "Generate"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where the app listens and what it works on."""

    host: str = "127.0.0.1"
    """Address to listen on. There is no login: any other than loopback lets everybody there in."""
    port: int = 7860
    database: str | None = None
    """SQLAlchemy URL; None: IMGALIGN_DATABASE, else imgalign.db in the working folder."""
    images: Path | None = None
    """Folder of original images; None: that which the database knows, or `images` beside it."""
    runs: Path = Path("runs")
    project: str = "default"
    """Queue within the database that the Rank page works on."""
    model: str = "storybook"
    """The base model offered on the Generate page."""
    pages: tuple[str, ...] | None = None
    """Pages to serve. None: all on loopback, and only Rank elsewhere, because whoever reaches the
    Train page can start processes."""

    def __post_init__(self) -> None:
        if self.pages is not None and not (self.pages and set(self.pages) <= set(PAGES)):
            raise InputError(f"pages: expected some of {', '.join(PAGES)}, got {self.pages}")

    @property
    def address(self) -> str:
        """Where a browser finds the app."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the app."""
        return self.host in LOOPBACK_HOSTS

    @property
    def served(self) -> tuple[str, ...]:
        """The pages that are served."""
        return self.pages or (tuple(PAGES) if self.on_loopback else ("rank",))


@dataclass(frozen=True, slots=True)
class Studio:
    """What the pages work on."""

    store: Store
    runs: Runs
    shelf: Shelf


def build_app(settings: Settings, store: Store) -> fastapi.FastAPI:
    """The whole app as an ASGI application; the caller closes the store. Not for coroutines."""
    app = fastapi.FastAPI(title="imgalign", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(routes.SameOrigin, loopback=settings.on_loopback)
    routes.add_error_handlers(app)
    routes.add_rank_routes(app, store, project=settings.project)
    studio = Studio(store, Runs(settings.runs), Shelf())
    if settings.served != ("rank",):
        routes.add_studio_routes(app, studio.runs, studio.shelf)
    # Outside a running event loop gradio makes loops of its own and never closes them.
    asyncio.run(_mount(app, settings, studio))
    return app


def _warm_up() -> None:
    """Load torch and diffusers while the first page is being looked at."""
    import imgalign.generate
    import imgalign.metrics  # noqa: F401


async def _mount(app: fastapi.FastAPI, settings: Settings, studio: Studio) -> None:
    with warnings.catch_warnings():
        # gradio says that several pages switch off a server-side rendering nobody asked for.
        warnings.filterwarnings("ignore", message="SSR mode")
        gr.mount_gradio_app(
            app,
            _blocks(settings, studio),
            path="/",
            server_name=settings.host,
            server_port=settings.port,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            show_error=True,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            theme=theme(),
            css=asset("app.css"),
            head=asset("head.html"),
        )


class Server(uvicorn.Server):
    """A server that ends when it is told to, even if a browser or a model is slow to let go.

    That loses nothing: whatever was acknowledged is on disk.
    """

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Finish what is under way for a few seconds, then leave."""
        # Cutting off the pages that are still open is no news.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        last_resort = threading.Timer(GRACE_SECONDS + 3, os._exit, [128 + sig])
        last_resort.daemon = True
        last_resort.start()
        super().handle_exit(sig, frame)


def launch(
    settings: Settings, *, on_listening: Callable[[str], object] = lambda address: None
) -> None:
    """Serve until interrupted. InputError when the address cannot be had.

    `on_listening` gets the app's address, with the port that port 0 became, once it answers there.
    """
    with (
        _listen(settings.host, settings.port) as listening,
        Store.open(settings.database, images=settings.images) as store,
    ):
        settings = replace(settings, port=listening.getsockname()[1])
        app = build_app(settings, store)
        if settings.served != ("rank",):
            threading.Thread(target=_warm_up, name="warm-up", daemon=True).start()
        config = uvicorn.Config(
            app,
            log_level="warning",
            timeout_graceful_shutdown=GRACE_SECONDS,
            server_header=False,
        )
        # The socket takes connections already; they are answered as soon as the server runs.
        on_listening(settings.address)
        Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket:
    try:
        family = getaddrinfo(host, port)[0][0]
        return create_server((host, port), family=family)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise InputError(
            f"{host}:{port}: cannot listen there ({reason}); choose another port or host"
        ) from error


def _blocks(settings: Settings, studio: Studio) -> gr.Blocks:
    first, *others = settings.served
    blocks = gr.Blocks(title="imgalign", analytics_enabled=False)
    with blocks:
        _page(blocks, first, settings, studio)
    for name in others:
        with blocks.route(PAGES[name], f"/{name}"):
            _page(blocks, name, settings, studio)
    return blocks


def _page(blocks: gr.Blocks, name: str, settings: Settings, studio: Studio) -> None:
    gr.HTML(_header(name, settings.served), elem_id="header", padding=False)
    match name:
        case "rank":
            rank.build()
        case "train":
            train.build(blocks, studio.runs)
        case "generate":
            generate.build(
                blocks,
                studio.store,
                studio.runs,
                studio.shelf,
                model=settings.model,
                project=settings.project,
            )


def _header(current: str, pages: tuple[str, ...]) -> str:
    links = "".join(
        f'<a href="{"./" if name == pages[0] else name}"'
        f"{' aria-current=page' if name == current else ''}>{PAGES[name]}</a>"
        for name in pages
    )
    return f'<header class="top">{asset("logo.svg")}<nav aria-label="Pages">{links}</nav></header>'
