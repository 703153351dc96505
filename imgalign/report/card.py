"""The model card beside what was exported: where it comes from, how good it is, how to use it.

It says what the run knows and nothing else, and no folder of this machine. The license is left for
its owner to fill in.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from imgalign import __version__
from imgalign.config import load_config, plain, settings_of
from imgalign.diffusion.config import DiffusionConfig
from imgalign.diffusion.model_names import STORYBOOK
from imgalign.errors import ImgalignError
from imgalign.evaluate.evaluation import Evaluation, evaluation_folder, load_evaluation
from imgalign.evaluate.votes import VoteResult, kept_votes
from imgalign.language.config import LanguageConfig
from imgalign.language.loading import STORYBOOK as LANGUAGE
from imgalign.report.private import without_folders
from imgalign.runs.exporting import Export, is_checkpoint, span
from imgalign.runs.folder import CONFIG, SHIPPED, run_of, run_prompts
from imgalign.runs.model_names import hub_name, public_name
from imgalign.runs.trained import weights_hash
from imgalign.train.config import TrainConfig

log = logging.getLogger(__name__)

LICENSE = "license:  # yours to fill in; the license of the base model applies as well\n"
FOLDER = "path/to/this/folder"
BASE = "path/to/the/base/model"
SHIPPED_FOLDER = STORYBOOK.relative_to(STORYBOOK.parents[3]).as_posix()
SHIPPED_LANGUAGE = LANGUAGE.relative_to(LANGUAGE.parents[3]).as_posix()


def model_card(made: Export, *, votes: Sequence[VoteResult] | None = None) -> str:
    """The card as Markdown, with the header that the Hugging Face hub reads.

    `votes` are people's on these weights and their base; those that are kept if it is not given.
    """
    votes = kept_votes(made.source) if votes is None else votes
    run = run_of(made.source)
    settings = None if run is None else settings_of_run(run)
    parts = [
        header(made),
        introduction(made),
        "## Training\n\n" + "\n".join(training(made, settings)),
        "## Evaluation\n\n" + "\n".join(evaluation(made, votes)),
        "## Use\n\n" + "\n".join(use(made, settings)),
    ]
    return "\n\n".join(parts) + "\n"


def header(made: Export) -> str:
    """The card's metadata."""
    library, task = (
        ("transformers", "text-generation")
        if made.samples == "texts"
        else ("diffusers", "text-to-image")
    )
    facts: dict[str, Any] = {
        "library_name": "peft" if made.layout == "peft" else library,
        "pipeline_tag": task,
        "tags": [task, "imgalign", *([] if is_whole(made) or not made.layers else ["lora"])],
    }
    if base := hub_name(made.model):
        facts["base_model"] = base
    return f"---\n{LICENSE}{yaml.safe_dump(facts, sort_keys=False)}---"


def is_whole(made: Export) -> bool:
    """Whether it is a model that needs no adapter."""
    return made.layout in ("merged", "transformers")


def introduction(made: Export) -> str:
    """What this is."""
    base = code(public_name(made.model))
    if is_whole(made):
        changed = "a LoRA merged into its weights" if made.layers else f"its {made.network} trained"
        what = f"The model {base} with {changed}"
    else:
        what = f"{'A LoRA' if made.layers else f'A trained {made.network}'} for {base}"
    return f"# {made.name}\n\n{what}, exported by imgalign {__version__}."


