"""Rankings of a project as files to take home, each written to disk and not held in memory."""

import shutil
import zipfile
from html import escape
from pathlib import Path
from typing import Literal, TypeAlias, get_args
from urllib.parse import urlencode

from imgalign.errors import ImgalignError
from imgalign.files import reporting_full_disk
from imgalign.preferences.exchange import export_rankings, values_in
from imgalign.preferences.foreign.field_export import export_field
from imgalign.preferences.foreign.formats import ExportFormat, FieldFormat
from imgalign.preferences.foreign.pair_export import export_pairs
from imgalign.preferences.foreign.text_export import export_text_pairs
from imgalign.preferences.judges import chosen_rankings
from imgalign.preferences.records import Samples
from imgalign.preferences.store import Store
from imgalign.preferences.stored import queued_samples
from imgalign.preferences.wording import counted
from ui.download import zip_folder

Kind: TypeAlias = Literal[ExportFormat, "rankings_and_images"]
NAMES: dict[Kind, str] = {
    "rankings": "All rankings",
    "rankings_and_images": "All rankings, with images",
    "pairs": "Pairs of images",
    "text_pairs": "Pairs of texts",
    "pick_a_pic": "Pick-a-Pic",
    "image_reward_db": "ImageRewardDB",
    "hpd_v2": "HPDv2, ranks",
    "hpd_v2_pairs": "HPDv2, pairs",
    "hpd_v3": "HPDv3",
}
FILES: dict[Kind, str] = {
    "rankings": "rankings.jsonl",
    "text_pairs": "text_pairs.jsonl",
    "pick_a_pic": "pick_a_pic.parquet",
}
"""Those that are no zip."""
ADDRESS = "api/people/files"
"""Of the files, from where the app is served."""


def offered(store: Store, project: str | None) -> list[Kind]:
    """What can be taken home of a project; nothing where nothing is queued."""
    found = queued_samples(store, project) if project else set()
    return [kind for kind in NAMES if found and _of(kind) in (None, *found)]


def choices(store: Store, project: str | None) -> str:
    """The same as HTML, for the script of the page."""
    buttons = "".join(
        f'<button type="button" class="btn" data-take="{ADDRESS}?'
        f'{escape(urlencode({"kind": kind, "project": project}))}">{NAMES[kind]}</button>'
        for kind in offered(store, project)
    )
    if not buttons:
        return ""
    return (
        f'<div class="tools" data-files="{ADDRESS}">{buttons}'
        '<p role="status"></p><p role="alert" hidden></p></div>'
    )


def written(store: Store, project: str, kind: Kind, folder: Path) -> tuple[Path, str]:
    """A new file of a project's rankings in an empty folder, and in words what it holds.

    InputError or StoreError where there is nothing to write.
    """
    made = folder / FILES.get(kind, f"{kind}.zip")
    place = made.with_suffix("") if made.suffix == ".zip" else made
    try:
        with reporting_full_disk(made, "writing the rankings"):
            if kind == "rankings":
                lines = [counted(export_rankings(store, made, project=project), "ranking")]
            elif kind == "rankings_and_images":
                lines = [counted(_write_archive(store, project, made), "ranking")]
            else:
                lines = _write(store, project, kind, place)
                if place != made:
                    zip_folder(made, place)
                    shutil.rmtree(place)
    except ImgalignError as error:
        told = str(error).replace(str(made), f"project {project!r}")
        raise type(error)(told.replace(str(place), f"project {project!r}")) from None
    return made, "; ".join(lines).removeprefix(f"{place}: ")


def _of(kind: Kind) -> Samples | None:
    if kind in ("rankings", "rankings_and_images"):
        return None
    return "texts" if kind == "text_pairs" else "images"


def _write(store: Store, project: str, kind: Kind, place: Path) -> list[str]:
    rankings = chosen_rankings(store, _of(kind) or "images", project=project)
    if kind == "text_pairs":
        return export_text_pairs(rankings, store.text, place).lines()
    if kind == "pairs":
        return export_pairs(rankings, store.image_path, place).lines()
    layout = next(each for each in get_args(FieldFormat) if each == kind)
    return export_field(rankings, store, place, layout=layout).lines()


def _write_archive(store: Store, project: str, file: Path) -> int:
    """All rankings and, as in the images folder, their images; how many rankings."""
    lines = file.with_name("rankings.jsonl")
    num_rankings = export_rankings(store, lines, project=project)
    with zipfile.ZipFile(file, "w") as archive:
        archive.write(lines, lines.name, zipfile.ZIP_DEFLATED)
        for image in values_in(lines, "image", "image_id"):
            path = store.image_path(image)
            archive.write(path, f"images/{path.relative_to(store.images.root).as_posix()}")
    lines.unlink()
    return num_rankings
