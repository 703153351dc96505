"""The app: settings, the seven pages, and the server. Wiring only.

    imgalign ui                      # http://127.0.0.1:7860

Everything a user does is in the database or in a run folder before it is acknowledged, so the
server may be killed at any time. Nothing is requested from the internet.
"""

import asyncio
import logging
import os
import re
import secrets
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from socket import IPPROTO_TCP, create_server, getaddrinfo, socket
from types import FrameType

# Before gradio is imported: it reads these once.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import fastapi
import gradio as gr
import uvicorn
from fastapi.responses import RedirectResponse

from imgalign.errors import InputError
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.opening import open_or_make
from imgalign.preferences.store import Store
from ui import authority
from ui.api import candidates as candidates_routes
from ui.api import learn as learn_routes
from ui.api import login as login_routes
from ui.api import loras as loras_routes
from ui.api import people as people_routes
from ui.api import rank as rank_routes
from ui.api import security
from ui.api import studio as studio_routes
from ui.api.guidelines import Guidelines
from ui.api.projects import FIRST
from ui.api.responses import add_error_handlers
from ui.batches import Batches
from ui.fits import Fits
from ui.heading import PAGES, header
from ui.libraries import LoadAhead
from ui.loras import Loras
from ui.pages import candidates, generate, learn, people, rank, results, train
from ui.pages.candidates_view import Work
from ui.pulse import Pulse
from ui.run_queue import Line, RunQueue, attended
from ui.runs import Runs
from ui.shelf import Shelf
from ui.standing import Standings
from ui.theme import asset, theme

