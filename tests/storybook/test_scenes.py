"""The storybook as data: prompts, layouts and unseen combinations."""

import numpy as np
import pytest

from imgalign.storybook.layout import sample_scene
from imgalign.storybook.scenes import (
    COLOURS,
    COUNTS,
    OBJECTS,
    RELATIONS,
    SETTINGS,
    Item,
    Placed,
    SceneSpec,
    evaluation_prompts,
    holds,
    is_held_out,
    parse_prompt,
    prompt_of,
    sample_spec,
)

RED_CAT, BLUE_HOUSE = Item(kind="cat", colour="red"), Item(kind="house", colour="blue")


def random_specs(num_specs: int, *, held_out: bool = False) -> list[SceneSpec]:
    rng = np.random.default_rng(7)
    return [sample_spec(rng, held_out=held_out) for _ in range(num_specs)]


def test_the_world_has_24_objects_8_colours_and_6_settings():
    assert (len(set(OBJECTS)), len(set(COLOURS)), len(SETTINGS)) == (24, 8, 6)


@pytest.mark.parametrize(
    ("prompt", "spec"),
    [
        ("a red cat", SceneSpec(first=RED_CAT)),
        ("an orange apple", SceneSpec(first=Item(kind="apple", colour="orange"))),
        ("an umbrella", SceneSpec(first=Item(kind="umbrella"))),
        ("a red umbrella", SceneSpec(first=Item(kind="umbrella", colour="red"))),
        (
            "three blue fish in the snow",
            SceneSpec(first=Item(kind="fish", colour="blue"), count=3, setting="snow"),
        ),
        ("two butterflies", SceneSpec(first=Item(kind="butterfly"), count=2)),
        (
            "a red cat left of a blue house at night",
            SceneSpec(first=RED_CAT, relation="left of", second=BLUE_HOUSE, setting="night"),
        ),
        (
            "a red hat on a cat by day",
            SceneSpec(
                first=Item(kind="hat", colour="red"),
                relation="on",
                second=Item(kind="cat"),
                setting="meadow",
            ),
        ),
    ],
)
def test_prompts_read_as_a_person_would_write_them(prompt: str, spec: SceneSpec):
    assert prompt_of(spec) == prompt
    assert parse_prompt(prompt) == spec


def test_parsing_is_the_inverse_of_prompting():
    for spec in random_specs(1000):
        assert parse_prompt(prompt_of(spec)) == spec


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a red cta", "expected one of house, .*got 'cta' .did you mean 'cat'"),
        ("a rad cat", "expected one of red, .*got 'rad'"),
        ("an red cat", "expected 'a' in 'an red cat', got 'an'"),
        ("two cat", "expected one of houses, .*got 'cat'"),
        ("five cats", "expected one of a, an, two, .*got 'five'"),
        ("", "expected '<a or number> .colour. <object>', got ''"),
        ("a red cat on two hats", "expected one object on each side of 'on'"),
        ("a red cat at noon", "expected '<a or number>"),
    ],
)
def test_a_prompt_outside_the_grammar_says_what_was_expected(prompt: str, message: str):
    with pytest.raises(ValueError, match=message) as failure:
        parse_prompt(prompt)
    assert "\n" not in str(failure.value)


def test_a_count_and_a_relation_exclude_each_other():
    with pytest.raises(ValueError, match="count: expected 1"):
        SceneSpec(first=RED_CAT, count=2, relation="on", second=BLUE_HOUSE)


@pytest.mark.parametrize(
    ("relation", "x", "y", "expected"),
    [
        ("left of", 0.3, 0.5, True),
        ("left of", 0.7, 0.5, False),
        ("left of", 0.45, 0.5, False),
        ("beside", 0.7, 0.5, True),
        ("beside", 0.7, 0.1, False),
        ("above", 0.5, 0.1, True),
        ("above", 0.9, 0.1, False),
        ("on", 0.5, 0.2, True),
        ("on", 0.5, 0.1, False),
    ],
)
def test_relations_hold_where_a_person_says_so(relation: str, x: float, y: float, expected: bool):
    a = Placed(kind="cat", colour="red", x=x, y=y, size=0.3)
    b = Placed(kind="house", colour="blue", x=0.5, y=0.5, size=0.3)
    assert holds(relation, a, b) is expected


