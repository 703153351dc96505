"""LoRAs that people were sent, as files of the app: held against its model, kept, removed.

Each lies in a folder of its own beside the runs, `.loras/NAME`, as its file would lie anywhere: the
matrices, the settings of peft if they came with it, and which model they were found to fit. Forms
name it ".loras/NAME", where a checkpoint of a run is "RUN/step-000040": no run is called so.

A name from outside never becomes a path, and nothing but safetensors is opened, so that no file can
run code. Left out: the route that takes a file (api/loras.py), and the page (pages/lora_files.py).
"""

import json
import os
import secrets
import shutil
import threading
import time
import zipfile
from pathlib import Path, PurePosixPath

from safetensors import safe_open

from imgalign.errors import CheckpointError, InputError
from imgalign.files import read_json, reporting_full_disk, sha256
from imgalign.runs.folder import model_under
from imgalign.runs.trained import ADAPTER, ADAPTER_SETTINGS, LANGUAGE_ADAPTER, weight_files
from ui.image_request import LORAS, checkpoint_folder, checkpoints
from ui.libraries import load_libraries
from ui.runs import Runs
from ui.uploads import DAY, copy_member, opened_zip, safe_name, shown_name

SUFFIX = ".safetensors"
LARGEST = 2**30
"""Bytes of a file, as it comes and unpacked; LoRAs of SDXL and FLUX take a few hundred million."""
LARGEST_SETTINGS = 2**20
MOST = 100
MOST_BYTES = 8 * 2**30
"""Of all of them together."""
MOST_MEMBERS = 1000
FACTS = "lora.json"
NEW = ".new-"
"""What the folder of a file that is coming in begins with."""
CURE = "name its path on a command line instead: `imgalign generate --adapter`"

_ONE_AT_A_TIME = threading.Lock()  # each is read into memory


