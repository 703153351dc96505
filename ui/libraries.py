"""Loads torch and diffusers, which takes seconds and most of a gigabyte, when a page needs them.

Loaded in one thread at a time: two that import packages which import each other could find one of
them half loaded. An app in which people only rank, and leads look at results, never loads them.
"""

import threading

from starlette.types import ASGIApp, Receive, Scope, Send

PAGES_WITH_MODELS = frozenset({"candidates", "learn", "train", "generate"})
"""Those that need them."""
_LOADING = threading.Lock()


def load_libraries() -> None:
    """Return once all that `PAGES_WITH_MODELS` need can be imported at once."""
    with _LOADING:
        import imgalign.diffusion.generate
        import imgalign.language.rewriting
        import imgalign.runs.metrics
        import imgalign.train.config  # noqa: F401
        import reward_models.text_training
        import reward_models.training  # noqa: F401


class LoadAhead:
    """Begins to load the libraries when a page that needs them is opened, while it is shown."""

    def __init__(self, app: ASGIApp, *, root: str) -> None:
        self.app = app
        self.root = root
        """The page at "/"."""
        self.begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, passed on as it is."""
        if not self.begun and scope["type"] == "http":
            page = scope["path"].strip("/") or self.root
            if page in PAGES_WITH_MODELS:
                self.begun = True
                threading.Thread(target=load_libraries, name="libraries", daemon=True).start()
        await self.app(scope, receive, send)
