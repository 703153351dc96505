"""The votes of annotators in a report: their numbers, and what to keep in mind of them."""

from dataclasses import replace

from html_pages import read
from reported_runs import begin_run, voted

from imgalign.evaluate.evaluation import FOLDER
from imgalign.report.record import read_run
from imgalign.report.text import NO_BREAK
from imgalign.report.voting import votes
from imgalign.report.writing import write_report


def told(run):
    return votes(read_run(run))


def test_all_numbers_of_the_votes_are_told_and_simulated_annotators_apart(run):
    text = told(run)
    assert "Annotators prefer the aligned image in 75 % of 20 blind votes" in text
    for number in ("53 to 89 %", "60 to 86 %", "14 / 2 / 4", "5 / 6", "3 / 12"):
        assert number in text
    people, apart = text.split("Simulated annotators, counted apart: ")
    assert apart.startswith("35 % of 40 blind votes (95 % interval 20 to 54 %); 14 wins")
    assert "35 %" not in people


def test_where_nobody_has_voted_only_the_simulated_votes_are_told(run):
    voted(run, people=None)
    text = told(run)
    assert "No human annotator has voted." in text
    assert "Win rate" not in text
    assert "35 % of 40 blind votes" in text


def test_what_weakens_the_votes_is_said(run):
    assert "may be chance" not in told(run)
    found = voted(run)
    rate = replace(found.people.rate, low=0.48)
    one = replace(found.people, rate=rate, num_annotators=1)
    aligned = replace(found.aligned, adapter_hash="7a" * 32)
    voted(run, people=one, num_on_known_prompts=3, aligned=aligned)
    text = told(run)
    assert "includes an even 50 %, so this may be chance." in text
    assert "the interval says nothing about what others prefer." in text
    assert "3 of the votes are on prompts that the run was trained or selected on." in text
    assert "on other weights than the comparison above." in text


def test_votes_without_a_comparison_are_told(tmp_path):
    run = begin_run(tmp_path / "run")
    (run / FOLDER).mkdir()
    voted(run)
    text, page = read(write_report(run))
    assert page.headings == ["Votes of annotators", "How to repeat it"]
    assert "in 75 % of 20 blind votes" in text.replace(NO_BREAK, " ")


def test_the_command_and_the_database_of_the_votes_are_kept(finished):
    text, _ = read(finished / "report.html")
    assert f"imgalign evaluate {finished.name} --votes" in text
    assert "&lt;cats&gt;.db, " in text
    assert "sqlite:" not in text
