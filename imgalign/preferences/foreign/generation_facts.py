"""How an image was made, as its generator wrote it into the file.

Read are AUTOMATIC1111 and Forge (`parameters`, in PNG text or EXIF), ComfyUI (`prompt` or
`workflow`), InvokeAI (`invokeai_metadata`, `sd-metadata`), SwarmUI and Fooocus (JSON in
`parameters`), and any JSON object with the argument names of a diffusers pipeline. The formats are
documented nowhere but in those programs; what is not understood is None. Pure functions of text.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import PureWindowsPath
from typing import Any

from imgalign.files import parse_json
from imgalign.preferences.foreign.image_files import LARGEST_CAPTION, one_line

LARGEST_NUMBER = 2**31 - 1
SEEDS = 2**63
WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".sft")
EXTRA_NETWORK = re.compile(r"<(?:lora|lyco|hypernet):([^<>:]{1,200})(?::([^<>]{0,100}))?>")
"""AUTOMATIC1111 takes LoRAs from the text of the prompt. Example: "<lora:pixel-art:0.8>"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationFacts:
    """What is known of how an image was made; texts are one line, and None is unknown."""

    prompt: str | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    """From 0 to 2**63 - 1; larger ones lose their highest bit, see `seed_of`."""
    steps: int | None = None
    guidance_scale: float | None = None
    sampler: str | None = None
    """As the program calls it. Example: "Euler a", "dpmpp_2m karras"."""
    model: str | None = None
    """Name of the file of weights, without its folder and ending."""
    adapter: str | None = None
    """Example: "pixel-art:0.8, more-details:1"."""

    def __or__(self, other: "GenerationFacts") -> "GenerationFacts":
        """These facts, and where they are unknown the other's."""
        both = {
            field.name: (
                getattr(other, field.name)
                if getattr(self, field.name) is None
                else getattr(self, field.name)
            )
            for field in fields(self)
        }
        return GenerationFacts(**both)


def parse_parameters(text: str) -> GenerationFacts:
    """AUTOMATIC1111's and Forge's text: prompt, "Negative prompt: ...", "Steps: 20, Seed: ...".

    The settings are the last line that begins with "Steps: ", and those after it.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    starts = [number for number, line in enumerate(lines) if line.lstrip().startswith("Steps: ")]
    end = starts[-1] if starts else len(lines)
    settings = parse_settings(" ".join(lines[end:]))
    before = lines[:end]
    negative = next(
        (n for n, line in enumerate(before) if line.lstrip().startswith("Negative prompt:")), end
    )
    prompt, adapter = without_networks(" ".join(before[:negative]))
    unwanted = " ".join(before[negative:]).lstrip().removeprefix("Negative prompt:")
    schedule = settings.get("Schedule type", "Automatic")
    sampler = " ".join(
        [settings.get("Sampler", ""), schedule if schedule not in ("Automatic", "Normal") else ""]
    )
    return GenerationFacts(
        prompt=text_of(prompt),
        negative_prompt=text_of(unwanted),
        seed=seed_of(settings.get("Seed")),
        steps=steps_of(settings.get("Steps")),
        guidance_scale=scale_of(settings.get("CFG scale")),
        sampler=text_of(sampler),
        model=weights_name(settings.get("Model")),
        adapter=adapter,
    )


def parse_settings(text: str) -> dict[str, str]:
    """The settings of `Steps: 20, Sampler: Euler a, ControlNet 0: "Module: none, Weight: 1"`.

    The first of several with one name; values in quotes are JSON text and may hold anything.
    """
    found: dict[str, str] = {}
    position = 0
    while (colon := text.find(":", position)) >= 0:
        name = text[position:colon].rpartition(",")[2].strip()
        start = colon + 1
        while text[start : start + 1].isspace():
            start += 1
        if text[start : start + 1] == '"':
            end = _end_of_quotes(text, start)
            value = _unquoted(text[start:end])
        else:
            comma = text.find(",", start)
            end = comma if comma >= 0 else len(text)
            value = text[start:end].strip()
        found.setdefault(name, value)
        position = max(end, colon + 1)
    return found


def without_networks(prompt: str) -> tuple[str, str | None]:
    """A prompt without the tags of LoRAs, and those. Example: ("a cat", "pixel-art:0.8")."""
    found = [
        f"{match[1].strip()}:{(match[2] or '1').strip()}"
        for match in EXTRA_NETWORK.finditer(prompt)
    ]
    if not found:
        return prompt, None
    parts = [part.strip() for part in EXTRA_NETWORK.sub("", prompt).split(",")]
    return ", ".join(part for part in parts if part), ", ".join(found)


def parse_invokeai(text: str) -> GenerationFacts:
    """InvokeAI's `invokeai_metadata`, or `sd-metadata` of version 2."""
    values = json_object(text)
    image = values.get("image")
    if isinstance(image, dict):
        found = image.get("prompt")
        if isinstance(found, list) and found and isinstance(found[0], dict):
            found = found[0].get("prompt")
        named = {**image, "prompt": found, "model": values.get("model_weights")}
        return facts_of(named)
    loras = values.get("loras")
    adapters = [
        f"{name}:{_shown(each.get('weight'))}"
        for each in (loras if isinstance(loras, list) else [])
        if isinstance(each, dict) and (name := _model_name(each.get("model") or each.get("lora")))
    ]
    return facts_of({**values, "adapter": ", ".join(adapters)})


