"""How an image file was made, as far as the file itself tells."""

import re
from collections.abc import Mapping

from imgalign.preferences.foreign.comfyui import parse_prompt, parse_workflow
from imgalign.preferences.foreign.embedded_text import embedded_texts
from imgalign.preferences.foreign.generation_facts import (
    GenerationFacts,
    facts_of,
    parse_invokeai,
    parse_json_parameters,
    parse_parameters,
)

PARSERS = (
    ("parameters", parse_parameters),
    ("invokeai_metadata", parse_invokeai),
    ("sd-metadata", parse_invokeai),
    ("prompt", parse_prompt),
    ("workflow", parse_workflow),
    ("Comment", parse_json_parameters),  # NovelAI
)
"""By keyword, those first that need the least interpretation."""


def generation_of(content: bytes) -> GenerationFacts:
    """The facts in an image file, from the first description with a prompt; all may be unknown."""
    texts = embedded_texts(content)
    found = GenerationFacts()
    for keyword, parse in PARSERS:
        text = texts.get(keyword)
        if text is None:
            continue
        if keyword == "parameters" and text.lstrip().startswith("{"):
            parse = parse_json_parameters
        facts = parse(text)
        if facts.prompt is not None:
            return facts
        found = found | facts
    return plain_facts(texts) | found


def plain_facts(texts: Mapping[str, str]) -> GenerationFacts:
    """Facts that a script around diffusers wrote one by one: a text each for prompt, seed, ..."""
    if re.match(r"\s*\{\s*[\"}]", texts.get("prompt", "")):  # ComfyUI's graph, whole or damaged
        return GenerationFacts()
    return facts_of({keyword.lower(): text for keyword, text in texts.items()})