class Loras:
    """The LoRAs beside some runs; new ones are held against `model`."""

    def __init__(self, runs: Runs, model: str) -> None:
        self.runs = runs
        self.folder = runs.folder / LORAS
        self.model = model

    def names(self) -> list[str]:
        """All of them, the newest first."""
        return [path.name for path in sorted(self._all(), key=_newest_first)]

    def offered(self) -> list[tuple[str, str]]:
        """(label, value) of what can be compared: the base, checkpoints, and these."""
        sent = ((name, f"{LORAS}/{name}") for name in self.names())
        return [*checkpoints(self.runs, self.model), *sent]

    def path(self, name: str) -> Path:
        """The folder of one; InputError for a name that is none here."""
        path = next((each for each in self._all() if each.name == name), None)
        if path is None:
            raise InputError(f"{shown_name(name)}: no such LoRA any more; choose another")
        return path

    def model_of(self, name: str) -> str:
        """The model that it was held against."""
        path = self.path(name) / FACTS
        try:
            model = read_json(path)["model"]
        except (OSError, ValueError, KeyError, TypeError):
            model = None
        if not isinstance(model, str):
            raise InputError(f"{name}: damaged; remove it, and send its file again")
        return model

    def begin(self) -> Path:
        """A new folder for a file that comes in; the caller removes it. What a kill left goes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(f"{NEW}*"):
            if time.time() - left.stat().st_mtime > DAY:
                shutil.rmtree(left, ignore_errors=True)
        folder = self.folder / f"{NEW}{secrets.token_hex(8)}"
        folder.mkdir()
        return folder

    def take(self, sent: Path, name: str) -> str:
        """Keep a file that has come in whole under a name, or that of a zip; what it is called.

        `sent` lies in a folder of `begin`. The same file again is one. InputError, and nothing of
        it is kept, where it is no LoRA of the model.
        """
        safe = safe_name(name)
        called = PurePosixPath(safe).stem
        made = sent.parent / "made"
        made.mkdir()
        with reporting_full_disk(made, "saving the upload"):
            if safe.lower().endswith(".zip"):
                _unpack(sent, made, name)
            elif safe.lower().endswith(SUFFIX):
                sent.replace(made / ADAPTER)
            else:
                raise InputError(
                    f"{shown_name(name)}: expected a LoRA as a {SUFFIX} file, or a zip with one as "
                    "an export of this app is"
                )
            with _ONE_AT_A_TIME:
                self._check(made, name)
                return self._keep(made, called, name)

    def remove(self, name: str) -> None:
        """Remove one; images that were made with it stay. InputError where it is gone."""
        aside = self.folder / f"{NEW}{secrets.token_hex(8)}"
        try:
            self.path(name).rename(aside)
        except OSError as error:
            raise InputError(f"{name}: cannot be removed ({error.strerror})") from None
        shutil.rmtree(aside, ignore_errors=True)

    def _all(self) -> list[Path]:
        try:
            found = list(self.folder.iterdir())
        except OSError:
            return []
        return [each for each in found if not each.name.startswith(".") and each.is_dir()]

    def _check(self, made: Path, name: str) -> None:
        load_libraries()
        from imgalign.diffusion.generate import check_adapter

        try:
            check_adapter(self.model, made)
        except CheckpointError as error:
            said = str(error)
            for place in (*weight_files(made), made / ADAPTER_SETTINGS, made):
                said = said.replace(f"{place}: ", "")
            raise InputError(
                f"{shown_name(name)}: expected a LoRA of the model {self.model}, got another file: "
                f"{said}"
            ) from None
        if not (made / ADAPTER_SETTINGS).is_file() and _of_peft(made / ADAPTER):
            raise InputError(
                f"{shown_name(name)}: expected {ADAPTER_SETTINGS} beside it, which says how "
                "strongly a file of peft is applied; send a zip of both"
            )

    def _keep(self, made: Path, called: str, name: str) -> str:
        (weights,) = weight_files(made)
        there = self._all()
        for each in there:
            if _content(each) == _content(made):
                return each.name
        size = sum(file.stat().st_size for each in there for file in each.iterdir())
        if len(there) >= MOST or size + weights.stat().st_size > MOST_BYTES:
            raise InputError(
                f"{shown_name(name)}: expected at most {MOST} LoRAs of {MOST_BYTES >> 30} GB in "
                "all, got more; remove some first"
            )
        (made / FACTS).write_text(json.dumps({"model": self.model}), encoding="utf-8")
        if (self.folder / called).exists():
            raise InputError(
                f"{shown_name(name)}: there is another LoRA of that name; rename the file, or "
                "remove that one"
            )
        os.rename(made, self.folder / called)
        return called


def weights_of(runs: Runs, chosen: str, *, model: str) -> tuple[Path, str]:
    """Where the weights are that a form names, and the model that they are for."""
    place, _, name = chosen.partition("/")
    if place == LORAS:
        loras = Loras(runs, model)
        return loras.path(name), loras.model_of(name)
    folder = checkpoint_folder(runs, chosen)
    return folder, model_under(folder)


def _newest_first(path: Path) -> tuple[float, str]:
    try:
        return -path.stat().st_mtime, path.name
    except OSError:  # removed meanwhile
        return 0.0, path.name


def _of_peft(file: Path) -> bool:
    """Whether its matrices have the names that peft gives them in a file of its own."""
    with safe_open(file, "np") as content:
        return any(name.startswith("base_model.model.") for name in content.keys())  # noqa: SIM118


def _content(folder: Path) -> list[str]:
    files = [*weight_files(folder), folder / ADAPTER_SETTINGS]
    return [sha256(file) if file.is_file() else "" for file in files]


def _unpack(archive: Path, made: Path, name: str) -> None:
    """The one LoRA of an archive, and the settings of peft beside it."""
    with opened_zip(archive, name) as content:
        members = content.infolist()
        matrices = [each for each in members if _called(each).lower().endswith(SUFFIX)]
        if len(matrices) != 1 or len(members) > MOST_MEMBERS:
            raise InputError(
                f"{shown_name(name)}: expected one {SUFFIX} file in it, as an export of this app "
                f"has, got {len(matrices)}"
            )
        beside = [each for each in members if _called(each) == ADAPTER_SETTINGS][:1]
        cure = "send a smaller one"
        for each in beside:
            settings = made / ADAPTER_SETTINGS
            copy_member(content, each, settings, most=LARGEST_SETTINGS, cure=cure)
        file = made / (LANGUAGE_ADAPTER if beside else ADAPTER)
        copy_member(content, matrices[0], file, most=LARGEST, cure=cure)


def _called(member: zipfile.ZipInfo) -> str:
    """The last part of its name; hidden files have none: macOS packs them beside others."""
    name = PurePosixPath(member.filename).name
    return "" if name.startswith(".") or member.is_dir() else name
