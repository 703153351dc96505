"""Blind votes of annotators on an aligned checkpoint and its base, counted in the store.

An item that holds images of both is a comparison, however it was queued: the app's Generate page
makes such items, and annotators rank them without knowing which side an image is from. A vote is
one annotator's judgement of one item. Where an item holds more than two images, the vote is the
share of its pairs of an aligned and a base image that the aligned one wins. A tie counts half.
Simulated annotators are counted apart; AI judges and images of rewritten prompts do not count. Left
out: generating images, and showing items to annotators.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from imgalign.errors import InputError
from imgalign.evaluate.comparison import interval, percent
from imgalign.evaluate.evaluation import Checkpoint, evaluation_folder, refuse_foreign
from imgalign.evaluate.selection import known_prompts
from imgalign.files import (
    check_folder,
    lock_folder,
    read_json,
    reporting_full_disk,
    write_atomically,
)
from imgalign.preferences.comparisons import compare_makers
from imgalign.preferences.exclusions import num_left_out
from imgalign.preferences.makers import Makers, item_makers, read_makers
from imgalign.preferences.outcomes import Maker
from imgalign.preferences.records import Ranking, Verdict, at_strength, ranks, utc_now
from imgalign.preferences.splits import prompt_key
from imgalign.preferences.store import Store
from imgalign.runs.folder import model_under, run_of
from imgalign.runs.trained import check_strength, find_weights, weights_hash
from imgalign.statistics import Estimate, TwoWay, clustered_rate, two_way_rate

log = logging.getLogger(__name__)

FILE = "votes.json"
SEED = 0
"""Seed of the bootstrap behind intervals over prompts alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One annotator's judgement of one comparison.

    Example: share 1.0 says that the aligned image was put first, 0.5 that both tie, and None that
    the annotator called all images bad or skipped the item.
    """

    prompt: str
    annotator: str
    verdict: Verdict
    share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteCounts:
    """Numbers of votes, and how often the aligned image is preferred."""

    rate: Estimate | None
    """Mean over votes, a tie counting half; None where no vote has an order. The interval is over
    prompts and annotators, and needs several of both to be narrow; with a single annotator it is
    over prompts alone."""
    rate_of_these_annotators: Estimate | None
    """The same, with an interval over prompts alone."""
    num_wins: int
    """Votes with a share above one half."""
    num_ties: int
    num_losses: int
    num_all_bad: int
    """Votes that all images are bad; like skips, they do not count in the rate."""
    num_skipped: int
    num_prompts: int
    """Of the votes with an order."""
    num_annotators: int
    """Of the votes with an order."""

    @property
    def num_votes(self) -> int:
        """Votes with an order, over which the rate is taken."""
        return self.num_wins + self.num_ties + self.num_losses

    def lines(self) -> list[str]:
        """All numbers but the rate itself, as text."""
        lines = [
            f"  {self.num_wins} wins, {self.num_ties} ties, {self.num_losses} losses; "
            f"{self.num_all_bad} times all bad, {self.num_skipped} skipped; annotators: "
            f"{self.num_annotators}, prompts: {self.num_prompts}"
        ]
        if self.num_annotators == 1:
            lines.append("  one annotator: the interval says nothing about what others prefer")
        elif self.rate_of_these_annotators is not None:
            lines.append(f"  for these annotators alone, {interval(self.rate_of_these_annotators)}")
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteResult:
    """The votes on an aligned checkpoint and its base; saved as votes.json."""

    base: Checkpoint
    aligned: Checkpoint
    people: VoteCounts | None
    """None where only simulated annotators voted."""
    simulated: VoteCounts | None
    num_on_known_prompts: int
    """Votes of people on prompts that the run was trained or selected on."""
    database: str
    project: str | None
    """None: of all projects."""
    command: str
    counted_at: datetime
    decision: str | None = None
    """Whether the votes decide, however often one looks; None where nothing was compared."""

    def verdict(self) -> str:
        """The result in one sentence, with its interval."""
        if self.people is None:
            return "No human annotator has voted"
        if self.people.rate is None:
            return "No human vote has an order: all items were skipped or judged all bad"
        return f"Annotators prefer the aligned image in {preferred(self.people, self.people.rate)}"

    def lines(self) -> list[str]:
        """The result as text, one fact per line."""
        lines = [self.verdict()]
        if self.people is not None:
            rate = self.people.rate
            if rate is not None and (rate.low or 0.0) <= 0.5 <= (rate.high or 1.0):
                lines.append("  the interval includes an even 50 %: this may be chance")
            lines += self.people.lines()
        if self.decision is not None:
            lines.append(f"  {self.decision}")
        if self.num_on_known_prompts:
            lines.append(
                f"  {self.num_on_known_prompts} of the votes are on prompts that the run was "
                "trained or selected on"
            )
        if self.simulated is not None:
            rate = self.simulated.rate
            said = "no order" if rate is None else preferred(self.simulated, rate)
            lines += [f"simulated annotators, counted apart: {said}", *self.simulated.lines()]
        return lines

    def save(self, folder: Path) -> Path:
        """Write votes.json atomically, and return its path."""
        content = TypeAdapter(VoteResult).dump_python(self, mode="json")
        path = folder / FILE
        write_atomically(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
        return path


def preferred(counts: VoteCounts, rate: Estimate) -> str:
    """Example: "67 % of 24 blind votes (95 % interval 45 to 84 %)"."""
    return f"{percent(rate.value)} of {counts.num_votes} blind votes ({interval(rate)})"


def load_votes(folder: Path) -> VoteResult | None:
    """Load what `VoteResult.save` wrote; None without a file, InputError for an invalid one."""
    try:
        return TypeAdapter(VoteResult).validate_python(read_json(folder / FILE))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise InputError(
            f"{folder / FILE}: not of this version (at {where or 'the start'}); count again with "
            "`imgalign evaluate RUN --votes`"
        ) from None
    except ValueError as error:
        raise InputError(f"{folder / FILE}: damaged ({error}); count again") from None


def count_votes(
    aligned: Path,
    store: Store,
    *,
    command: str,
    model: str | None = None,
    strength: float = 1.0,
    project: str | None = None,
    app: str = "imgalign ui",
    out: Path | None = None,
) -> VoteResult:
    """Read the votes on trained weights and their base, and save the numbers in the folder `out`.

    `aligned` is what `find_weights` takes; votes count where the images were
    generated by exactly these weights at this strength and by the same model without an adapter.
    `out` is the folder
    of the evaluation by default. `app` is the command that opens the app on this store, for
    messages, and `command` is saved as the origin of the numbers. InputError without a comparison
    in the store, or without a vote.
    """
    adapter = find_weights(aligned)
    check_strength(strength, adapter)
    run = run_of(adapter)
    out = out or evaluation_folder(adapter, strength=strength)
    check_folder(out)
    base = Checkpoint(model=model or model_under(adapter), adapter=None, adapter_hash=None)
    judged = Checkpoint(
        model=base.model,
        adapter=str(adapter),
        adapter_hash=weights_hash(adapter),
        strength=strength,
    )
    makers = read_makers(store)
    asked = comparisons(store, makers, base, judged, project=project, app=app)
    people: list[Vote] = []
    simulated: list[Vote] = []
    on_these = [
        ranking
        for ranking in store.rankings(project=project, judged_by="all")
        if ranking.item_id in asked
    ]
    for ranking in on_these:
        if ranking.judge_id is None:
            vote = vote_of(ranking, makers, base=side(base), aligned=side(judged))
            (simulated if ranking.simulated else people).append(vote)
    num_ai = sum(ranking.judge_id is not None for ranking in on_these)
    if num_ai:
        log.warning("votes: %d by AI judges are left out", num_ai)
    if left_out := num_left_out(store.database, project=project):
        log.warning("votes: %d rankings by excluded annotators are left out", left_out)
    if not people and not simulated:
        raise InputError(
            f"{adapter}: {len(asked)} comparisons with {base.model} are queued in "
            f"{store.database.name}, and none has a vote; rank them with `{app}`"
        )
    known = set(map(prompt_key, known_prompts(run))) if run else set()
    result = VoteResult(
        base=base,
        aligned=judged,
        people=counted(people),
        simulated=counted(simulated),
        num_on_known_prompts=sum(prompt_key(vote.prompt) in known for vote in people),
        database=store.database.name,
        project=project,
        command=command,
        counted_at=utc_now(),
        decision=next(
            (
                each.decision(one="the aligned checkpoint", other="its base")
                for each in compare_makers(store, project=project, most=None)
                if (each.one, each.other) == (side(judged), side(base))
            ),
            None,
        ),
    )
    with lock_folder(out, doing="evaluating"), reporting_full_disk(out, "saving the votes"):
        refuse_foreign(out / FILE, keys={"people", "simulated", "counted_at"})
        result.save(out)
    return result


def side(checkpoint: Checkpoint) -> Maker:
    """The maker of a side's images, as their provenance names it."""
    return Maker(checkpoint.model, checkpoint.adapter_hash, checkpoint.strength)


