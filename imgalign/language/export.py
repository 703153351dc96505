"""Exporting what was trained of a language model for plain peft or transformers, with a card.

A LoRA goes out as it lies in the checkpoint, which is peft's layout, or merged into its model; all
weights are a whole model already. Left out: the folder (runs/exporting.py), and what the card says
(report/card.py).
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file

from imgalign.environment import dtype_named
from imgalign.errors import InputError
from imgalign.files import read_json
from imgalign.language.loading import LanguageModel, load_language_model, quiet
from imgalign.language.weights import read_adapter, read_tensors, switch_on
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
from imgalign.runs.model_names import hub_name
from imgalign.runs.trained import ADAPTER_SETTINGS, LANGUAGE_ADAPTER, find_weights

FORMATS: tuple[Layout, ...] = ("peft", "transformers", "merged")
WHOLE: tuple[Layout, ...] = ("transformers", "merged")
"""A model that needs no adapter; both names are the same layout."""


def export_language(
    asked: Path,
    layout: Layout,
    *,
    card: Callable[[Export], str],
    out: Path | None = None,
    model: str | None = None,
    dtype: ExportDType | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Export:
    """Write what was trained for plain peft or transformers; `card` gives the text of README.md.

    `asked` is what `find_weights` takes: of a run, its best checkpoint. `out` is the folder, in the
    run or beside the weights if not given. `model` is the base model, by default the run's. `dtype`
    is that of the exported weights: as trained, which is float32, by default. InputError where
    `out` holds something else than an unchanged export, and for a layout that cannot hold what was
    trained; CheckpointError where nothing was or it does not fit the model.
    """
    found = find_weights(asked)
    is_lora = (found / LANGUAGE_ADAPTER).is_file()
    refuse_layout(found, layout, is_lora=is_lora)
    target = target_of(found, layout, out)
    on_progress(0.0)
    base = model or model_under(asked)
    number = torch.float32 if dtype is None else dtype_named(dtype)
    loaded = whole_model(base if is_lora else str(found), found if is_lora else None)
    made = Export(
        layout=layout,
        folder=target,
        name=name_of(found),
        weights=LANGUAGE_ADAPTER if layout == "peft" else "",
        source=found,
        choice=choice_of(asked, found),
        model=base,
        network="language model",
        samples="texts",
        **(facts_of(found) if is_lora else {"layers": (), "ranks": (), "alphas": ()}),
    )
    with exporting(made, card) as folder:
        if layout == "peft":
            write_adapter(found, folder, dtype=number, base=hub_name(base))
        else:
            model_of(loaded).to(number)
            with quiet():
                model_of(loaded).save_pretrained(folder)
                loaded.tokenizer.save_pretrained(folder)
    on_progress(1.0)
    return made


def refuse_layout(found: Path, layout: Layout, *, is_lora: bool) -> None:
    """InputError for a layout of models of images, and for all weights as an adapter."""
    if layout not in FORMATS:
        fitting = FORMATS if is_lora else WHOLE
        raise InputError(
            f"export {layout}: {found} is of a language model; use --format "
            f"{', '.join(fitting[:-1])} or {fitting[-1]}"
        )
    if layout == "peft" and not is_lora:
        raise InputError(
            f"export peft: {found} has all weights of the model and no adapter; use --format "
            "transformers or merged, a whole model"
        )


def whole_model(name: str, adapter: Path | None) -> LanguageModel:
    """A model in float32 on the CPU, with the LoRA of a folder in its weights.

    CheckpointError for one that does not fit.
    """
    loaded = load_language_model(name, device=torch.device("cpu"))
    if adapter is not None:
        switch_on(loaded.model, adapter)
        merge(loaded.model)
    return loaded


def merge(model: Any) -> None:
    """Add every LoRA to the weight that it is on, and take it away: no trace of peft is left."""
    adapted = [(name, each) for name, each in model.named_modules() if is_adapted(each)]
    for name, layer in adapted:
        layer.merge()
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def is_adapted(module: object) -> bool:
    """Whether peft has put an adapter on a layer."""
    return isinstance(module, BaseTunerLayer)


def model_of(loaded: LanguageModel) -> Any:
    """The model, whose methods the library gives no types."""
    return loaded.model


def facts_of(found: Path) -> dict[str, Any]:
    """The layers of a LoRA, their rank and their alpha."""
    matrices, settings = read_adapter(found)
    end = ".lora_A.weight"
    return {
        "layers": tuple(sorted(name.removesuffix(end) for name in matrices if name.endswith(end))),
        "ranks": (settings.r,),
        "alphas": (float(settings.lora_alpha),),
    }


def write_adapter(found: Path, folder: Path, *, dtype: torch.dtype, base: str | None) -> None:
    """Write a LoRA as it lies in a checkpoint, naming its model where that is on the hub."""
    tensors = {
        name: value.to(dtype).contiguous()
        for name, value in read_tensors(found / LANGUAGE_ADAPTER).items()
    }
    save_file(tensors, folder / LANGUAGE_ADAPTER, metadata={"format": "pt"})
    settings = read_json(found / ADAPTER_SETTINGS) | {"base_model_name_or_path": base}
    text = json.dumps(settings, indent=2, sort_keys=True)
    (folder / ADAPTER_SETTINGS).write_text(f"{text}\n", encoding="utf-8")
