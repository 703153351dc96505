"""Claims: the site of the documentation has every page, no dead link, and asks no other host."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
ELSEWHERE = re.compile(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"?(https?:)?//[^>]*>")


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml without running the functions that it names."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)

SETTINGS = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "site_hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages(entry):
    """Paths in the navigation, in its order."""
    if isinstance(entry, str):
        return [entry]
    inner = entry.values() if isinstance(entry, dict) else entry
    return [page for each in inner for page in pages(each)]


def test_every_page_is_in_the_navigation_once(hooks):
    found = pages(SETTINGS["nav"])
    written = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    joined = {page for page in hooks.JOINED.values() if page.endswith(".md")}
    assert sorted(found) == sorted(written | joined)
    assert not written & joined


def test_what_joins_the_site_exists(hooks):
    assert all((ROOT / source).is_file() for source in hooks.JOINED)


def test_the_site_has_no_font_and_no_analytics_of_another_host():
    assert SETTINGS["theme"]["font"] is False
    assert "analytics" not in SETTINGS["extra"]
    assert "http" not in re.sub(r"#.*", "", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("page", "written", "turned"),
    [
        ("index.md", "[app](docs/app.md#keys)", "[app](app.md#keys)"),
        ("index.md", "![it](docs/images/base.png)", "![it](images/base.png)"),
        ("index.md", "[a test](tests/test_site.py)", "a test"),
        ("index.md", "[decisions](docs/adr)", "decisions"),
        ("app.md", "[load](../benchmarks/results/README.md#load)", "[load](results.md#load)"),
        ("algorithms/direct.md", "[pairs](../pairs.md)", "[pairs](../pairs.md)"),
        (
            "algorithms/direct.md",
            "[all](../../benchmarks/results/README.md)",
            "[all](../results.md)",
        ),
        ("results.md", "![it](direct.png)", "![it](results/direct.png)"),
        ("results.md", "[loop](../../docs/loop.md#results)", "[loop](loop.md#results)"),
        ("app.md", "[x](https://arxiv.org/abs/1)", "[x](https://arxiv.org/abs/1)"),
        ("app.md", "[x](no_such_page.md)", "[x](no_such_page.md)"),
        ("app.md", "[x](#keys)", "[x](#keys)"),
    ],
)
def test_links_of_the_repository_are_turned_to_pages_of_the_site(hooks, page, written, turned):
    assert hooks.with_links_of_the_site(f"See {written}.", page) == f"See {turned}."


@pytest.mark.parametrize(
    ("written", "apart"),
    [
        ("text:\n- a\n- b", "text:\n\n- a\n- b"),
        ("text:\n1. a\n2. b", "text:\n\n1. a\n2. b"),
        ("text:\n| a |\n|---|\n| b |", "text:\n\n| a |\n|---|\n| b |"),
        ("text:\n```\n- no list\n```", "text:\n\n```\n- no list\n```"),
        ("- a\n  goes on\n- b", "- a\n  goes on\n- b"),
        ("a - b\n-5 is less", "a - b\n-5 is less"),
    ],
)
def test_lists_tables_and_code_are_set_apart_from_the_text_before(hooks, written, apart):
    assert hooks.with_blank_lines(written) == apart


def build(root, out):
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=root,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copied(tmp_path, hooks):
    """What the site is made from, in a folder of its own."""
    if importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed; the [docs] extra has it")
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    for source in ("mkdocs.yml", *hooks.JOINED):
        (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / source, tmp_path / source)
    return tmp_path


def test_the_site_builds_strictly_and_its_pages_load_nothing_from_elsewhere(tmp_path, hooks):
    if importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed; the [docs] extra has it")
    built = build(ROOT, tmp_path)
    assert built.returncode == 0, built.stderr
    for page in pages(SETTINGS["nav"]):
        text = (tmp_path / page).with_suffix(".html").read_text(encoding="utf-8")
        assert not ELSEWHERE.search(text), page
    assert not (tmp_path / "site_hooks.py").exists()


@pytest.mark.parametrize("link", ["[x](nowhere.md)", "[x](settings.md#no-such-section)"])
def test_a_link_that_leads_nowhere_ends_the_build(copied, link):
    app = copied / "docs" / "app.md"
    app.write_text(f"{app.read_text(encoding='utf-8')}\n{link}\n", encoding="utf-8")
    built = build(copied, copied / "site")
    assert built.returncode != 0
    assert link[4:-1] in built.stdout + built.stderr
