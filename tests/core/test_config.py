import math
import resource
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveInt, ValidationError

from imgalign.config import Config, PathText, dump_config, find_config, load_config, recipes
from imgalign.errors import ConfigError, InputError


class Ppo(Config):
    """Settings of a part."""

    clip_range: Annotated[float, Field(gt=0)] = 1.6
    """Nats."""
    inner_epochs: PositiveInt = 1


class Head(Config):
    """Settings of a part that may be off."""

    width: int = 8


class Settings(Config):
    """Settings of a whole."""

    algorithm: Literal["ppo", "dpo"] = "ppo"
    name: str = "run"
    out: Path = Path("runs")
    folder: PathText = "hub/name"
    sizes: tuple[int, ...] = (64, 64)
    resume: bool = False
    limit: float | None = None
    learning_rate: float = 3e-4
    ppo: Ppo = Ppo()
    head: Head | None = None
    extra: dict[str, float] = Field(default_factory=dict)


def load(tmp_path, text, *overrides):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return load_config(Settings, path, overrides)


def message(tmp_path, text, *overrides):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, *overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(f"{tmp_path}/", "")


def said_of_file(tmp_path, text):
    """What is said of the settings in a file, after the file's name."""
    file, _, said = message(tmp_path, text).partition(": ")
    assert file == "settings.yaml"
    return said


def test_no_file_and_no_override_gives_the_defaults():
    assert load_config(Settings, None) == Settings()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *[("1e-4", 1e-4), ("1E5", 1e5), ("+1.5e+3", 1500.0), ("-.5", -0.5), ("1.", 1.0)],
        *[("2", 2.0), (".inf", math.inf), ("-.INF", -math.inf), ("1_000.5", 1000.5)],
    ],
)
def test_numbers_are_read_as_a_person_means_them(tmp_path, text, expected):
    assert load(tmp_path, f"learning_rate: {text}").learning_rate == expected


@pytest.mark.parametrize("text", ["yes", "no", "on", "off", "y", "0123", "1:30", "2026-01-01"])
def test_text_that_yaml_1_1_would_change_stays_text(tmp_path, text):
    assert load(tmp_path, f"name: {text}").name == text


def test_lists_paths_sections_and_nothing_are_read(tmp_path):
    settings = load(tmp_path, "sizes: [1, 2, 3]\nout: a/b\nhead:\n  width: 3\nlimit: ~\n")
    assert settings.sizes == (1, 2, 3)
    assert settings.out == Path("a/b")
    assert settings.head == Head(width=3)
    assert settings.limit is None


def test_keys_are_text_as_written(tmp_path):
    settings = load(tmp_path, "extra: {1e-4: 1, null: 2, true: 3, 1_0: 4}")
    assert settings.extra == {"1e-4": 1, "null": 2, "true": 3, "1_0": 4}


def test_an_empty_file_gives_the_defaults(tmp_path):
    assert load(tmp_path, "# nothing yet\n") == Settings()


def test_overrides_win_over_the_file_and_later_ones_over_earlier(tmp_path):
    settings = load(
        tmp_path, "ppo:\n  inner_epochs: 2\n", "ppo.inner_epochs=3", "ppo.inner_epochs=4"
    )
    assert settings.ppo.inner_epochs == 4


def test_an_override_may_create_its_section_and_hold_an_equals_sign():
    settings = load_config(Settings, None, ["head.width=2", "name=a=b", "sizes=[5]"])
    assert settings.head == Head(width=2)
    assert settings.name == "a=b"
    assert settings.sizes == (5,)


def test_an_override_may_fill_a_section_that_the_file_leaves_empty(tmp_path):
    assert load(tmp_path, "head:\n", "head.width=2").head == Head(width=2)


def test_an_unknown_key_names_the_key_that_was_meant(tmp_path):
    text = said_of_file(tmp_path, "ppo:\n  clip_rnge: 2\n")
    assert text == "ppo.clip_rnge: unknown key (did you mean 'clip_range'?)"


def test_an_unknown_key_in_an_optional_section_is_explained_too(tmp_path):
    assert said_of_file(tmp_path, "head: {widht: 2}") == (
        "head.widht: unknown key (did you mean 'width'?)"
    )


