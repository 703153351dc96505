"""Claims: settings that are damaged in any way are refused by a ConfigError or InputError of one
line that names what is wrong, or are settings that can be written and read again."""

from collections.abc import Sequence
from pathlib import Path

from fault_counts import LONG, examples
from hypothesis import given
from hypothesis import strategies as st
from mutations import TEXTS, VALUES, Keys, changed, damaged, places_in
from source_tree import ROOT

from imgalign.config import Config, as_yaml, dump_config, load_config, read_mapping
from imgalign.errors import ConfigError, InputError
from imgalign.feedback.constitution import Constitution
from imgalign.loop.config import LoopConfig
from imgalign.train.config import TrainConfig

CONFIGS = ROOT / "configs"
OTHERS: dict[str, type[Config]] = {"storybook_loop.yaml": LoopConfig}
MODELS: dict[Path, type[Config]] = {
    **{path: OTHERS.get(path.name, TrainConfig) for path in sorted(CONFIGS.glob("*.yaml"))},
    **dict.fromkeys(sorted((CONFIGS / "constitutions").glob("*.yaml")), Constitution),
}

pytestmark = LONG

RECIPES = st.sampled_from(list(MODELS))


def refusal(model: type[Config], path: Path, overrides: tuple[str, ...] = ()) -> str:
    """What is said of settings; empty for those that are read, and then read again the same."""
    try:
        found = load_config(model, path, overrides, say=lambda line: None)
    except (ConfigError, InputError) as error:
        said = str(error)
        assert said.isprintable(), said
        return said
    again = path.with_name("again.yaml")
    dump_config(found, again)
    assert as_yaml(load_config(model, again).model_dump(mode="json")) == as_yaml(
        found.model_dump(mode="json")
    )
    return ""


@examples(100)
@given(data=st.data())
def test_a_recipe_with_other_values_and_keys_is_read_or_refused_by_their_names(
    tmp_path, faults, data
):
    recipe = data.draw(RECIPES)
    wrong, where = data.draw(changed(read_mapping(recipe)))
    path = tmp_path / "changed.yaml"
    path.write_text(as_yaml(wrong), encoding="utf-8")
    with faults.inject("settings with other values"):
        said = refusal(MODELS[recipe], path)
        assert not said or names_one(said, MODELS[recipe], where), (said, where)


def names_one(said: str, model: type[Config], where: Sequence[Keys]) -> bool:
    """Whether a message names a setting, or a part of one that was changed."""
    changed = [str(key) for place in where for key in place]
    own = [field.alias or name for name, field in model.model_fields.items()]
    return any(key and key in said for key in [*own, *changed])


@examples(60)
@given(data=st.data())
def test_a_recipe_whose_bytes_are_damaged_is_read_or_refused(tmp_path, faults, data):
    recipe = data.draw(RECIPES)
    path = tmp_path / "damaged.yaml"
    path.write_bytes(data.draw(damaged(recipe.read_bytes())))
    with faults.inject("settings with damaged bytes"):
        refusal(MODELS[recipe], path)


@examples(60)
@given(data=st.data())
def test_any_override_is_read_or_refused(faults, data, tmp_path):
    recipe = data.draw(RECIPES)
    path = tmp_path / recipe.name
    path.write_bytes(recipe.read_bytes())
    paths = [".".join(map(str, each)) for each in places_in(read_mapping(recipe))]
    key = data.draw(st.sampled_from(paths) | TEXTS)
    value = data.draw(TEXTS | VALUES.map(lambda each: as_yaml({"x": each})[3:].strip()))
    with faults.inject("any override"):
        refusal(MODELS[recipe], path, (f"{key}={value}",))
