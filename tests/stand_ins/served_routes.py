"""The routes of the app, as it knows them: what it serves, and which of them answers a path."""

import re
from collections.abc import Iterator
from typing import Any

import fastapi

SAFE = {"HEAD", "OPTIONS"}


def served_routes(routes: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of each, such as ("GET", "/api/rank/images/{token}")."""
    for route in routes:
        router = getattr(route, "original_router", None)
        path = prefix + (getattr(route, "path", None) or "")
        if router is not None:
            context = getattr(route, "include_context", None)
            within = prefix + (getattr(context, "prefix", "") or "")
            yield from served_routes(router.routes, within)
        elif inner := getattr(route, "routes", None):
            yield from served_routes(inner, path.rstrip("/"))
        else:
            methods = getattr(route, "methods", None) or {"GET"}
            yield from ((method, path) for method in sorted(set(methods) - SAFE))


def reachable_routes(app: fastapi.FastAPI) -> set[tuple[str, str]]:
    """Those that the guard lets requests through to."""
    guard = next(each for each in app.user_middleware if "Guard" in str(each.cls))
    expressions: Any = guard.kwargs["routes"]
    through = re.compile("|".join(f"(?:{each})" for each in expressions))
    found = {(method, path) for method, path in served_routes(app.routes) if path}
    return {(method, path) for method, path in found if through.fullmatch(example(path))}


def example(path: str) -> str:
    """A path of the route. Example: "/api/rank/images/{token}" gives "/api/rank/images/x"."""
    return re.sub(r"\{[^/]*\}", "x", path)


def pattern(path: str) -> re.Pattern[str]:
    """Matches the paths of a route, with a slash at their end or without one."""
    parts = [re.escape(part) for part in re.split(r"\{[^/]*?\}", path)]
    inner = ".+" if path.endswith(":path}") else "[^/]+"
    return re.compile(inner.join(parts) + "/?")
