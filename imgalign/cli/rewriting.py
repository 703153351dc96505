"""`imgalign rewrite`: prompts rewritten by a language model."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imgalign.cli.options import Device, Locked, PromptFile, PromptTexts

if TYPE_CHECKING:
    from imgalign.language.differences import Part
    from imgalign.language.rewriting import Rewrite, RewritingConfig

COLOURS = {"kept": None, "added": "green", "removed": "red"}


def rewrite(
    prompt: PromptTexts = None,
    prompts: PromptFile = None,
    out: Annotated[
        Path | None,
        typer.Option(help="JSON lines of prompts and rewrites, for ranking or fine-tuning."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(help="storybook, a folder or a hub name, or a run of a language model."),
    ] = "storybook",
    lock: Locked = "content",
    n: Annotated[int, typer.Option("--n", min=1, help="Rewrites to try of each prompt.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first try; counts up.")] = 0,
    temperature: Annotated[float, typer.Option(help="Of sampling; lower is more alike.")] = 0.7,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(help="Tokens of a rewrite; else as the run samples, 64 without a run."),
    ] = None,
    template: Annotated[
        str, typer.Option(help="What the model is asked, with {prompt} in it.")
    ] = "{prompt}",
    append: Annotated[
        bool, typer.Option("--append", help="The answer goes on where the prompt ends.")
    ] = False,
    reward: Annotated[
        str | None, typer.Option(help="Reward model of texts that picks the best; else the first.")
    ] = None,
    image_model: Annotated[
        str | None, typer.Option(help="Image model that must be able to read the whole rewrite.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Rewrite prompts with a language model, keeping their words."""
    from imgalign.config import checked
    from imgalign.files import write_atomically
    from imgalign.language.locking import check_lock, parse_lock
    from imgalign.language.rewriting import RewritingConfig, load_rewriter
    from imgalign.prompts import chosen_prompts
    from imgalign.runs.progress import progress

    texts = chosen_prompts(prompt or (), prompts)
    words = parse_lock(lock)
    check_lock(words, texts)
    refuse_other_file(out)
    config = checked(
        RewritingConfig,
        tries=n,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        template=template,
        appends=append,
    )
    scored = None if reward is None else load_text_reward(reward, device=device)
    unread = None if image_model is None else reader_of(image_model)
    with progress("rewriting") as on_progress:
        rewriter = load_rewriter(model, config, device=device)
        found = rewriter.rewrite(
            texts, seed=seed, lock=words, unread=unread, reward=scored, on_progress=on_progress
        )
    if out is not None:
        used = rewriter.config
        rows = [json.dumps(row_of(each, used, model=model), ensure_ascii=False) for each in found]
        write_atomically(out, "".join(f"{row}\n" for row in rows))
    for each in found:
        typer.echo(each.text)
        typer.echo("\n".join(explained(each)), err=True)


def refuse_other_file(out: Path | None) -> None:
    """InputError for a folder, a file in a folder that there is not, and one of another kind."""
    from imgalign.errors import InputError

    if out is None:
        return
    if out.is_dir():
        raise InputError(f"{out}: expected a file to write rewrites to, got a folder")
    if not out.absolute().parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; make it first")
    if out.exists() and not holds_rewrites(out):
        raise InputError(f"{out}: exists and holds no rewrites; choose another name")


def holds_rewrites(file: Path) -> bool:
    """Whether it is empty or begins as `rewrite` writes it."""
    try:
        with file.open(encoding="utf-8") as lines:
            first = json.loads(lines.readline(2**20) or "null")
    except (OSError, ValueError):
        return False
    return first is None or (isinstance(first, dict) and {"completions", "locked"} <= first.keys())


def load_text_reward(name: str, *, device: str) -> Any:
    """A reward model of texts; InputError for one of images."""
    import reward_models
    from reward_models.evaluate import check_samples

    found = reward_models.load(name, device=device)
    check_samples(found, "texts", name=name)
    return found


def reader_of(image_model: str) -> Any:
    """A function from a text to its end that an image model does not read."""
    from imgalign.diffusion.loading import plan_family

    return plan_family(image_model).cut_text


def row_of(rewrite: "Rewrite", config: "RewritingConfig", *, model: str) -> dict[str, Any]:
    """A line of the file, in TRL's column names.

    `completion` is the rewrite, `completions` all that keep the locked words.
    """
    return {
        "prompt": rewrite.prompt,
        "completion": rewrite.text,
        "completions": [each.text for each in rewrite.candidates],
        "rewards": [each.reward for each in rewrite.candidates],
        "prompt_reward": rewrite.prompt_reward,
        "locked": rewrite.locked,
        "difference": rewrite.difference,
        "left_out": [
            {"text": each.text, "seeds": each.seeds, "reason": each.reason, "detail": each.detail}
            for each in rewrite.left_out
        ],
        "model": model,
        "temperature": config.temperature,
        "max_new_tokens": config.max_new_tokens,
    }


def explained(rewrite: "Rewrite") -> list[str]:
    """What a rewrite changed, and what became of the tries, for standard error."""
    return [f"  {line}" for line in (coloured(rewrite.difference), *rewrite.lines())]


def coloured(parts: "Sequence[Part]") -> str:
    """A difference with its marks, in colour where standard error is a terminal that wants it."""
    from imgalign.language.differences import MARKS, marked

    if not sys.stderr.isatty() or os.environ.get("NO_COLOR"):
        return marked(parts)
    return "".join(
        part.indent + typer.style(part.words.join(MARKS[part.kind]), fg=COLOURS[part.kind])
        for part in parts
    )
