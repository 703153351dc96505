"""Addresses of the app's pages as others link to them: relative, for the prefix of a proxy."""

from urllib.parse import urlencode


def rank_link(project: str, *, only: str | None) -> str:
    """The Rank page on a project; empty where the app was started to rank `only` another."""
    return f"./?{urlencode({'project': project})}" if only in (None, project) else ""
