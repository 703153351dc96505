"""The section of people's blind votes; one line where there are none."""

from html import escape

from imgalign.evaluate.comparison import interval, percent
from imgalign.evaluate.votes import VoteCounts, VoteResult, preferred
from imgalign.report import page
from imgalign.report.record import RunRecord
from imgalign.report.text import command_of, typeset

TITLE = "Votes of annotators"


def votes(run: RunRecord) -> str:
    """How often annotators preferred the aligned image, simulated ones apart."""
    found = run.votes
    if found is None and run.samples == "texts":
        return ""  # only votes on images are counted
    if found is None:
        return page.missing(
            TITLE,
            "Send pairs to ranking on the Generate page of the app, rank them, and count:",
            f"{command_of('evaluate', run)} --votes",
        )
    parts = [page.tiles(numbers(found.people))] if found.people else []
    if found.decision:
        parts.append(f"<p>{escape(typeset(found.decision))}.</p>\n")
    if found.simulated:
        apart = (
            f"<p>Simulated annotators, counted apart: {escape(in_words(found.simulated))}.</p>\n"
        )
        parts.append(apart)
    parts += [f"<p>{escape(each)}.</p>\n" for each in doubts(run, found)]
    return page.section(TITLE, *parts, lead=f"{escape(found.verdict())}.")


def numbers(counts: VoteCounts) -> list[tuple[str, str, str]]:
    """What, the number, and what to think of it."""
    entries = []
    if counts.rate is not None:
        whom = "other prompts" if counts.num_annotators == 1 else "other prompts and annotators"
        entries.append(("Win rate", percent(counts.rate.value), f"{interval(counts.rate)}, {whom}"))
    if counts.num_annotators > 1 and counts.rate_of_these_annotators is not None:
        own = counts.rate_of_these_annotators
        entries.append(("These annotators alone", percent(own.value), f"{interval(own)}"))
    ordered = f"{counts.num_wins} / {counts.num_ties} / {counts.num_losses}"
    entries.append(("Wins / ties / losses", ordered, "a tie counts half"))
    without = f"{counts.num_all_bad} / {counts.num_skipped}"
    entries.append(("All bad / skipped", without, "not in the rate"))
    asked = f"{counts.num_annotators} / {counts.num_prompts}"
    entries.append(("Annotators / prompts", asked, f"of {counts.num_votes} votes with an order"))
    return entries


def in_words(counts: VoteCounts) -> str:
    """Example: "60 % of 10 blind votes (95 % interval 31 to 83 %); 5 wins, 2 ties, 3 losses"."""
    rate = "no order" if counts.rate is None else preferred(counts, counts.rate)
    return typeset(
        f"{rate}; {counts.num_wins} wins, {counts.num_ties} ties, {counts.num_losses} losses; "
        f"{counts.num_all_bad} times all bad, {counts.num_skipped} skipped"
    )


def doubts(run: RunRecord, found: VoteResult) -> list[str]:
    """What to keep in mind of the votes, in sentences without a full stop."""
    said = []
    people = found.people
    rate = people.rate if people else None
    if rate is not None and (rate.low or 0.0) <= 0.5 <= (1.0 if rate.high is None else rate.high):
        said.append("The interval includes an even 50 %, so this may be chance")
    if people is not None and people.num_annotators == 1:
        said.append("With one annotator, the interval says nothing about what others prefer")
    if found.num_on_known_prompts:
        said.append(
            f"{found.num_on_known_prompts} of the votes are on prompts that the run was trained or "
            "selected on"
        )
    judged = run.evaluation.aligned.adapter_hash if run.evaluation else None
    if judged is not None and judged != found.aligned.adapter_hash:
        said.append("The votes are on other weights than the comparison above")
    return said