def parse_json_parameters(text: str) -> GenerationFacts:
    """JSON in `parameters`: SwarmUI's in an object of its own, Fooocus's and others' at the top."""
    values = json_object(text)
    inner = values.get("sui_image_params")
    return facts_of(inner if isinstance(inner, dict) else values)


NAMES: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt", "positive_prompt", "full_prompt"),
    "negative_prompt": ("negative_prompt", "negativeprompt", "uc"),
    "seed": ("seed", "noise_seed"),
    "steps": ("steps", "num_inference_steps"),
    "guidance_scale": ("guidance_scale", "cfg_scale", "cfgscale", "cfg", "scale"),
    "sampler": ("sampler", "sampler_name", "scheduler"),
    "model": ("model", "base_model", "model_name"),
    "adapter": ("adapter",),
}
"""Under which names programs write these; the first that is there counts."""


def facts_of(values: Mapping[str, Any]) -> GenerationFacts:
    """The facts in an object, under any of `NAMES`."""
    found = {
        fact: next((values[name] for name in names if values.get(name) not in (None, "")), None)
        for fact, names in NAMES.items()
    }
    return GenerationFacts(
        prompt=text_of(found["prompt"]),
        negative_prompt=text_of(found["negative_prompt"]),
        seed=seed_of(found["seed"]),
        steps=steps_of(found["steps"]),
        guidance_scale=scale_of(found["guidance_scale"]),
        sampler=text_of(found["sampler"]),
        model=_model_name(found["model"]),
        adapter=text_of(found["adapter"]),
    )


def json_object(text: str) -> dict[str, Any]:
    """The object that a text is; empty for anything else, and for what is nested too deeply."""
    try:
        value = parse_json(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def text_of(value: object) -> str | None:
    """One line of text; None for anything else, for nothing and for more than a prompt."""
    line = one_line(value) if isinstance(value, str) else ""
    return line if 0 < len(line) <= LARGEST_CAPTION else None


def seed_of(value: object) -> int | None:
    """A seed that fits 63 bits.

    ComfyUI's have up to 64. The generator that it takes noise from looks at the low 32 bits only,
    so leaving the highest bit out changes no image.
    """
    number = _whole(value)
    return None if number is None or not 0 <= number < 2 * SEEDS else number % SEEDS


def steps_of(value: object) -> int | None:
    """A number of denoising steps."""
    number = _whole(value)
    return number if number is not None and 1 <= number <= LARGEST_NUMBER else None


def scale_of(value: object) -> float | None:
    """A guidance scale."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and 0 <= number <= LARGEST_NUMBER else None


def weights_name(value: object) -> str | None:
    r"""The name of a file of weights. Example: r"Flux\\flux1-dev.safetensors" is "flux1-dev"."""
    text = text_of(value)
    if text is None:
        return None
    path = PureWindowsPath(text)  # which splits at both kinds of slash
    return (path.stem if path.suffix.lower() in WEIGHTS else path.name) or None


def _model_name(value: object) -> str | None:
    if isinstance(value, dict):
        value = value.get("name") or value.get("model_name") or value.get("key")
    return weights_name(value)


def _whole(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,20}\s*", value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _shown(value: object) -> str:
    number = scale_of(value)
    return "1" if number is None else f"{number:g}"


def _unquoted(text: str) -> str:
    try:
        return str(parse_json(text))
    except ValueError:
        return text.strip('"')


def _end_of_quotes(text: str, start: int) -> int:
    """The position after the quotes that begin at `start`; the end where they are not closed."""
    position = start + 1
    while position < len(text):
        if text[position] == "\\":
            position += 2
        elif text[position] == '"':
            return position + 1
        else:
            position += 1
    return len(text)