def test_sampled_scenes_obey_their_spec_even_when_read_with_small_errors():
    rng = np.random.default_rng(3)
    for spec in random_specs(1000):
        scene = sample_scene(spec, rng)
        assert len(scene.items) == (spec.count if spec.second is None else 2)
        assert {item.kind for item in scene.items[:1]} == {spec.first.kind}
        assert spec.setting in (None, scene.setting)
        assert spec.first.colour in (None, scene.items[0].colour)
        if spec.relation is None or spec.second is None:
            continue
        a, b = scene.items
        assert (b.kind, spec.second.colour in (None, b.colour)) == (spec.second.kind, True)
        for dx, dy in ((0, 0), (0.02, 0), (-0.02, 0), (0, 0.02), (0, -0.02)):
            read = Placed(kind=a.kind, colour=a.colour, x=a.x + dx, y=a.y + dy, size=a.size)
            assert holds(spec.relation, read, b), (spec, scene)
        if spec.relation == "above":
            assert not holds("on", a, b)


def test_sampled_objects_stay_inside_the_image_and_within_their_sizes():
    rng = np.random.default_rng(4)
    for spec in random_specs(1000):
        scene = sample_scene(spec, rng)
        low, high = (
            (0.28, 0.40) if spec.second else (0.38, 0.62) if spec.count == 1 else (0.25, 0.36)
        )
        for item in scene.items:
            assert low <= item.size <= high
            assert 0 <= item.top < item.bottom <= 1
            assert item.width / 2 <= item.x <= 1 - item.width / 2


def test_counted_objects_do_not_overlap():
    rng = np.random.default_rng(5)
    for kind in OBJECTS:
        for count in COUNTS:
            for _ in range(10):
                scene = sample_scene(SceneSpec(first=Item(kind=kind), count=count), rng)
                assert len(scene.items) == count
                for k, a in enumerate(scene.items):
                    for b in scene.items[k + 1 :]:
                        apart_x = abs(a.x - b.x) - (a.width + b.width) / 2
                        apart_y = abs(a.y - b.y) - (a.size + b.size) / 2
                        assert max(apart_x, apart_y) > 0


def test_training_and_held_out_specs_are_disjoint():
    seen = {prompt_of(spec) for spec in random_specs(1500)}
    held_out = {prompt_of(spec) for spec in random_specs(150, held_out=True)}
    assert not seen & held_out
    assert all(is_held_out(parse_prompt(prompt)) for prompt in held_out)


def test_training_scenes_never_show_a_held_out_combination():
    rng = np.random.default_rng(6)
    for spec in random_specs(1500):
        items = sample_scene(spec, rng).items
        first = Item(kind=items[0].kind, colour=items[0].colour)
        second = None
        if spec.second is not None:
            second = Item(kind=items[1].kind, colour=items[1].colour)
        shown = SceneSpec(first=first, count=spec.count, relation=spec.relation, second=second)
        assert not is_held_out(shown)


def test_about_4_percent_of_counts_and_8_percent_of_relations_are_held_out():
    pairs = [Item(kind=kind, colour=colour) for kind in OBJECTS for colour in COLOURS]
    counted = [is_held_out(SceneSpec(first=p, count=n)) for p in pairs for n in COUNTS]
    related = [
        is_held_out(SceneSpec(first=p, relation=relation, second=Item(kind="cat")))
        for p in pairs
        for relation in RELATIONS
    ]
    assert np.mean(counted) == pytest.approx(0.04, abs=0.02)
    assert np.mean(related) == pytest.approx(0.08, abs=0.025)


def test_every_object_is_seen_in_most_colours_in_every_context():
    for kind in OBJECTS:
        for relation in RELATIONS:
            specs = [
                SceneSpec(
                    first=Item(kind=kind, colour=c), relation=relation, second=Item(kind="cat")
                )
                for c in COLOURS
            ]
            assert sum(map(is_held_out, specs)) <= 4


def test_the_training_mix_is_as_described():
    specs = random_specs(3000)
    relations = np.mean([spec.relation is not None for spec in specs])
    counts = np.mean([spec.count > 1 for spec in specs])
    # Rejecting held-out specs removes more relations, which name two objects, than counts.
    assert relations == pytest.approx(0.35, abs=0.05)
    assert counts == pytest.approx(0.20, abs=0.03)
    assert np.mean([spec.setting is not None for spec in specs]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([spec.first.colour is not None for spec in specs]) == pytest.approx(
        0.85, abs=0.03
    )


def test_evaluation_prompts_are_distinct_held_out_and_fixed_by_the_seed():
    prompts = evaluation_prompts(200, seed=1)
    assert len(set(prompts)) == 200
    assert prompts == evaluation_prompts(200, seed=1)
    assert prompts != evaluation_prompts(200, seed=2)
    assert all(is_held_out(parse_prompt(prompt)) for prompt in prompts)
    assert not any(
        is_held_out(parse_prompt(prompt))
        for prompt in evaluation_prompts(200, seed=1, held_out=False)
    )


def test_sampling_is_fixed_by_the_seed():
    spec = parse_prompt("a cat beside a house")
    scenes = [sample_scene(spec, np.random.default_rng(9)) for _ in range(2)]
    assert scenes[0] == scenes[1]
