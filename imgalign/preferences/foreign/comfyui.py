"""How an image was made, from the graph of nodes that ComfyUI writes into it.

`prompt` is the graph that ran: {"3": {"class_type": "KSampler", "inputs": {"seed": 5, "positive":
["6", 0]}}}, where a list of a node and an output is a link. `workflow` is what the editor showed;
it is read where there is no `prompt`, for the nodes in `WIDGETS`. Nodes of extensions are read as
far as their inputs have the usual names. Every walk visits a node once.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from imgalign.preferences.foreign.generation_facts import (
    GenerationFacts,
    json_object,
    scale_of,
    seed_of,
    steps_of,
    text_of,
    weights_name,
)
from imgalign.preferences.foreign.image_files import LARGEST_CAPTION

MOST_NODES = 5000
MOST_VISITS = 20_000
DEEPEST = 100
Graph = Mapping[str, Mapping[str, Any]]
"""Inputs of each node by its id; the class is under `CLASS`."""

CLASS = "class_type"
MUTED, BYPASSED = 2, 4
"""Modes of nodes of the editor: as if not there, and handing on what comes in."""
SAVING = ("SaveImage", "PreviewImage", "Image Save", "SaveAnimatedWEBP")
TEXTS = ("populated_text", "text", "text_g", "text_l", "t5xxl", "clip_l", "clip_g", "prompt")
"""Inputs of nodes that encode text."""
STRINGS = ("populated_text", "text", "string", "value", "prompt", "wildcard_text", "STRING", "")
"""Inputs of nodes that give text."""
NUMBERS = ("seed", "value", "noise_seed", "int", "number")
WEIGHTS = ("ckpt_name", "unet_name", "model_name")
"""Inputs of nodes that load a model."""
ASIDE = ("model", "clip", "vae", "control_net", "image", "latent_image", "samples")
"""Inputs of a node of conditioning that lead away from its text."""
NO_IMAGES = (
    "model",
    "clip",
    "vae",
    "control_net",
    "positive",
    "negative",
    "conditioning",
    "guider",
)
"""Inputs that lead away from the image that a node changes."""

WIDGETS: dict[str, tuple[str, ...]] = {
    "KSampler": ("seed", "", "steps", "cfg", "sampler_name", "scheduler"),
    "KSamplerAdvanced": ("", "noise_seed", "", "steps", "cfg", "sampler_name", "scheduler"),
    "SamplerCustom": ("", "noise_seed", "", "cfg"),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps"),
    "RandomNoise": ("noise_seed",),
    "CFGGuider": ("cfg",),
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeFlux": ("clip_l", "t5xxl", "guidance"),
    "PrimitiveString": ("value",),
    "PrimitiveStringMultiline": ("value",),
    "PrimitiveInt": ("value",),
    "PrimitiveNode": ("value",),
    "CheckpointLoader": ("", "ckpt_name"),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "UNETLoader": ("unet_name",),
    "LoraLoader": ("lora_name", "strength_model"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
}
"""Names of the values that a node of the editor keeps as a bare list; "" is one not used here."""


def parse_prompt(text: str) -> GenerationFacts:
    """Facts from ComfyUI's `prompt`."""
    nodes = json_object(text)
    graph = {
        key: {**node["inputs"], CLASS: node.get(CLASS)}
        for key, node in list(nodes.items())[:MOST_NODES]
        if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
    }
    return facts_in(graph)


def parse_workflow(text: str) -> GenerationFacts:
    """Facts from ComfyUI's `workflow`."""
    workflow = json_object(text)
    nodes, links = workflow.get("nodes"), workflow.get("links")
    if not isinstance(nodes, list) or not isinstance(links, list):
        return GenerationFacts()
    sources = dict(_sources(links[: 10 * MOST_NODES]))
    graph = {}
    for node in nodes[:MOST_NODES]:
        muted = isinstance(node, dict) and node.get("mode") == MUTED
        if isinstance(node, dict) and not muted and isinstance(kind := node.get("type"), str):
            graph[str(node.get("id"))] = {**_values(kind, node, sources), CLASS: kind}
    return facts_in(graph)


def facts_in(graph: Graph) -> GenerationFacts:
    """What the sampler that began the saved image was given.

    Of several in a row, such as a second pass on the enlarged image, that is the first, whose noise
    the image was made from; what it does not tell is taken from the later ones.
    """
    reader = GraphReader(graph)
    facts = GenerationFacts()
    for sampler in samplers(graph):
        facts = facts | reader.facts(graph[sampler])
    return facts


