"""The folders of which `app_screenshots.py` takes pictures, each made from one that was worked in.

Annotators here are simulated and judge through the store, and runs are started as the app starts
them: one fails for want of its reward model, another is killed.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import combinations
from pathlib import Path

from app_walk import GROUP, OVERRIDES, RECIPE, imgalign

from imgalign.errors import InputError
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.attention import add_attention
from imgalign.preferences.exclusions import exclude
from imgalign.preferences.gold import mark_gold
from imgalign.preferences.guidelines import set_guidelines
from imgalign.preferences.repeats import ask_again
from imgalign.preferences.resets import Resets
from imgalign.preferences.store import Store
from imgalign.preferences.stored import item_samples
from imgalign.storybook.annotators import Habits
from imgalign.storybook.scenes import evaluation_prompts
from imgalign.storybook.simulate import annotators_of, rank_queue
from ui.batches import Batches
from ui.runs import Runs

JUDGED, OPEN, GOLD = 24, 8, 4
"""Sets that others judge, sets left for the pictures, and gold items among the former."""
GUIDELINES = (
    "First the prompt: what it names must be there.\nThen light and mood, as you like them."
)
PASSWORD = "four odd green words"
SCORED, ITERATIONS = "storybook_grpo", 9
"""A recipe that needs a reward model, and how far a run comes before it is killed."""
COMPARED, OPEN_PAIRS = 14, 2
"""Prompts of which three makers' images are compared, and of these the ones left to be judged."""
LIKES, TEXTS, PAIRS = "likes", "texts", "default-compare"
"""Projects of one image a set, of texts, and of pairs."""
HASTY = Habits(temperature=0.6, position_bias=0.5, lapse=0.5)
"""Of somebody who hardly looks."""
WRITTEN = {
    "Two sentences about a fox who waits for the snow": (
        "The fox sits at the edge of the wood and smells the air. Tomorrow, it says, the field "
        "will be white.",
        "A fox waits. Snow comes.",
        "Every evening the fox counts the leaves that are left on the oak. When there are none, it "
        "curls up under the roots, and the first flake falls on its nose.",
        "As a helpful narrator I would be glad to tell you about a fox! Foxes are small mammals "
        "that live in many countries, and snow is frozen water. In conclusion, the fox waited.",
    ),
    "A title for a picture book about a lighthouse": (
        "The Lamp That Stayed Awake",
        "Lighthouse Book",
        "Good Night, Ships",
        "A Comprehensive Story about a Lighthouse and Its Many Interesting Properties",
    ),
}
"""Prompts and four texts of each, to be ranked."""


@dataclass(frozen=True)
class Folder:
    """One to be served, with the tokens of links and sessions that lead into it."""

    path: Path
    tokens: Mapping[str, str] = field(default_factory=dict)


def folders(studio: Path, within: Path) -> Mapping[str, Callable[[], Folder]]:
    """How each is made, by name, each once; those that follow `worked` are made from it."""
    made: dict[str, Folder] = {}

    def once(name: str, make: Callable[[Path], Mapping[str, str] | None]) -> Callable[[], Folder]:
        def get() -> Folder:
            if name not in made:
                made[name] = Folder(within / name, make(within / name) or {})
            return made[name]

        return get

    worked = once("worked", lambda path: enrich(copy(studio, path)))

    def after(name: str, make: Callable[[Path], Mapping[str, str] | None]) -> Callable[[], Folder]:
        return once(name, lambda path: make(copy(worked().path, path)))

    return {
        "empty": once("empty", lambda path: path.mkdir()),
        "worked": worked,
        "several": after("several", add_projects),
        "guarded": after("guarded", add_people),
        "failed": after("failed", fail_runs),
        "waiting": after("waiting", lambda path: None),
    }


def copy(studio: Path, path: Path) -> Path:
    """A copy to be changed."""
    shutil.copytree(studio, path)
    return path


def opened(folder: Path) -> Store:
    """The store of a folder."""
    return Store.open(f"sqlite:///{folder / 'imgalign.db'}")


def run(folder: Path, *arguments: str) -> None:
    """A command of imgalign there."""
    subprocess.run(imgalign(*arguments), cwd=folder, check=True)


def candidates(folder: Path, name: str, prompts: Sequence[str], *more: str) -> None:
    """Images of these prompts, queued."""
    (folder / name).write_text("\n".join(prompts) + "\n", encoding="utf-8")
    run(folder, "candidates", "--prompts", name, "--steps", "10", *more)


def enrich(folder: Path) -> None:
    """What one person's walk leaves empty: other annotators, gold items, a reward, open sets."""
    prompts = evaluation_prompts(JUDGED + OPEN, seed=77, held_out=False)
    candidates(folder, "judged.txt", prompts[:JUDGED], "--overlap", "3", "--seed", "50000")
    run(folder, "storybook", "rank", "--group", GROUP, "--annotators", "3", "--seed", "1")
    with opened(folder) as store:
        answers = {
            each.item_id: each.ranking
            for each in store.rankings()
            if each.prompt in prompts and len(each.ranking or ()) > 1
        }
        for item, answer in list(answers.items())[:GOLD]:
            assert answer is not None
            mark_gold(store, item, answer)
        set_guidelines(store.database, "default", GUIDELINES)
    candidates(folder, "open.txt", prompts[JUDGED:], "--seed", "60000")
    run(folder, "reward", "train", "--out", "runs/taste")


