"""Claims: the page of a language run shows its texts with the words marked that changed, escaped,
and has no section of images."""

from pathlib import Path

import pytest
from html_pages import read
from language_runs import LettersE, language_settings, start_language, write_talker

from imgalign.evaluate.config import EvaluateConfig
from imgalign.evaluate.judging import Measures
from imgalign.evaluate.run import Evaluation, evaluate
from imgalign.evaluate.texts import load_texts
from imgalign.language.differences import word_difference
from imgalign.report.record import read_run
from imgalign.report.sheets import SHEET
from imgalign.report.texts import LONGEST, TextPair, after, before, read_samples, table
from imgalign.report.writing import write_report


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("run")
    settings = language_settings(
        write_talker(place / "model"), optimizer={"learning_rate": 0.03}, iterations=3
    )
    start_language(place / "words", settings)
    return place / "words"


def judged(run: Path) -> Evaluation:
    asked = run.parent / "asked.txt"
    asked.write_text("<b>sheep\nold trees\nthe east\n", encoding="utf-8")
    reward = LettersE()
    return evaluate(
        EvaluateConfig(aligned=run, prompts=asked, images_per_prompt=2),
        measures=Measures(oracle=reward.score, oracle_meaning="e", proxy=reward),
    )


def test_before_it_is_judged_there_are_curves_and_texts_over_training(run):
    text, page = read(write_report(run))
    assert page.headings[:3] == ["What was done", "Training", "Texts over training"]
    assert "imgalign evaluate" in text
    samples = read_samples(run / "samples" / "step-000000.json")
    assert len(samples) == 3
    assert all(prompt in text for prompt in samples)
    assert "<img" not in text


def test_a_finished_run_has_its_texts_side_by_side_and_no_images(run):
    found = judged(run)
    text, page = read(write_report(run))
    assert page.headings == [
        "Before and after",
        "What was done",
        "Training",
        "By kind of prompt",
        "Oracle and reward",
        "Texts over training",
        "What got worse",
        "Where the aligned model won by most",
        "How to repeat it",
    ]
    assert "<img" not in text
    assert "<b>sheep" not in text
    assert "&lt;b&gt;sheep" in text
    words = text.partition("How to repeat it")[0]
    assert "image" not in words.partition("</style>")[2]
    assert "Length" in words
    assert "per text" in words
    assert not (run / "evaluation" / SHEET).exists()
    record = read_run(run)
    assert list(record.base) == load_texts(
        run / "evaluation" / found.images, "base", count=len(found.pairs)
    )


def test_what_changed_is_marked_on_its_side_and_everything_is_escaped():
    page = table([TextPair("<i>p", "a <b>big</b> cat", "a red cat & <dog>", note="x<y")])
    assert "<th>&lt;i&gt;p<small>x&lt;y</small></th>" in page
    parts = word_difference("a big cat", "a red cat & <dog>")
    assert before(parts) == "a <del>big</del> cat"
    assert after(parts) == "a <ins>red</ins> cat <ins>&amp; &lt;dog&gt;</ins>"
    assert "<b>" not in page
    assert "<dog>" not in page


def test_long_texts_are_cut_and_say_so():
    page = table([TextPair("p", "a " * LONGEST, "a " * LONGEST)])
    assert page.count(" …") == 2
    assert len(page) < 3 * LONGEST


def test_samples_that_cannot_be_read_are_left_out_with_a_warning(run, tmp_path, caplog):
    (tmp_path / "step-000000.json").write_text("[1, 2")
    assert read_samples(tmp_path / "step-000000.json") == {}
    assert "left out of the report" in caplog.text