def test_a_known_key_in_the_wrong_section_names_the_right_one(tmp_path):
    text = said_of_file(tmp_path, "inner_epochs: 2\n")
    assert text == "inner_epochs: unknown key (did you mean 'ppo.inner_epochs'?)"


def test_an_unknown_key_like_no_other_lists_what_is_known(tmp_path):
    text = said_of_file(tmp_path, "ppo: {zzz: 2}")
    assert text == "ppo.zzz: unknown key (known here: clip_range, inner_epochs)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("algorithm: grpo", "algorithm: expected one of 'ppo', 'dpo', got 'grpo'"),
        ("ppo: {clip_range: -1}", "ppo.clip_range: expected a number greater than 0, got -1"),
        ("learning_rate: fast", "learning_rate: expected a number, got 'fast'"),
        ("learning_rate: '1e-4'", "learning_rate: expected a number, got '1e-4'"),
        ("learning_rate: true", "learning_rate: expected a number, got true"),
        ("ppo: {inner_epochs: 1.5}", "ppo.inner_epochs: expected a whole number, got 1.5"),
        (
            "ppo: {inner_epochs: 1e3}",
            "ppo.inner_epochs: expected a whole number, got 1000.0 (did you mean 1000?)",
        ),
        ("ppo: {inner_epochs: true}", "ppo.inner_epochs: expected a whole number, got true"),
        ("resume: yes", "resume: expected true or false, got 'yes'"),
        ("resume: 1", "resume: expected true or false, got 1"),
        ("name: 3", "name: expected text, got 3"),
        ("name:", "name: expected text, got nothing"),
        ("sizes: 3", "sizes: expected a list, got 3 (did you mean [3]?)"),
        ("sizes: [1, a]", "sizes.1: expected a whole number, got 'a'"),
        ("ppo: fast", "ppo: expected a section of 'key: value' lines, got 'fast'"),
    ],
)
def test_a_wrong_value_says_what_was_expected_and_what_came(tmp_path, text, expected):
    assert said_of_file(tmp_path, text) == expected


def test_all_wrong_settings_are_named_at_once(tmp_path):
    text = message(tmp_path, "resume: 1\nname: 3\n")
    assert text == (
        "settings.yaml: name: expected text, got 3; resume: expected true or false, got 1"
    )


def test_what_an_override_brought_is_told_from_what_the_file_has(tmp_path):
    text = message(tmp_path, "resume: 1\nppo: {inner_epochs: 2}\n", "ppo.inner_epochs=0")
    assert text == (
        "ppo.inner_epochs: expected a number greater than 0, got 0; "
        "settings.yaml: resume: expected true or false, got 1"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nname: b\n", "settings.yaml: line 2: key 'name' is given twice"),
        ("ppo: {a: 1, a: 2}", "settings.yaml: line 1: key 'a' is given twice"),
        ("- a\n", "settings.yaml: expected 'key: value' lines, got ['a']"),
        ("[a]: 1\n", "settings.yaml: line 1: expected plain text as a key"),
        ("name: a: b\n", "settings.yaml: line 1: mapping values are not allowed here"),
        ("extra: &a {b: *a}", "settings.yaml: more than 100000 values"),
        ("name: !!python/object:os.system x", "settings.yaml: line 1: could not determine"),
        ("name: !!binary aGk=", "settings.yaml: expected text, numbers, true"),
    ],
)
def test_yaml_that_means_nothing_or_two_things_is_refused(tmp_path, text, expected):
    assert message(tmp_path, text).startswith(expected)


def bomb(levels: int, width: int) -> str:
    """A few hundred bytes of YAML that mean width ** levels values."""
    lines = ["a0: &a0 [1]"]
    for level in range(1, levels):
        many = ", ".join([f"*a{level - 1}"] * width)
        lines.append(f"a{level}: &a{level} [{many}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + "[" * 100_000, "nested deeper than 50"),
        ("a: " + "[" * 60 + "]" * 60, "nested deeper than 50"),
        ("a: " + "{b: " * 60 + "1" + "}" * 60, "nested deeper than 50"),
        (bomb(9, 9), "more than 100000 values"),
        (bomb(3, 100), "more than 100 aliases"),
        ("a: '" + "x" * 2**20 + "'", "more than 1048576 bytes"),
        ("a: &a [*a]", "more than 100000 values"),
    ],
)
def test_yaml_that_would_fill_the_memory_is_one_line(tmp_path, text, said):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert said in message(tmp_path, text)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_the_anchors_that_people_write_are_read(tmp_path):
    text = "ppo: &p {clip_range: 2.0}\nextra: {<<: *p, other: 1.0}\n"
    assert load(tmp_path, text).extra == {"clip_range": 2.0, "other": 1.0}