def add_projects(folder: Path) -> None:
    """Single images and texts to be judged, and pairs of three makers, most of them judged."""
    prompts = evaluation_prompts(COMPARED, seed=78)
    steps = sorted((folder / "runs" / RECIPE).glob("step-*"))
    makers: list[list[str]] = []
    for adapter in (None, steps[0], steps[-1]):
        more = [] if adapter is None else ["--adapter", str(adapter.relative_to(folder))]
        name = "base" if adapter is None else adapter.name
        listed = [*more, "--item-list", f"{name}.items", "--seed", "70000"]
        candidates(
            folder, "compared.txt", prompts, "--per-prompt", "1", "--project", LIKES, *listed
        )
        with opened(folder) as store:
            items = item_samples(store, (folder / f"{name}.items").read_text().split())
            makers.append([each.sample_ids[0] for each in items])
    lines = [
        json.dumps({"prompt": prompt, "completions": list(texts)})
        for prompt, texts in WRITTEN.items()
    ]
    (folder / "written.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    run(folder, "candidates", "--texts", "written.jsonl", "--model", "written", "--project", TEXTS)
    of_prompts = list(zip(prompts, zip(*makers, strict=True), strict=True))
    with opened(folder) as store:
        queue_pairs(store, of_prompts[:-OPEN_PAIRS], overlap=2)
        rank_queue(store, annotators_of(GROUP, 2, seed=1), project=PAIRS)
        queue_pairs(store, of_prompts[-OPEN_PAIRS:], overlap=1)


def queue_pairs(
    store: Store, of_prompts: Sequence[tuple[str, Sequence[str]]], *, overlap: int
) -> None:
    """All pairs of the images of each prompt."""
    for prompt, images in of_prompts:
        for pair in combinations(images, 2):
            store.add_item(prompt, pair, source="makers", project=PAIRS, overlap=overlap)


def add_people(folder: Path) -> Mapping[str, str]:
    """Accounts of all roles, somebody who hardly looks, attention items, and sets asked again."""
    with opened(folder) as store:
        (hasty,) = annotators_of(GROUP, 1, seed=5, habits=HASTY)
        add_attention(store, "default", count=4, overlap=5, seed=1)
        ask_again(store, "default", count=6, overlap=5, seed=1)
        everybody = [replace(hasty, name="hasty"), *annotators_of(GROUP, 3, seed=1)]
        for annotator in everybody:
            rank_queue(store, [annotator])
        exclude(store.database, "hasty", project="default")
        people = Accounts(store.database)
        ida = people.add("Ida Sommer", PASSWORD, role="admin", group="default")
        people.add("Lea", PASSWORD, role="lead", group="default")
        people.add("Zoe", PASSWORD, role="annotator", group="default")
        people.add("Maximilian Oberhuber", PASSWORD, role="annotator", group="dreamy")
        people.add("Tom", PASSWORD, role="annotator", group="default")
        people.disable("Tom", by=ida)
        resets = Resets(store.database)
        ended = resets.link("Zoe", by=ida)
        return {
            "invitation": people.invite(role="annotator", group="default", by=ida),
            "old invitation": people.invite(
                role="annotator", group="default", by=ida, lasts=timedelta(seconds=-1)
            ),
            "ended reset": ended,
            "reset": resets.link("Zoe", by=ida),  # ends the one before
            "admin": people.login("Ida Sommer", PASSWORD),
            "lead": people.login("Lea", PASSWORD),
        }


def fail_runs(folder: Path) -> None:
    """A run whose reward model is gone, and one that is killed after some iterations."""
    runs = Runs(folder / "runs", database=f"sqlite:///{folder / 'imgalign.db'}")
    gone = folder / "runs" / "gone"
    runs.launch(Path(f"{SCORED}.yaml"), name=SCORED, overrides=[f"reward.path={gone}"])
    wait_for(lambda: not runs.processes.alive(SCORED))
    quick = [OVERRIDES, "run.measure_every=2", "run.checkpoint_every=4", "run.samples.every=4"]
    runs.launch(Path(f"{RECIPE}.yaml"), name="killed", overrides=quick)
    launch = runs.processes.launched("killed")
    assert launch is not None
    wait_for(lambda: runs.run("killed").step >= ITERATIONS or not runs.processes.alive("killed"))
    os.kill(launch.pid, signal.SIGKILL)  # as a machine does that has no memory left
    wait_for(lambda: not runs.processes.alive("killed"))


def end_batches(folder: Path) -> None:
    """Stop what still makes candidates there, or waits."""
    batches = Batches(Runs(folder / "runs"))
    for batch in batches.all():
        with suppress(InputError):  # it has ended
            batches.stop(batch.name)
    wait_for(lambda: not any(map(batches.processes.alive, batches.processes.names())))


def wait_for(done: Callable[[], bool]) -> None:
    """Look twice a second."""
    while not done():
        time.sleep(0.5)