def training(made: Export, settings: TrainConfig | None) -> Iterator[str]:
    """What it was trained on, as far as the run tells."""
    yield "| | |"
    yield "|---|---|"
    yield f"| base model | {code(public_name(made.model))} |"
    if made.layers:
        yield f"| adapter | {made.what} and alpha {span(made.alphas)} |"
    else:
        yield f"| trained | {made.what} |"
    run = run_of(made.source)
    if is_checkpoint(made.source):
        chosen = f", {cell(made.choice)}" if made.choice else ""
        yield f"| checkpoint | {code(made.source.name)}{chosen} |"
    if run is None or settings is None:
        yield ""
        yield "No run of imgalign is known for it, so nothing more can be said of its training."
        return
    yield f"| algorithm | {code(settings.algorithm.name)} |"
    yield f"| data | {code(settings.data.source)}, {num_prompts(run)} training prompts |"
    rewarded = settings.reward.path
    yield f"| reward model | {code(public_name(rewarded)) if rewarded else 'none'} |"
    yield ""
    yield "Settings of the recipe that differ from the defaults:"
    yield ""
    for setting in settings_of(TrainConfig, settings):
        # What is left out only says how long the run went on and what it kept.
        if setting.value != setting.default and not setting.path.startswith("run."):
            yield f"- `{setting.path}`: {code(plain(without_folders(setting.value)))}"


def evaluation(made: Export, votes: Sequence[VoteResult]) -> Iterator[str]:
    """The results of comparing this very checkpoint with its base, measured and voted."""
    found = evaluation_of(made.source)
    if found is None and not votes:
        yield "Not evaluated."
    if found is not None:
        yield from measured(found)
    if votes:
        yield from ([] if found is None else [""])
        yield from voted(votes)


def measured(found: Evaluation) -> Iterator[str]:
    """What a judge that is a program says."""
    if found.oracle_meaning:
        yield f"The judge is {cell(found.oracle_meaning)}."
    yield (
        f"{found.samples.capitalize()} of {found.num_prompts} prompts that training did not use,"
        f" {found.images_per_prompt} of each; both sides have the same seeds."
    )
    yield ""
    yield "```text"
    yield from found.lines()
    yield "```"


def voted(votes: Sequence[VoteResult]) -> Iterator[str]:
    """The verdict of blind votes, at each strength at which there are any."""
    yield (
        "Annotators ranked images of both without knowing which is which."
        ' The interval that holds "whenever asked" is of a sequential test over prompts, at 95 %.'
    )
    for each in votes:
        strength = each.aligned.strength
        at = "" if strength == 1 else f" at strength {strength:g}"
        many = "project" if len(each.projects) == 1 else "projects"
        where = f" in the {many} {', '.join(map(code, each.projects))}" if each.projects else ""
        yield ""
        yield f"Votes{at}{where}, counted on {each.counted_at:%Y-%m-%d}:"
        yield ""
        yield "```text"
        yield from each.lines()
        yield "```"


def use(made: Export, settings: TrainConfig | None) -> Iterator[str]:
    """How to use it in other tools."""
    if made.samples == "texts":
        yield from use_of_texts(made, settings)
        return
    yield "There is no trigger word."
    if settings is not None and isinstance(settings.policy, DiffusionConfig):
        scale = settings.policy.guidance_scale
        off = " (off)" if scale == 1 else ""
        yield f"In training, images were sampled with a guidance scale of {scale:g}{off}."
    yield ""
    if made.layout == "kohya":
        yield from in_interfaces(made)
        yield "In diffusers:"
        yield ""
    yield "```python"
    if made.layout == "peft":
        yield "from peft import PeftModel"
    alone = not made.layers and made.layout == "diffusers"
    yield f"from diffusers import {'AutoModel, ' if alone else ''}DiffusionPipeline"
    yield ""
    part = ""
    if alone:
        yield f'network = AutoModel.from_pretrained("{FOLDER}", subfolder="{made.weights}")'
        part = f", {made.network}=network"
    yield f'pipe = DiffusionPipeline.from_pretrained("{source_of(made)}"{part})'
    match made.layout:
        case "diffusers" if alone:
            pass
        case "diffusers":
            yield f'pipe.load_lora_weights("{FOLDER}")'
        case "kohya":
            yield f'pipe.load_lora_weights("{FOLDER}", weight_name="{made.weights}")'
        case "peft":
            network = f"pipe.{made.network}"
            yield f'{network} = PeftModel.from_pretrained({network}, "{FOLDER}")'
    guided = ""
    if settings is not None and isinstance(settings.policy, DiffusionConfig):
        guided = f", guidance_scale={settings.policy.guidance_scale:g}"
    yield f'image = pipe("your prompt"{guided}).images[0]'
    yield "```"