GRACE_SECONDS = 2
IDLE_SECONDS = 75
"""Until the connection of a page is closed: somebody looks at a set for longer than 5 seconds."""
QUEUE_SECONDS = 0.02
"""Between two looks of Gradio at the events that pages have sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where the app listens and what it works on."""

    host: str = "127.0.0.1"
    """Address to listen on. Other than on loopback there must be accounts."""
    accounts: bool = False
    """Whether nobody gets in without an account, also as long as there is none: then `launch` tells
    a link by which the first is made. Once the store has accounts it is so in any case."""
    port: int = 7860
    allow_hosts: tuple[str, ...] = ()
    """Names, without a port, under which browsers may address the app. Loopback names always may,
    and on a network every IP address and `host` itself."""
    root_path: str = ""
    """Path prefix of a reverse proxy, such as "/studio"; "" without one."""
    database: str | None = None
    """SQLAlchemy URL; None: IMGALIGN_DATABASE, else imgalign.db in the working folder."""
    images: Path | None = None
    """Folder of original images; None: the one recorded in the database, or `images` beside it."""
    runs: Path = Path("runs")
    project: str | None = None
    """Queue within the database that all pages begin with; None is "default". Without accounts it
    is the only one that can be ranked, and with None any; with accounts it is open to annotators
    as long as no lead closes it."""
    guidelines: Path | None = None
    """A text file that the Rank page shows to annotators of the project."""
    model: str = "storybook"
    """The base model offered on the Candidates and Generate pages."""
    examples: tuple[str, ...] = ()
    """Prompts that the Candidates page offers to those who have none yet."""
    demos: tuple[tuple[str, str], ...] = ()
    """Finished demos beside this store, which the Candidates page offers to those who have nothing
    yet: the folder of each, and the command that opens the app on it."""
    pages: tuple[str, ...] | None = None
    """Pages to serve; None: all. With accounts annotators reach Rank alone, and what starts
    processes of free settings or reads paths of this machine is for admins."""

    def __post_init__(self) -> None:
        if self.pages is not None and not (self.pages and set(self.pages) <= set(PAGES)):
            given = ", ".join(self.pages) or "none"
            raise InputError(f"pages: expected some of {', '.join(PAGES)}, got {given}")
        if not re.fullmatch(r"(/[\w.~-]+)*", self.root_path):
            raise InputError(f"root path: expected one like /studio, got {self.root_path!r}")
        Guidelines(self.guidelines)  # or InputError, before anything is made
        for name in self.allow_hosts:
            if not re.fullmatch(r"[\w.-]+|\[[0-9A-Fa-f:.]+\]", name):
                raise InputError(
                    f"allowed host: expected a name like studio.local, without a port, got {name!r}"
                )
        if self.has_studio:
            self._check_folders()

    def _check_folders(self) -> None:
        if self.runs.exists() and not self.runs.is_dir():
            raise InputError(f"{self.runs}: expected a folder of runs, got a file")
        names_path = self.model.startswith((".", "~", "/")) or self.model.count("/") > 1
        if names_path and not Path(self.model).expanduser().exists():
            raise InputError(
                f"model: {self.model}: no such folder; expected 'storybook', a folder in "
                "diffusers' layout, or a hub name"
            )

    @property
    def address(self) -> str:
        """URL of the app."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def address_here(self) -> str:
        """URL of the app in a browser of this machine."""
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        return replace(self, host=everywhere.get(self.host, self.host)).address

    @property
    def served(self) -> tuple[str, ...]:
        """The pages that are served."""
        return tuple(PAGES) if self.pages is None else self.pages

    @property
    def root(self) -> str:
        """The page at "/": Rank, whose address annotators keep, wherever it is served."""
        return "rank" if "rank" in self.served else self.served[0]

    @property
    def others(self) -> tuple[str, ...]:
        """The pages that are at an address of their own."""
        return tuple(name for name in self.served if name != self.root)

    @property
    def first_project(self) -> str:
        """The project that all pages begin with."""
        return self.project or FIRST

    @property
    def has_studio(self) -> bool:
        """Whether any page but Rank is served."""
        return self.served != ("rank",)


@dataclass(frozen=True, slots=True)
class Studio:
    """State shared by the pages."""

    store: Store
    runs: Runs
    queue: RunQueue
    fits: Fits
    batches: Batches
    shelf: Shelf
    accounts: Accounts
    only: str | None
    """The project that alone can be ranked, if there is one."""
    pulse: Pulse
    server: str
    """Unique name of this process."""


def build_app(settings: Settings, store: Store) -> fastapi.FastAPI:
    """The whole app as an ASGI application; the caller closes the store. Not for coroutines.

    InputError on a network where the store has no accounts, and none are asked for.
    """
    accounts = Accounts(store.database)
    if not settings.accounts:
        login_routes.refuse_network_without_accounts(settings.host, accounts)
    runs = Runs(settings.runs, database=settings.database)
    queue = RunQueue(runs)
    fits = Fits(runs, database=settings.database)
    batches = Batches(runs, database=settings.database)

    @asynccontextmanager
    async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
        lines: dict[str, Line] = {"train": queue, "candidates": batches}
        with attended(*(line for page, line in lines.items() if page in settings.served)):
            yield

    app = fastapi.FastAPI(
        title="imgalign", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan
    )
    app.add_middleware(LoadAhead, root=settings.root)
    app.add_middleware(
        login_routes.Login,
        people=accounts,
        files=security.FILES,
        prefix=settings.root_path,
        rank=settings.root == "rank",
        required=settings.accounts,
        out_of_order=asset("out_of_order.html"),
    )
    app.add_middleware(  # last, so that it sees requests first
        security.Guard,
        host=settings.host,
        allow_hosts=settings.allow_hosts,
        routes=_reachable(settings),
        prefix=settings.root_path,
        uploads=_uploads(settings),
    )
    add_error_handlers(app)
    app.include_router(login_routes.router(accounts, page=asset("login.html")))
    app.include_router(
        rank_routes.router(
            store, accounts, project=settings.project, guidelines=settings.guidelines
        )
    )
    studio = Studio(
        store,
        runs,
        queue,
        fits,
        batches,
        Shelf(),
        accounts,
        None if settings.accounts or accounts.exist() else settings.project,
        Pulse(runs, (runs.processes, fits.processes, batches.processes), store),
        secrets.token_urlsafe(9),
    )
    if settings.has_studio:
        app.include_router(learn_routes.router(studio.fits, store, accounts))
        app.include_router(
            studio_routes.router(runs, studio.shelf, accounts, studio.pulse, server=studio.server)
        )
    if "people" in settings.served:
        app.include_router(people_routes.router(store, accounts))
    if "generate" in settings.served:
        loras = Loras(runs, settings.model)
        app.include_router(loras_routes.router(loras, accounts))
    if "candidates" in settings.served:
        app.include_router(candidates_routes.router(studio.batches, store, accounts))
    for name in settings.others:
        app.add_api_route(f"/{name}/", _to_page(name), include_in_schema=False)
    # Outside a running event loop gradio makes loops of its own and never closes them.
    asyncio.run(_mount(app, settings, studio))
    return app


def _to_page(name: str) -> Callable[[], RedirectResponse]:
    # Relative, because the prefix of a proxy is not known here.
    return lambda: RedirectResponse(f"../{name}")


def _uploads(settings: Settings) -> dict[str, int]:
    """Paths, as regular expressions, to which browsers send files, and the most bytes of each."""
    routes = {"candidates": candidates_routes, "people": people_routes, "generate": loras_routes}
    served = (each for page, each in routes.items() if page in settings.served)
    return {each.UPLOADS: each.LARGEST_UPLOAD for each in served}


def _reachable(settings: Settings) -> list[str]:
    """Paths, as regular expressions, that the pages request."""
    pages = [f"/{name}/?" for name in settings.others]
    queue = security.QUEUE if settings.has_studio else ()
    return ["/", *pages, *login_routes.PAGES, "/api/.+", *security.FILES, *queue]


async def _mount(app: fastapi.FastAPI, settings: Settings, studio: Studio) -> None:
    blocks = _blocks(settings, studio)
    with warnings.catch_warnings():
        # gradio warns that several pages disable server-side rendering, which is off anyway.
        warnings.filterwarnings("ignore", message="SSR mode")
        gr.mount_gradio_app(
            app,
            blocks,
            path="/",
            server_name=settings.host,
            server_port=settings.port,
            root_path=settings.root_path or None,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            show_error=True,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            theme=theme(),
            css=asset("app.css"),
            head=_head(settings, studio),
        )
    # Else a thousand times a second, for a twentieth of a core at rest.
    blocks._queue.sleep_when_free = QUEUE_SECONDS


class Server(uvicorn.Server):
    """A server that stops within seconds of a signal, even with open connections or a busy model.

    That loses nothing: everything acknowledged is on disk.
    """

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Finish open requests for a few seconds, then exit."""
        # Connections of open pages are cut off, which needs no log line.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        last_resort = threading.Timer(GRACE_SECONDS + 3, os._exit, [128 + sig])
        last_resort.daemon = True
        last_resort.start()
        super().handle_exit(sig, frame)


