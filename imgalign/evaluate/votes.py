"""Blind votes of annotators on an aligned checkpoint and its base, counted in the store.

An item that holds images of both is a comparison, however it was queued: the app's Generate page
makes such items, and annotators rank them without knowing which side an image is from. A vote is
one annotator's judgement of one item. Where an item holds more than two images, the vote is the
share of its pairs of an aligned and a base image that the aligned one wins. A tie counts half.
Simulated annotators are counted apart; AI judges and images of rewritten prompts do not count. The
verdict, whether the votes decide however often one looks, is kept with the numbers in votes.json
(`count_votes` for one strength, `keep_votes` for all). Left out: generating images, and showing
items to annotators.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from imgalign.errors import CheckpointError, ImgalignError, InputError
from imgalign.evaluate.comparison import interval, percent
from imgalign.evaluate.evaluation import FOLDER, Checkpoint, evaluation_folder, refuse_foreign
from imgalign.evaluate.selection import known_prompts
from imgalign.files import (
    check_folder,
    lock_folder,
    read_json,
    reporting_full_disk,
    write_atomically,
)
from imgalign.preferences.comparisons import Comparison, compare_makers
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
    num_on_known_prompts: int | None
    """Votes of people on prompts that the run was trained or selected on; None where its list of
    prompts cannot be read."""
    database: str
    project: str | None
    """None: of all projects."""
    command: str
    counted_at: datetime
    decision: str | None = None
    """Whether the votes decide, however often one looks; None where nothing was compared. Of
    simulated annotators where no person has voted."""
    preferred: Literal["aligned", "base"] | None = None
    """Which of them it is, once that is decided."""
    whenever: Estimate | None = None
    """The rate over prompts that are judged completely; its interval holds whenever one looks."""
    projects: tuple[str, ...] = ()
    """Those with a vote that was counted."""

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
        decision = [] if self.decision is None else [f"  {self.decision}"]
        lines += decision if self.people is not None else []
        if self.num_on_known_prompts is None:
            lines.append("  how many are on prompts that the run was trained on is not known")
        elif self.num_on_known_prompts:
            lines.append(
                f"  {self.num_on_known_prompts} of the votes are on prompts that the run was "
                "trained or selected on"
            )
        if self.simulated is not None:
            rate = self.simulated.rate
            said = "no order" if rate is None else preferred(self.simulated, rate)
            lines += [f"simulated annotators, counted apart: {said}", *self.simulated.lines()]
            lines += decision if self.people is None else []
        return lines

    def keep(self, folder: Path) -> None:
        """`save` in a folder that others may write to as well; InputError for a foreign file."""
        check_folder(folder)
        with lock_folder(folder, doing="evaluating"), reporting_full_disk(folder, "saving votes"):
            refuse_foreign(folder / FILE, keys={"people", "simulated", "counted_at"})
            self.save(folder)

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
    out = out or evaluation_folder(adapter, strength=strength)
    check_folder(out)
    result = votes_on(
        adapter, store, command=command, model=model, strength=strength, project=project, app=app
    )
    result.keep(out)
    return result


def keep_votes(
    aligned: Path, store: Store, *, command: str, model: str | None = None
) -> list[VoteResult]:
    """`count_votes` at every strength at which the weights were compared with their base.

    What was counted of one project alone is counted of that project again, and what the store
    knows nothing of stays as it was counted. A folder that cannot be written to keeps nothing,
    which a warning says; the votes are returned all the same.
    """
    adapter = find_weights(aligned)
    weights = weights_hash(adapter)
    found = {each.aligned.strength: each for each in kept_votes(adapter)}
    compared = {maker.strength for maker in read_makers(store).names if maker.weights == weights}
    for strength in sorted(compared):
        project = found[strength].project if strength in found else None
        try:
            found[strength] = votes_on(
                adapter, store, command=command, model=model, strength=strength, project=project
            )
        except InputError as nothing:
            log.debug("%s", nothing)
            continue
        try:
            found[strength].keep(evaluation_folder(adapter, strength=strength))
        except (ImgalignError, OSError) as error:
            log.warning("the verdict of the votes is not kept beside the weights: %s", error)
    return [found[strength] for strength in sorted(found)]


def kept_votes(adapter: Path) -> list[VoteResult]:
    """What was kept of exactly these weights, the lowest strength first."""
    found = []
    for path in evaluation_folder(adapter).parent.glob(f"{FOLDER}*/{FILE}"):
        try:
            kept = load_votes(path.parent)
        except InputError as error:
            log.warning("%s", error)
            continue
        if kept is not None and kept.aligned.adapter_hash == weights_hash(adapter):
            found.append(kept)
    return sorted(found, key=lambda each: each.aligned.strength)


def votes_on(
    adapter: Path,
    store: Store,
    *,
    command: str,
    model: str | None = None,
    strength: float = 1.0,
    project: str | None = None,
    app: str = "imgalign ui",
) -> VoteResult:
    """The votes of `count_votes` on these weights, kept nowhere."""
    run = run_of(adapter)
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
    known = keys_of_known_prompts(run)
    decided = verdict_on(store, base, judged, project=project)
    return VoteResult(
        base=base,
        aligned=judged,
        people=counted(people),
        simulated=counted(simulated),
        num_on_known_prompts=None
        if known is None
        else sum(prompt_key(vote.prompt) in known for vote in people),
        database=store.database.name,
        project=project,
        command=command,
        counted_at=utc_now(),
        decision=decided.decision(one="the aligned checkpoint", other="its base")
        if decided
        else None,
        preferred=preferred_of(decided) if decided else None,
        whenever=decided.sequence if decided else None,
        projects=tuple(sorted({each.project for each in on_these if each.judge_id is None})),
    )


def keys_of_known_prompts(run: Path | None) -> set[str] | None:
    """Prompts that a run was trained or selected on; None, with a warning, where it lost them."""
    if run is None:
        return set()
    try:
        return {prompt_key(prompt) for prompt in known_prompts(run)}
    except CheckpointError as error:
        log.warning("%s", error)
        return None


def verdict_on(
    store: Store, base: Checkpoint, aligned: Checkpoint, *, project: str | None
) -> Comparison | None:
    """The comparison of the two that the Results page shows."""
    for each in compare_makers(store, project=project, most=None):
        if (each.one, each.other) == (side(aligned), side(base)):
            return each
    return None


def preferred_of(found: Comparison) -> Literal["aligned", "base"] | None:
    """Which side is preferred, if that is no chance."""
    match found.preferred:
        case "one":
            return "aligned"
        case "other":
            return "base"
    return None


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
