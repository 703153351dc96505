"""What an export of trained weights is, and its folder, whatever is in it.

A folder of an export has `export.json`, which lists its files by their hashes. It is written as a
whole or not at all, and replaced only where it is an earlier export that nobody has changed since.
Left out: what is written there (diffusion/export.py, language/export.py), and what the card says
(report/card.py).
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from imgalign import __version__
from imgalign.errors import InputError
from imgalign.files import (
    check_folder,
    lock_name,
    read_json,
    recover_folder,
    sha256,
    whole_folder,
)
from imgalign.preferences.records import Samples
from imgalign.runs.checkpoint import checkpoints, read_marker, step_of
from imgalign.runs.folder import run_of
from imgalign.runs.metric_table import METRICS
from imgalign.runs.model_names import public_name
from imgalign.runs.trained import ADAPTER_SETTINGS, weights_hash

Layout: TypeAlias = Literal["diffusers", "peft", "kohya", "merged", "transformers"]
ExportDType: TypeAlias = Literal["float32", "float16", "bfloat16"]

FOLDER = "export"
"""In a run, or beside an adapter from elsewhere."""
RECORD = "export.json"
CARD = "README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What was exported, and where to."""

    layout: Layout
    folder: Path
    name: str
    """Of the exported model. Example: "first-step-000024"."""
    weights: str
    """The file or folder in it that holds what was trained; "" where all of it is a model."""
    source: Path
    """The checkpoint, folder or file that was exported."""
    choice: str
    """Why that one. Example: "the best of 3 checkpoints (held-out reward 0.61)"; "" if named."""
    model: str
    """The base model."""
    network: str
    """What of it was trained, such as "unet", by the name that its pipeline gives it."""
    layers: tuple[str, ...]
    """Of the adapter; none where all weights were trained."""
    ranks: tuple[int, ...]
    """All there are, smallest first."""
    alphas: tuple[float, ...]
    samples: Samples = "images"
    """What the model makes."""

    @property
    def what(self) -> str:
        """Example: "44 layers of rank 2 to 4"."""
        if not self.layers:
            return f"all weights of the {self.network}"
        return f"{len(self.layers)} layers of rank {span(self.ranks)}"

    def lines(self) -> list[str]:
        """What was taken and what was made, for a person."""
        taken = f"{self.source}: {self.choice}" if self.choice else f"{self.source}"
        return [taken, f"{self.folder / self.weights}: {self.what}"]


def span(values: Sequence[float]) -> str:
    """Values in order as text. Example: "2 to 4", or "4" where all are the same."""
    return " to ".join(f"{value:g}" for value in sorted({values[0], values[-1]}))


def name_of(adapter: Path) -> str:
    """A name for what is exported, of letters that prompts of AUTOMATIC1111 may have."""
    place = adapter.resolve()
    if is_checkpoint(adapter):
        name = f"{place.parent.name}-{place.name}"
    elif place.is_file():
        name = place.parent.name if (place.parent / ADAPTER_SETTINGS).is_file() else place.stem
    else:
        name = place.name
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "lora"


def is_checkpoint(adapter: Path) -> bool:
    """Whether it is a checkpoint in a run of imgalign."""
    return run_of(adapter) not in (None, adapter)


def place_of(adapter: Path) -> Path:
    """The run of an adapter, or the folder that one from elsewhere lies in."""
    return run_of(adapter) or (adapter if adapter.is_dir() else adapter.parent)


def choice_of(asked: Path, found: Path) -> str:
    """Why this checkpoint of a run was taken; empty where it was named itself."""
    own = checkpoints(asked)
    if found not in own:
        return ""
    many = f"{len(own)} checkpoints" if len(own) > 1 else "one checkpoint"
    if read_marker(asked, "best") != step_of(found):
        return f"the newest of {many} that can be read; none is marked best"
    facts = [
        f"{METRICS[key].title.lower()} {value:.4g}"
        for key, value in read_json(asked / "best.json").items()
        if key in METRICS and isinstance(value, int | float)
    ]
    return f"the best of {many}" + (f" ({', '.join(facts)})" if facts else "")


# --- the folder, whole or not there


def target_of(found: Path, layout: Layout, out: Path | None) -> Path:
    """Where an export goes; InputError where something else would be lost there."""
    target = out or place_of(found) / FOLDER / f"{name_of(found)}-{layout}"
    check_folder(target)
    refuse_foreign(target)
    return target


@contextmanager
def exporting(made: Export, card: Callable[[Export], str]) -> Iterator[Path]:
    """An empty folder to fill with what is exported.

    It then gets its card and its record, and takes the place that `made` names, as a whole or not
    at all. InputError where something else would be lost there.
    """
    with reserved(made.folder), whole_folder(made.folder, doing="exporting") as folder:
        yield folder
        (folder / CARD).write_text(card(made), encoding="utf-8")
        write_record(made, folder)


@contextmanager
def reserved(target: Path) -> Iterator[None]:
    """Hold `target` for this export; InputError where something else would be lost there."""
    with lock_name(target, doing="exporting to"):
        recover_folder(target)
        refuse_foreign(target)
        yield


def refuse_foreign(target: Path) -> None:
    """InputError unless `target` is new, empty, or an export that is as it was written."""
    if not target.exists() or not any(target.iterdir()):
        return
    known = recorded(target)
    if known is None:
        raise InputError(
            f"{target}: holds files that imgalign export did not make; choose another folder"
        )
    found = {
        path.relative_to(target).as_posix(): path
        for path in target.rglob("*")
        if path.is_file() and path != target / RECORD
    }
    for name in sorted(found):
        if name not in known or sha256(found[name]) != known[name]:
            what = "was changed" if name in known else "came"
            raise InputError(
                f"{target / name}: {what} after the export, and would be lost; move it, or choose"
                " another folder"
            )


def recorded(folder: Path) -> dict[str, str] | None:
    """The hashes of an export's files by their names; None where there is no record of one."""
    try:
        files = read_json(folder / RECORD)["files"]
        return {str(name): str(files[name]) for name in files}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_record(made: Export, folder: Path) -> None:
    """Write export.json, without folders of this machine.

    Example of its files: `{"README.md": "5e.."}`, names and SHA-256.
    """
    files = {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    record = {
        "format": made.layout,
        "imgalign": __version__,
        "adapter": made.name,
        "adapter_sha256": weights_hash(made.source),
        "model": public_name(made.model),
        "files": files,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