def test_a_leading_tilde_is_the_home_folder_in_files_and_overrides(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert load(tmp_path, "out: ~/runs").out == Path("/home/ada/runs")
    assert load_config(Settings, None, ["out=~/runs"]).out == Path("/home/ada/runs")
    assert load_config(Settings, None, ["folder=~/sd15"]).folder == "/home/ada/sd15"
    assert load_config(Settings, None, ["folder=hub/name~1"]).folder == "hub/name~1"
    assert load_config(Settings, None, ["name=~/runs"]).name == "~/runs"  # text stays text


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("name", "override 'name': expected section.key=value"),
        ("=3", "override '=3': expected section.key=value"),
        ("ppo..a=3", "override 'ppo..a=3': expected section.key=value"),
        ("name.first=a", "override 'name.first=a': name is 'x', not a section"),
        ("ppo.clip_rnge=3", "ppo.clip_rnge: unknown key (did you mean 'clip_range'?)"),
        ("sizes=[1", "override 'sizes=[1': line 1: expected ',' or ']', but got '<stream end>'"),
    ],
)
def test_a_bad_override_is_refused(tmp_path, override, expected):
    assert message(tmp_path, "name: x", override) == expected


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="expected a text file in utf-8"):
        load_config(Settings, path)


def test_a_missing_file_is_an_input_error_that_names_it():
    with pytest.raises(InputError, match=r"^nowhere/x\.yaml: no such file; shipped recipes: "):
        load_config(Settings, Path("nowhere/x.yaml"))


@pytest.mark.parametrize(
    "name", ["yes", "1e-4", "12", "", "null", "~", "a: b", "ü", "true", "x\ny"]
)
def test_what_is_dumped_loads_as_an_equal_object(tmp_path, name):
    settings = Settings(
        name=name,
        algorithm="dpo",
        out=Path("x"),
        limit=math.inf,
        learning_rate=1e-17,
        head=Head(width=1),
        extra={"1": 1e22, "no": -0.0},
    )
    dump_config(settings, tmp_path / "config.yaml")
    assert load_config(Settings, tmp_path / "config.yaml") == settings


def test_infinity_survives_pydantics_own_json_too():
    settings = Settings(limit=math.inf)
    assert Settings.model_validate_json(settings.model_dump_json(), strict=True) == settings


def test_what_is_dumped_names_every_setting(tmp_path):
    dump_config(Settings(), tmp_path / "config.yaml")
    assert load(tmp_path, (tmp_path / "config.yaml").read_text()) == Settings()
    for name in Settings.model_fields:
        assert f"\n{name}: " in "\n" + (tmp_path / "config.yaml").read_text().replace(":\n", ": \n")


def test_settings_cannot_be_changed_after_they_are_made():
    with pytest.raises(ValidationError, match="frozen"):
        setattr(Settings(), "name", "other")  # noqa: B010


def test_a_docstring_under_a_field_is_its_description():
    assert Ppo.model_fields["clip_range"].description == "Nats."


def test_shipped_recipes_are_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for recipe in recipes():
        for given in (recipe.stem, recipe.name, f"configs/{recipe.name}"):
            assert find_config(Path(given)) == recipe


def test_a_file_at_hand_wins_over_a_shipped_recipe(tmp_path, monkeypatch):
    shipped, mine = tmp_path / "shipped", tmp_path / "mine"
    shipped.mkdir()
    mine.mkdir()
    (shipped / "a.yaml").touch()
    monkeypatch.setattr("imgalign.config.RECIPE_FOLDERS", (shipped,))
    monkeypatch.chdir(mine)
    assert find_config(Path("a")) == shipped / "a.yaml"
    assert find_config(Path("configs/a.yaml")) == shipped / "a.yaml"
    (mine / "a.yaml").touch()
    assert find_config(Path("a.yaml")) == Path("a.yaml")
    with pytest.raises(InputError, match=r"shipped recipes: a$"):
        find_config(Path("elsewhere/a.yaml"))