def use_of_texts(made: Export, settings: TrainConfig | None) -> Iterator[str]:
    """How to write with it in plain transformers and peft."""
    sampling = ""
    if settings is not None and isinstance(settings.policy, LanguageConfig):
        own = settings.policy
        sampling = f", max_new_tokens={own.max_new_tokens}, temperature={own.temperature:g}"
        yield (
            f"In training, texts of at most {own.max_new_tokens} tokens were sampled at "
            f"temperature {own.temperature:g}. Prompts go through the tokenizer's chat template "
            "where it has one."
        )
        yield ""
    base = SHIPPED_LANGUAGE if made.model == SHIPPED else hub_name(made.model) or BASE
    place = FOLDER if is_whole(made) else base
    yield "```python"
    if made.layout == "peft":
        yield "from peft import PeftModel"
    yield "from transformers import AutoModelForCausalLM, AutoTokenizer"
    yield ""
    yield f'tokenizer = AutoTokenizer.from_pretrained("{place}")'
    yield f'model = AutoModelForCausalLM.from_pretrained("{place}")'
    if made.layout == "peft":
        yield f'model = PeftModel.from_pretrained(model, "{FOLDER}")'
    yield 'prompt = "your prompt"'
    yield "if tokenizer.chat_template:"
    yield '    message = [{"role": "user", "content": prompt}]'
    yield "    prompt = tokenizer.apply_chat_template("
    yield "        message, add_generation_prompt=True, tokenize=False"
    yield "    )"
    yield "# A chat template has written the begin token already."
    yield "plain = not tokenizer.chat_template"
    yield 'inputs = tokenizer(prompt, add_special_tokens=plain, return_tensors="pt")'
    yield f"found = model.generate(**inputs, do_sample=True{sampling})"
    yield 'response = found[0, inputs["input_ids"].shape[1] :]'
    yield "text = tokenizer.decode(response, skip_special_tokens=True)"
    yield "```"


def in_interfaces(made: Export) -> Iterator[str]:
    """The tools that read kohya's layout, and where they look."""
    yield (
        f"- **ComfyUI**: copy `{made.weights}` to `models/loras` and choose it in a Load LoRA node."
    )
    yield (
        f"- **AUTOMATIC1111, Forge**: copy `{made.weights}` to `models/Lora` and write"
        f" `<lora:{made.name}:1>` in the prompt."
    )
    if made.model == SHIPPED:
        yield ""
        yield (
            "These tools load Stable Diffusion 1 and 2. The base model here is a smaller one that"
            " they do not know, so this file shows the layout and can be drawn with in diffusers."
        )
    yield ""


def source_of(made: Export) -> str:
    """What plain diffusers loads before what was trained."""
    if made.layout == "merged":
        return FOLDER
    return SHIPPED_FOLDER if made.model == SHIPPED else hub_name(made.model) or BASE


def settings_of_run(run: Path) -> TrainConfig | None:
    """The settings of a run; None, with a warning, where this version cannot read them."""
    try:
        return load_config(TrainConfig, run / CONFIG)
    except ImgalignError as error:
        log.warning("%s; the model card says nothing of the training", error)
        return None


def num_prompts(run: Path) -> str:
    """How many prompts the run learned from; in words where that was not kept."""
    try:
        return f"{len(run_prompts(run).training)}"
    except ImgalignError:
        return "an unknown number of"


def evaluation_of(adapter: Path) -> Evaluation | None:
    """The evaluation of an adapter with these very weights, where there is one."""
    folder = evaluation_folder(adapter)
    try:
        found = load_evaluation(folder)
    except ImgalignError:
        return None
    return found if found.aligned.adapter_hash == weights_hash(adapter) else None


def code(text: str) -> str:
    """Text as code in a table of Markdown."""
    return f"`{cell(text.replace('`', chr(39)))}`"


def cell(text: str) -> str:
    """Text in one cell of a table of Markdown, which no mark of its own can leave."""
    return re.sub(r"\s+", " ", text).replace("|", r"\|")