def comparisons(
    store: Store,
    makers: Makers,
    base: Checkpoint,
    aligned: Checkpoint,
    *,
    project: str | None,
    app: str,
) -> set[str]:
    """Items with images of both sides, judged or not; InputError without one."""
    beside_base = {
        item: who
        for item, who in item_makers(store, makers, project=project).items()
        if side(base) in who
    }
    found = {item for item, who in beside_base.items() if side(aligned) in who}
    if found:
        return found
    others = {maker for who in beside_base.values() for maker in who} - {side(base)}
    names = sorted(makers.names[maker] for maker in others)
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    hint = f"; there, {base.model} is compared with {shown}" if names else ""
    within = "" if project is None else f" in project {project!r}"
    raise InputError(
        f"{at_strength(str(aligned.adapter), aligned.strength)}: no item of "
        f"{store.database.name}{within} holds its images beside those of {base.model} without an"
        f" adapter{hint}; make some on the Generate page of `{app}`: choose the checkpoint,"
        " generate, and send 'base against aligned' to ranking"
    )


def vote_of(ranking: Ranking, makers: Makers, *, base: Maker, aligned: Maker) -> Vote:
    """The vote on the two sides in a judgement of a comparison."""
    who = [makers.of_image.get(image) for image in ranking.sample_ids]
    rank = ranks(ranking)
    outcomes = [
        (1 + (rank[other] > rank[own]) - (rank[other] < rank[own])) / 2
        for own in range(len(who))
        for other in range(len(who))
        if who[own] == aligned and who[other] == base
    ]
    return Vote(
        prompt=ranking.prompt,
        annotator=ranking.annotator,
        verdict=ranking.verdict,
        share=sum(outcomes) / len(outcomes) if ranking.verdict == "ranked" else None,
    )


def counted(votes: Sequence[Vote]) -> VoteCounts | None:
    """The numbers of some annotators' votes; None without a vote."""
    if not votes:
        return None
    decided = [vote for vote in votes if vote.share is not None]
    shares = [vote.share for vote in decided if vote.share is not None]
    prompts = [prompt_key(vote.prompt) for vote in decided]
    annotators = [vote.annotator for vote in decided]

    def count(verdict: Literal["all_bad", "skipped"]) -> int:
        return sum(vote.verdict == verdict for vote in votes)

    return VoteCounts(
        rate=two_way_rate(shares, TwoWay.of(prompts, annotators)) if shares else None,
        rate_of_these_annotators=clustered_rate(shares, prompts, seed=SEED) if shares else None,
        num_wins=sum(share > 0.5 for share in shares),
        num_ties=sum(share == 0.5 for share in shares),
        num_losses=sum(share < 0.5 for share in shares),
        num_all_bad=count("all_bad"),
        num_skipped=count("skipped"),
        num_prompts=len(set(prompts)),
        num_annotators=len(set(annotators)),
    )
