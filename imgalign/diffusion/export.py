"""Exporting what was trained for other tools: a folder in their layout, with a model card.

A folder of an export has `export.json`, which lists its files by their hashes. It is written as a
whole or not at all, and replaced only where it is an earlier export that nobody has changed since.
Left out: the layouts (layouts.py), and what the card says (report/card.py).
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from safetensors import safe_open

from imgalign import __version__
from imgalign.diffusion.adapters import (
    LORA_FILE,
    PEFT_CONFIG,
    Component,
    Layer,
    adapter_file,
    read_layers,
)
from imgalign.diffusion.families.backbone import Family
from imgalign.diffusion.families.table import family_of
from imgalign.diffusion.full_weights import read_network
from imgalign.diffusion.layouts import (
    PEFT_FILE,
    check_one_network,
    kohya_header,
    write_diffusers,
    write_kohya,
    write_peft,
)
from imgalign.diffusion.loading import load_pipeline
from imgalign.diffusion.merging import merge
from imgalign.diffusion.model_names import hub_name, public_name
from imgalign.diffusion.saving import save_network, save_pipeline
from imgalign.environment import dtype_named
from imgalign.errors import InputError
from imgalign.files import (
    check_folder,
    lock_name,
    read_json,
    recover_folder,
    replace_folder,
    reporting_full_disk,
    sha256,
    sync_tree,
    unfinished_folder,
)
from imgalign.runs.checkpoint import checkpoints, read_marker, step_of
from imgalign.runs.folder import model_under, run_of
from imgalign.runs.metric_table import METRICS
from imgalign.runs.trained import find_weights, full_weights, weights_hash

Layout: TypeAlias = Literal["diffusers", "peft", "kohya", "merged"]
ExportDType: TypeAlias = Literal["float32", "float16", "bfloat16"]

FOLDER = "export"
"""In a run, or beside an adapter from elsewhere."""
RECORD = "export.json"
CARD = "README.md"
MERGED = 0.5
"""Share of the progress at which all layers are merged; saving is the rest."""


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
    """Its denoising network, by the name that its pipeline gives it."""
    layers: tuple[str, ...]
    """Of the adapter; none where all weights were trained."""
    ranks: tuple[int, ...]
    """All there are, smallest first."""
    alphas: tuple[float, ...]

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


def export_weights(
    asked: Path,
    layout: Layout,
    *,
    card: Callable[[Export], str],
    out: Path | None = None,
    model: str | None = None,
    dtype: ExportDType | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Export:
    """Write what was trained in another tool's layout; `card` gives the text of README.md.

    `asked` is what `find_weights` takes: of a run, its best checkpoint. `out` is the folder, in the
    run or beside the adapter if not given. `model` is the base model, by default the run's.
    `dtype` is that of the exported weights: as trained by default, and float32 for a merged model.
    `on_progress` gets the share that is done, in [0, 1].

    InputError where `out` holds something else than an unchanged export, or where the layout cannot
    hold what was trained; CheckpointError where nothing was or it does not fit the model.
    """
    found = find_weights(asked)
    whole = full_weights(found)
    if whole is not None:
        refuse_layout(found, layout)
    name = name_of(found)
    target = out or place_of(found) / FOLDER / f"{name}-{layout}"
    check_folder(target)
    refuse_foreign(target)
    on_progress(0.0)
    base = model or model_under(asked)
    family = family_of(load_pipeline(base, device=torch.device("cpu")))
    layers = [] if whole else read_layers(adapter_file(found), family.adaptable)
    if layout == "peft":
        check_one_network(layers, family.network_name)
    made = Export(
        layout=layout,
        folder=target,
        name=name,
        weights=weights_in(layout, name, network=None if whole is None else whole.name),
        source=found,
        choice=choice_of(asked, found),
        model=base,
        network=family.network_name,
        layers=tuple(layer.name for layer in layers),
        ranks=tuple(sorted({layer.rank for layer in layers})),
        alphas=tuple(sorted({layer.alpha for layer in layers})),
    )
    number = None if dtype is None else dtype_named(dtype)
    with reserved(target), whole_folder(target) as folder:
        if whole is None:
            write_adapter(made, folder, layers, family, number, on_progress)
        else:
            write_full(made, folder, whole, family, number or torch.float32)
        (folder / CARD).write_text(card(made), encoding="utf-8")
        write_record(made, folder)
    on_progress(1.0)
    return made


def refuse_layout(found: Path, layout: Layout) -> None:
    """InputError for all weights of a network in a layout of adapters."""
    if layout in ("peft", "kohya"):
        raise InputError(
            f"export {layout}: {found} has all weights of the network and no adapter; use --format"
            " merged, a whole model, or diffusers, the network alone"
        )


def weights_in(layout: Layout, name: str, *, network: str | None) -> str:
    """The file of an adapter in its folder, or the folder of a `network`; empty for a model."""
    match layout:
        case "diffusers":
            return LORA_FILE if network is None else network
        case "peft":
            return PEFT_FILE
        case "kohya":
            return f"{name}.safetensors"
        case "merged":
            return ""


def write_adapter(
    made: Export,
    folder: Path,
    layers: list[Layer],
    family: Family,
    dtype: torch.dtype | None,
    on_progress: Callable[[float], None],
) -> None:
    """Fill the folder with what the layout has."""
    match made.layout:
        case "diffusers" if dtype is None and is_diffusers(made, layers, family.adaptable):
            shutil.copyfile(adapter_file(made.source), folder / LORA_FILE)
        case "diffusers":
            write_diffusers(layers, folder / LORA_FILE, dtype=dtype)
        case "peft":
            write_peft(layers, folder, dtype=dtype, base=hub_name(made.model))
        case "kohya":
            header = kohya_header(layers, family, name=made.name, base=public_name(made.model))
            path = folder / made.weights
            write_kohya(layers, family.adaptable, path, dtype=dtype, header=header)
        case "merged":
            num_merged = 0

            def on_layer() -> None:
                nonlocal num_merged
                num_merged += 1
                on_progress(MERGED * num_merged / len(layers))

            merge(layers, family.adaptable, on_layer=on_layer)
            save_pipeline(family, folder, dtype=dtype or torch.float32)


def write_full(made: Export, folder: Path, whole: Path, family: Family, dtype: torch.dtype) -> None:
    """Fill the folder with the network alone, or with the pipeline that has it."""
    parameters = dict(family.network.named_parameters())
    values = read_network(whole, parameters, network_name=family.network_name)
    for name, parameter in parameters.items():
        parameter.data = values.pop(name)
    if made.layout == "merged":
        save_pipeline(family, folder, dtype=dtype)
    else:
        save_network(family.network, folder / family.network_name, dtype=dtype)


def is_diffusers(made: Export, layers: list[Layer], components: list[Component]) -> bool:
    """Whether the adapter's file is a whole one in diffusers' layout, to be exported as it is."""
    path = adapter_file(made.source)
    with safe_open(path, "pt") as file:
        names = list(file.keys())
    prefixes = tuple(f"{component.name}." for component in components)
    own = all(name.startswith(prefixes) for name in names)
    return own and path.name == LORA_FILE and len(names) == 2 * len(layers)


def name_of(adapter: Path) -> str:
    """A name for what is exported, of letters that prompts of AUTOMATIC1111 may have."""
    place = adapter.resolve()
    if is_checkpoint(adapter):
        name = f"{place.parent.name}-{place.name}"
    elif place.is_file():
        name = place.parent.name if (place.parent / PEFT_CONFIG).is_file() else place.stem
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
    """Write export.json. Example of its files: `{"README.md": "5e.."}`, names and SHA-256."""
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


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """An empty folder that becomes `target` once it is filled; the caller holds the target."""
    unfinished = unfinished_folder(target)
    with reporting_full_disk(target, "exporting"):
        try:
            unfinished.mkdir(parents=True)
            yield unfinished
            sync_tree(unfinished)
            replace_folder(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
