"""Where the images of a database are: one folder, wherever the database is opened from."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from provenances import provenance
from sqlalchemy import text
from texts import text_provenance

from imgalign.errors import InputError, StoreError
from imgalign.preferences.store import Store

Png = Callable[..., bytes]

pytestmark = pytest.mark.skipif(
    "IMGALIGN_TEST_POSTGRES" in os.environ, reason="about databases that are files"
)


@pytest.fixture
def project(tmp_path: Path, png: Png, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store of one image; commands run elsewhere."""
    for name in ("project", "elsewhere"):
        (tmp_path / name).mkdir()
    with Store.open(tmp_path / "project" / "imgalign.db") as store:
        store.add_image(png(1), provenance())
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "project"


def test_images_of_a_new_database_are_beside_it(project: Path):
    assert {path.name for path in project.iterdir()} == {"imgalign.db", "images"}


def test_a_second_folder_finds_the_images_of_the_first(project: Path, png: Png):
    with Store.open(f"sqlite:///{project}/imgalign.db") as store:
        store.add_image(png(2), provenance())
        assert store.images.root == project / "images"
    assert list(Path.cwd().iterdir()) == []
    assert len(list((project / "images").rglob("*.png"))) == 2


def test_a_project_that_was_moved_finds_its_images(project: Path, tmp_path: Path):
    project.rename(tmp_path / "moved")
    with Store.open(tmp_path / "moved" / "imgalign.db", create=False) as store:
        assert store.images.root == tmp_path / "moved" / "images"


def test_images_elsewhere_are_remembered(tmp_path: Path, project: Path, png: Png):
    with Store.open(project / "b.db", images=tmp_path / "big disk") as store:
        image = store.add_image(png(1), provenance())
    with Store.open(project / "b.db", create=False) as store:
        assert store.image_path(image).is_relative_to(tmp_path / "big disk")


def test_another_folder_than_the_databases_own_is_refused(project: Path, tmp_path: Path):
    with pytest.raises(StoreError, match=r"keeps its images in .*project/images; leave out"):
        Store.open(project / "imgalign.db", images=tmp_path / "elsewhere" / "images")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    os.symlink(project, tmp_path / "link")
    with Store.open(project / "imgalign.db", images=tmp_path / "link" / "images") as store:
        assert store.images.root == project / "images"


def test_an_images_folder_that_was_moved_is_named_once(project: Path, tmp_path: Path):
    (project / "images").rename(tmp_path / "moved")
    with pytest.raises(StoreError, match=r"not there any more; say where they are with --images"):
        Store.open(project / "imgalign.db")
    with pytest.raises(StoreError, match="mistyped: no such folder"):
        Store.open(project / "imgalign.db", images=tmp_path / "mistyped")
    with pytest.raises(StoreError, match="elsewhere: holds none of the first 1 images"):
        Store.open(project / "imgalign.db", images=tmp_path / "elsewhere")
    Store.open(project / "imgalign.db", images=tmp_path / "moved").close()
    with Store.open(project / "imgalign.db", create=False) as store:
        assert store.images.root == tmp_path / "moved"


def test_a_database_of_texts_alone_travels_without_its_empty_images_folder(tmp_path: Path):
    (tmp_path / "there").mkdir()
    with Store.open(tmp_path / "a.db") as store:
        named = store.add_text("a red cat", text_provenance())
    (tmp_path / "a.db").rename(tmp_path / "there" / "a.db")
    with Store.open(tmp_path / "there" / "a.db", create=False) as store:
        assert store.text(named) == "a red cat"
        assert store.images.root == tmp_path / "there" / "images"
    (tmp_path / "there" / "images").rmdir()
    with pytest.raises(StoreError, match="mistyped: no such folder"):
        Store.open(tmp_path / "there" / "a.db", images=tmp_path / "mistyped", create=False)


def test_an_images_folder_whose_name_no_database_can_keep_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="images folder: contains characters"):
        Store.open(tmp_path / "x.db", images=tmp_path / "caf\udce9")


@pytest.fixture
def forgetful(project: Path) -> Path:
    """As an older version left it: the database does not say where its images are."""
    with Store.open(project / "imgalign.db") as store, store.database.write() as connection:
        connection.execute(text("DELETE FROM folders"))
    return project


def test_images_of_an_older_database_are_found_beside_it(forgetful: Path):
    for _ in range(2):
        with Store.open(forgetful / "imgalign.db", create=False) as store:
            assert store.images.root == forgetful / "images"


def test_images_of_an_older_database_are_found_where_it_was_opened(
    forgetful: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (forgetful / "images").rename(tmp_path / "elsewhere" / "images")
    Store.open(forgetful / "imgalign.db", create=False).close()
    monkeypatch.chdir(tmp_path)
    with Store.open(forgetful / "imgalign.db", create=False) as store:
        assert store.images.root == tmp_path / "elsewhere" / "images"


def test_images_of_an_older_database_that_are_nowhere_are_asked_for(
    forgetful: Path, tmp_path: Path
):
    (forgetful / "images").rename(tmp_path / "moved")
    with pytest.raises(StoreError, match="say where they are with --images FOLDER"):
        Store.open(forgetful / "imgalign.db")
    assert list(Path.cwd().iterdir()) == []
    Store.open(forgetful / "imgalign.db", images=tmp_path / "moved").close()
    with Store.open(forgetful / "imgalign.db") as store:
        assert store.images.root == tmp_path / "moved"