class GraphReader:
    """Follows links through a graph, a bounded number of times altogether."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.visits_left = MOST_VISITS

    def facts(self, sampler: Mapping[str, Any]) -> GenerationFacts:
        """What a sampler was given, directly or by the nodes that newer samplers are split into."""
        guider = {**self.at(sampler.get("guider")), **sampler}
        chosen = {**self.at(sampler.get("sampler")), **self.at(sampler.get("sigmas")), **sampler}
        noise = {**self.at(sampler.get("noise")), **sampler}
        names = [self.text(chosen.get(name)) for name in ("sampler_name", "scheduler")]
        model, adapter = self.model(guider.get("model"))
        wanted = guider.get("positive", guider.get("conditioning"))
        return GenerationFacts(
            prompt=text_of(self.conditioning(wanted, "positive")),
            negative_prompt=text_of(self.conditioning(guider.get("negative"), "negative")),
            seed=seed_of(self.number(noise.get("seed", noise.get("noise_seed")))),
            steps=steps_of(self.number(chosen.get("steps"))),
            guidance_scale=scale_of(self.number(guider.get("cfg"))),
            sampler=text_of(" ".join(name for name in names if name != "normal")),
            model=model,
            adapter=adapter,
        )

    def at(self, value: object) -> Mapping[str, Any]:
        """The node that a link leads to; an empty one where there is none, or no visit is left."""
        self.visits_left -= 1
        source = _link(value)
        return self.graph.get(source, {}) if source is not None and self.visits_left > 0 else {}

    def conditioning(self, value: object, side: str, depth: int = 0) -> str:
        """The text behind a link to conditioning, joined where several are combined.

        `side` is which of two to follow where a node has both: "positive" or "negative".
        """
        node = self.at(value)
        if not node or depth > DEEPEST or "ZeroOut" in str(node.get(CLASS)):
            return ""
        if side in node:
            both = node[side]
            return (
                _short(both) if isinstance(both, str) else self.conditioning(both, side, depth + 1)
            )
        texts = [self.text(node[name]) for name in TEXTS if name in node]
        if any(texts):
            return _joined(texts)
        onwards = [each for name, each in node.items() if name not in ASIDE and _link(each)]
        return _joined([self.conditioning(each, side, depth + 1) for each in onwards])

    def text(self, value: object, depth: int = 0) -> str:
        """Text, or the text behind a link."""
        if isinstance(value, str):
            return _short(value)
        node = self.at(value)
        if depth > DEEPEST:
            return ""
        if "oncat" in str(node.get(CLASS)):
            between = node.get("delimiter", node.get("separator", " "))
            names = [name for name in sorted(node) if name not in (CLASS, "delimiter", "separator")]
            parts = [self.text(node[name], depth + 1) for name in names]
            return _short(str(between).join(part for part in parts if part))
        found = (self.text(node[name], depth + 1) for name in STRINGS if name in node)
        return next(filter(None, found), "")

    def number(self, value: object, depth: int = 0) -> object:
        """A number, or the number behind a link."""
        if _link(value) is None:
            return value
        node = self.at(value)
        name = next((name for name in NUMBERS if name in node), None)
        return None if name is None or depth > DEEPEST else self.number(node[name], depth + 1)

    def model(self, value: object) -> tuple[str | None, str | None]:
        """The name of the weights behind a link to a model, and the LoRAs on the way."""
        loras: list[str] = []
        found = None
        while found is None and (node := self.at(value)):
            if (name := weights_name(self.text(node.get("lora_name")))) is not None:
                strength = scale_of(self.number(node.get("strength_model")))
                loras.append(f"{name}:{1 if strength is None else strength:g}")
            names = (weights_name(self.text(node.get(key))) for key in WEIGHTS)
            found = next(filter(None, names), None)
            value = node.get("model", node.get(""))
        return found, ", ".join(reversed(loras)) or None


def samplers(graph: Graph) -> list[str]:
    """Ids of the samplers behind a saved image, the first in time first; else of all there are."""
    saved = [key for key, node in graph.items() if str(node.get(CLASS)).startswith(SAVING)]
    found = [key for key in _upstream(graph, saved) if _is_sampler(graph[key])]
    return found[::-1] or [key for key in graph if _is_sampler(graph[key])]


def _is_sampler(node: Mapping[str, Any]) -> bool:
    given = "positive" in node and {"seed", "noise_seed", "sampler_name"} & node.keys()
    return "latent_image" in node and bool(given or "guider" in node)


def _upstream(graph: Graph, starts: list[str]) -> Iterator[str]:
    """Nodes whose latents or images these depend on, nearest first."""
    waiting, seen = list(starts), set(starts)
    for key in waiting:
        yield key
        for name, value in graph[key].items():
            source = _link(value)
            if source in graph and source not in seen and name not in NO_IMAGES:
                assert source is not None
                seen.add(source)
                waiting.append(source)


def _link(value: object) -> str | None:
    """The node that a link leads to, None for a value. Example: "6" of ["6", 0]."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int):
        return str(value[0])
    return None


def _joined(texts: list[str]) -> str:
    """Different texts in order, with commas."""
    return _short(", ".join(dict.fromkeys(text.strip() for text in texts if text.strip())))


def _short(text: str) -> str:
    """Nothing for what is longer than a prompt: a graph can double a text at each node."""
    return text if len(text) <= LARGEST_CAPTION else ""


def _sources(links: list[Any]) -> Iterator[tuple[object, list[Any]]]:
    """Where each link of a workflow comes from: [id, node, output, ...] or an object."""
    for link in links:
        if isinstance(link, dict):
            link = [link.get(name) for name in ("id", "origin_id", "origin_slot")]
        if isinstance(link, list) and len(link) >= 3 and isinstance(link[0], int | str):
            yield link[0], [str(link[1]), link[2]]


def _values(kind: str, node: Mapping[str, Any], sources: Mapping[Any, list[Any]]) -> dict[str, Any]:
    """Inputs of a node of the editor: the values it keeps, then its links."""
    kept, inputs = node.get("widgets_values"), node.get("inputs")
    if node.get("mode") == BYPASSED:
        kept = {}
    elif not isinstance(kept, dict):
        pairs = zip(WIDGETS.get(kind, ()), kept if isinstance(kept, list) else (), strict=False)
        kept = {name: value for name, value in pairs if name}
    linked = {
        str(each.get("name")): sources[each["link"]]
        for each in (inputs if isinstance(inputs, list) else ())
        if isinstance(each, dict)
        and isinstance(each.get("link"), int | str)
        and each["link"] in sources
    }
    return {**kept, **linked}
