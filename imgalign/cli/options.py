"""Options that several commands share."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from imgalign.preferences.records import SamplerSettings

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[SECTION.KEY=VALUE]...", help="Settings to change.")
]
FirstSeed = Annotated[int, typer.Option(min=0, help="Seed of the first image; counts up.")]
Model = Annotated[
    str,
    typer.Option(help='"storybook", a folder in diffusers\' layout, a file, or a hub name.'),
]
ModelUnder = Annotated[
    str | None,
    typer.Option(help="storybook, a folder, a file or a hub name; the run's if not given."),
]
Taste = Literal["cosy", "dreamy", "graphic"]
Adapter = Annotated[
    Path | None, typer.Option(help="A run, one of its checkpoints, or a LoRA file or folder.")
]
Strength = Annotated[
    float,
    typer.Option(
        help="How strongly the adapter, a LoRA, is applied, 0 to 2: 1 is as it was trained."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")]
Steps = Annotated[int, typer.Option(min=1, help="Denoising steps per image.")]
Guidance = Annotated[float, typer.Option(help="Classifier-free guidance; 1 is off.")]
Eta = Annotated[float, typer.Option(help="Noise added by the sampler, 0 to 1.")]
Scheduler = Annotated[
    str, typer.Option(help="ddim, model for the model's own, or e.g. dpmpp_2m, euler_a, unipc.")
]
Database = Annotated[
    str | None,
    typer.Option(help="SQLAlchemy URL; IMGALIGN_DATABASE or imgalign.db here if not given."),
]
Images = Annotated[
    Path | None,
    typer.Option(help="Folder of original images; the database records it, so once is enough."),
]
Create = Annotated[
    bool, typer.Option("--create", help="Create the database and its images folder if missing.")
]
Project = Annotated[str, typer.Option(help="Queue within the database.")]
Group = Annotated[str | None, typer.Option(help="Only rankings by annotators of this group.")]
JudgedBy = Annotated[
    Literal["people", "ai", "all"],
    typer.Option(
        help="Rankings by people (and simulated annotators), by AI judges, or all, mixed."
    ),
]
Locked = Annotated[
    str,
    typer.Option(
        help="Words and phrases to keep, separated by commas; content for every word that says "
        "something of the image, or none."
    ),
]
PromptTexts = Annotated[
    list[str] | None, typer.Option("--prompt", help="A prompt; may be repeated.")
]
PromptFile = Annotated[Path | None, typer.Option(help="Text file with one prompt per line.")]


def sampler_of(*, steps: int, guidance: float, eta: float, scheduler: str) -> "SamplerSettings":
    """The sampler's options as one value; ConfigError if one is out of range."""
    from imgalign.config import checked
    from imgalign.preferences.records import SamplerSettings

    return checked(
        SamplerSettings,
        num_inference_steps=steps,
        guidance_scale=guidance,
        eta=eta,
        scheduler=scheduler,
    )


def changed(command: Callable[..., None], values: Mapping[str, object]) -> dict[str, object]:
    """Options by the name they have on the command line; None for those at their default."""
    parameters = inspect.signature(command).parameters
    return {
        f"--{name.replace('_', '-')}": None if value == parameters[name].default else value
        for name, value in values.items()
    }


def refuse_given(options: Mapping[str, object], when: str) -> None:
    """InputError for the options that were given though they have no effect."""
    from imgalign.errors import InputError

    given = sorted(name for name, value in options.items() if value is not None)
    if given:
        them = "it" if len(given) == 1 else "them"
        raise InputError(f"{', '.join(given)}: without effect {when}; leave {them} out")
