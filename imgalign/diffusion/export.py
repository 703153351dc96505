"""Exporting what was trained of a model of images: a folder in another tool's layout, with a card.

Left out: the folder (runs/exporting.py), the layouts (layouts.py), and what the card says
(report/card.py).
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open

from imgalign.diffusion.adapters import (
    LORA_FILE,
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
from imgalign.diffusion.saving import save_network, save_pipeline
from imgalign.environment import dtype_named
from imgalign.errors import InputError
from imgalign.runs.exporting import (
    Export,
    ExportDType,
    Layout,
    choice_of,
    exporting,
    name_of,
    target_of,
)
from imgalign.runs.folder import model_under
from imgalign.runs.model_names import hub_name, public_name
from imgalign.runs.trained import find_weights, full_weights

MERGED = 0.5
"""Share of the progress at which all layers are merged; saving is the rest."""


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
    refuse_layout(found, layout, whole=whole is not None)
    name = name_of(found)
    target = target_of(found, layout, out)
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
    with exporting(made, card) as folder:
        if whole is None:
            write_adapter(made, folder, layers, family, number, on_progress)
        else:
            write_full(made, folder, whole, family, number or torch.float32)
    on_progress(1.0)
    return made


def refuse_layout(found: Path, layout: Layout, *, whole: bool) -> None:
    """InputError for a layout of language models, and for all weights in one of adapters."""
    if layout == "transformers":
        raise InputError(
            f"export transformers: {found} makes images; use --format diffusers, peft, kohya or "
            "merged"
        )
    if whole and layout in ("peft", "kohya"):
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
        case "merged" | "transformers":
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
