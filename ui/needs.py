"""What a recipe still needs before it can be started: a reward model, rankings, a folder.

Looked up without torch, so that the page has its list of recipes at once; checks.py makes the exact
checks when a run is started.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from imgalign.config import recipes as shipped_recipes
from imgalign.errors import ImgalignError, InputError
from imgalign.preferences.coverage import ProjectRankings, judged_projects
from imgalign.preferences.records import holds_comparisons
from imgalign.preferences.store import Store
from ui import checks, recipes
from ui.recipes import Recipe
from ui.runs import Runs

LEARNS_FROM = {
    "rankings": "rankings",
    "text_rankings": "a file of rankings",
    "folder": "a folder of pairs",
    "table": "a table of pairs",
    "images": "images",
    "labelled": "texts that were liked or not",
    "completions": "its own examples",
}
"""What `data.from` means to somebody who chooses; other kinds have their own name."""
LIKES = "likes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A recipe as the page offers it."""

    name: str
    goal: str
    """What somebody wants who takes it. Example: "Quick taste"."""
    line: str
    """What it needs, what it gives, and what is still missing, in a sentence each."""
    needs: str
    """Example: "a reward model"; empty where it can be started."""
    makes_texts: bool = False


def offered(runs: Runs) -> list[Offered]:
    """All recipes: those that can be started now first, one's own before the shipped ones."""
    there = Present(runs)
    found = [_offer(name, there) for name in recipes.names()]
    order = list(recipes.GOALS)
    shipped = {path.stem for path in shipped_recipes()}

    def place(each: Offered) -> tuple[bool, bool, int]:
        known = order.index(each.name) if each.name in order else len(order)
        return bool(each.needs), each.name in shipped, known

    return sorted(found, key=place)


def first_choice(found: Sequence[Offered]) -> str | None:
    """The recipe to begin with: one of images that can be started, else the one for visitors."""
    names = {each.name for each in found}
    ready = [each.name for each in found if not each.needs and not each.makes_texts]
    usual = recipes.FIRST if recipes.FIRST in names else next(iter(names), None)
    return ready[0] if ready else usual


class Lack(NamedTuple):
    """What the recipe for visitors still needs, and whether it comes from the Rank page."""

    said: str
    of_rank: bool


def missing_at_first(runs: Runs) -> Lack | None:
    """None where the recipe for visitors can start, or the one for those who liked images."""
    recipe, there = recipes.read(recipes.FIRST), Present(runs)
    lacks = there.lacking(recipe)
    if not lacks or not there.lacking(recipes.read(recipes.LIKES)):
        return None
    said = f"The recipe to begin with, {recipe.goal}, still needs {' and '.join(lacks)}."
    return Lack(said, "rankings" in lacks)


def _offer(name: str, there: "Present") -> Offered:
    try:
        recipe = recipes.read(name)
    except ImgalignError:
        # The page says what is wrong with it.
        return Offered(name=name, goal=name, line="It cannot be read.", needs="")
    needs = " and ".join(there.lacking(recipe))
    gives = f"Gives {recipe.gives}." if name in recipes.GOALS else f"{recipe.gives}."
    said = [
        f"Needs {wanted(recipe)}.",
        gives if recipe.gives else "",
        needs and f"Missing: {needs}.",
    ]
    return Offered(
        name=name,
        goal=recipe.goal,
        line=" ".join(each for each in said if each),
        needs=needs,
        makes_texts=recipe.makes_texts,
    )


def wanted(recipe: Recipe) -> str:
    """What a recipe learns from, as a noun. Example: "rankings, no reward model"."""
    if recipe.needs_reward:
        return f"a reward model of {recipe.scored}"
    if recipe.of_likes:
        return f"{LIKES}{' of texts' if recipe.makes_texts else ''}, no reward model"
    of = " of texts" if recipe.makes_texts and recipe.source == "rankings" else ""
    return f"{LEARNS_FROM.get(recipe.source, recipe.source)}{of}, no reward model"


class Present:
    """What there is to learn from: kinds of reward models, kinds of rankings, folders."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.rewards = {checks.scores_of(path) for path in runs.rewards()}
        judged = [each for each in learnable(runs.database) if not holds_comparisons(each.project)]
        self.rankings = {each.samples for each in judged if each.compared}
        self.likes = {each.samples for each in judged if each.liked}

    def lacking(self, recipe: Recipe) -> list[str]:
        """What a recipe still needs, each as a noun."""
        found = []
        reward, data, policy = (recipe.section(each) for each in ("reward", "data", "policy"))
        missing = reward.get("path") is None and recipe.scored not in self.rewards
        if recipe.needs_reward and missing:
            found.append(f"a reward model{' of texts' if recipe.scored == 'texts' else ''}")
        samples = str(data.get("samples", "images"))
        elsewhere = data.get("database") is not None
        learned, there = ("rankings", self.rankings)
        if recipe.of_likes:
            # One's own recipe may be meant for rankings, which teach it as well.
            own = recipe.name not in recipes.GOALS
            learned, there = LIKES, self.likes | (self.rankings if own else set())
        if recipe.source == "rankings" and samples not in there and not elsewhere:
            found.append(f"{learned}{' of texts' if samples == 'texts' else ''}")
        for key in ("folder", "file"):
            if data.get(key) is not None and not Path(str(data[key])).expanduser().exists():
                found.append(f"the {key} {data[key]}")
        try:
            model = str(policy.get("model", "storybook"))
            checks.refuse_missing_model("policy.model", model, runs=self.runs)
        except InputError:
            found.append(f"the model {model}")
        return found


def learnable(database: str | None) -> list[ProjectRankings]:
    """What people have judged; nothing without a database."""
    try:
        with Store.open(database, create=False) as store:
            return judged_projects(store)
    except (ImgalignError, OSError):
        return []