def launch(
    settings: Settings,
    *,
    create: bool = False,
    on_made: Callable[[str], object] = lambda line: None,
    on_listening: Callable[[str], object] = lambda address: None,
    on_set_up: Callable[[str], object] = lambda link: None,
    on_unguarded: Callable[[], object] = lambda: None,
) -> None:
    """Serve until interrupted. InputError when the address cannot be bound.

    `create` and `on_made` are those of `open_or_make`. `on_listening` gets the app's address, with
    the port that port 0 became, once it answers there; `on_set_up` the link by which the first
    account is made, where accounts are asked for and there is none; `on_unguarded` is called where
    nobody has to log in.
    """
    with (
        _listen(settings.host, settings.port) as listening,
        open_or_make(
            settings.database, images=settings.images, create=create, on_made=on_made
        ) as store,
    ):
        settings = replace(settings, port=listening.getsockname()[1])
        app = build_app(settings, store)
        config = uvicorn.Config(
            app,
            log_level="warning",
            timeout_graceful_shutdown=GRACE_SECONDS,
            timeout_keep_alive=IDLE_SECONDS,
            server_header=False,
        )
        # The socket takes connections already; they are answered as soon as the server runs.
        on_listening(settings.address)
        accounts = Accounts(store.database)
        if settings.accounts and (token := accounts.set_up()) is not None:
            on_set_up(f"{settings.address_here}/join#{token}")
        elif not (settings.accounts or accounts.exist()):
            on_unguarded()
        Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket:
    try:
        family = getaddrinfo(host, port)[0][0]
        made = create_server((host, port), family=family)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise InputError(
            f"{host}:{port}: cannot listen there ({reason}); choose another port or host"
        ) from error
    # Only to one that is of TCP by its own word does asyncio write without delay: else the second
    # part of an answer waits until the browser has confirmed the first, which is 40 ms.
    return socket(made.family, made.type, IPPROTO_TCP, fileno=made.detach())


def _head(settings: Settings, studio: Studio) -> str:
    head = asset("head.html") + f"<style>{asset('role.css')}</style>\n"
    scripts = ("streams.js", "combobox.js", "title.js", "role.js")
    head += "".join(f"<script>{asset(name)}</script>\n" for name in scripts)
    if settings.has_studio:
        head += f'<meta name="imgalign-server" content="{studio.server}">\n'
        head += f"<script>{asset('alive.js')}</script>\n"
    return head


def _blocks(settings: Settings, studio: Studio) -> gr.Blocks:
    blocks = gr.Blocks(title="imgalign", analytics_enabled=False)
    with blocks:
        _page(blocks, settings.root, settings, studio)
    for name in settings.others:
        with blocks.route(PAGES[name], f"/{name}"):
            _page(blocks, name, settings, studio)
    authority.guard(blocks, studio.accounts)
    return blocks


def _page(blocks: gr.Blocks, name: str, settings: Settings, studio: Studio) -> None:
    gr.HTML(header(name, settings.served, root=settings.root), elem_id="header", padding=False)
    match name:
        case "candidates":
            work = Work(
                studio.store,
                studio.runs,
                studio.batches,
                Standings(studio.store, studio.runs, studio.fits, studio.batches),
                settings.model,
                settings.first_project,
                studio.accounts,
                studio.pulse,
                studio.only,
            )
            candidates.build(blocks, work, examples=settings.examples, demos=settings.demos)
        case "rank":
            rank.build(
                making="candidates" in settings.served,
                learning="learn" in settings.served,
                demo=bool(settings.demos) and "candidates" in settings.served,
            )
        case "learn":
            learn.build(blocks, studio.fits, studio.store, studio.pulse)
        case "people":
            people.build(
                blocks,
                studio.store,
                studio.accounts,
                studio.pulse,
                project=settings.first_project,
                from_file=settings.guidelines is not None,
            )
        case "results":
            results.build(blocks, studio.store, studio.runs, studio.pulse, only=studio.only)
        case "train":
            train.build(blocks, studio.queue)
        case "generate":
            generate.build(
                blocks,
                studio.store,
                studio.runs,
                studio.shelf,
                model=settings.model,
                project=settings.first_project,
                only=studio.only,
            )
