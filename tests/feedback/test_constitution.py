"""Constitutions: strict files, their identity, and those that are shipped."""

from pathlib import Path

import pytest

from imgalign.errors import ConfigError, InputError
from imgalign.feedback.constitution import load_constitution, shipped_constitutions
from imgalign.preferences.records import Samples

TWO = """
name: mine
principles:
  - text: It keeps the request.
    weight: 2
  - {text: It is short., samples: texts}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_each_principle_has_a_weight_and_the_kind_of_samples_it_is_for(tmp_path: Path):
    found = load_constitution(written(tmp_path, TWO))
    assert found.name == "mine"
    assert [(each.text, each.weight, each.samples) for each in found.principles] == [
        ("It keeps the request.", 2.0, None),
        ("It is short.", 1.0, "texts"),
    ]
    assert list(found.principles_for("images")) == [0]
    assert list(found.principles_for("texts")) == [0, 1]


def test_comments_spaces_and_order_of_keys_are_no_part_of_what_it_is(tmp_path: Path):
    same = """
    # another spelling
    principles:
      - weight: 2.0
        text: >
          It keeps
          the request.
      - {samples: texts, text: "It is short."}
    name: mine
    """
    first = load_constitution(written(tmp_path, TWO)).canonical
    assert load_constitution(written(tmp_path, same)).canonical == first
    for before, after in [("weight: 2", "weight: 3"), ("short", "long"), ("mine", "yours")]:
        assert load_constitution(written(tmp_path, TWO.replace(before, after))).canonical != first


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "name: .*required"),
        ("name: mine\nprinciples: []", "principles: expected .*at least 1"),
        ("name: mine\nprinciples: [{text: ' '}]", r"principles\[?.?0\]?.text: expected text"),
        ("name: mine\nprinciples: [{txt: a}]", "txt: unknown"),
        ("name: mine\nprinciples: [{text: a, weight: 0}]", "weight: expected .*greater than 0"),
        ("name: mine\nprinciples: [{text: a, samples: videos}]", "samples: expected"),
        ("name: mine\nprinciples: [{text: a}, {text: ' a '}]", "given twice: 'a'"),
        ('name: "a\\0b"\nprinciples: [{text: a}]', "name: expected text"),
        ("name: [", "line"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_names_it(tmp_path: Path, text: str, why: str):
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=why) as raised:
        load_constitution(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_file_that_is_not_there_is_said_with_those_that_are_shipped(tmp_path: Path):
    with pytest.raises(InputError, match=r"no such constitution; .* images, picture_prompts"):
        load_constitution(tmp_path / "missing.yaml")


def test_the_shipped_ones_are_found_by_their_names_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert {path.stem for path in shipped_constitutions()} == {"picture_prompts", "images"}
    for path in shipped_constitutions():
        samples: Samples = "images" if path.stem == "images" else "texts"
        found = load_constitution(Path(path.stem))
        assert len(found.principles_for(samples)) == len(found.principles) >= 3
