"""The storybook as pixels."""

import itertools
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from imgalign.storybook.drawing import TUBES, draw
from imgalign.storybook.layout import sample_scene
from imgalign.storybook.scenes import (
    COLOURS,
    OBJECTS,
    SETTINGS,
    WIDTHS,
    Placed,
    Scene,
    sample_spec,
)
from imgalign.storybook.shapes import sketch


def scene_of(kind: str, colour: str, *, setting: str = "room", flip: bool = False) -> Scene:
    size = min(0.6, 0.9 / WIDTHS[kind])
    item = Placed(kind=kind, colour=colour, x=0.5, y=0.5, size=size, flip=flip)
    return Scene(setting=setting, items=(item,))


def pixels(scene: Scene, *, size: int = 64) -> NDArray[np.float64]:
    return np.asarray(draw(scene, size=size), dtype=np.float64)


def object_mask(scene: Scene, *, size: int) -> NDArray[np.bool_]:
    """Where the object is drawn: what two very different settings agree on."""
    views = [
        pixels(Scene(setting=setting, items=scene.items), size=size)
        for setting in ("night", "snow")
    ]
    return np.asarray(np.abs(views[0] - views[1]).max(axis=-1) < 4)


@pytest.mark.parametrize("kind", OBJECTS)
def test_the_layout_knows_how_wide_each_drawing_is(kind: str):
    drawing = sketch(kind)
    assert drawing.width == pytest.approx(WIDTHS[kind], abs=0.006)
    assert drawing.points[:, 1].min() == pytest.approx(0)
    assert drawing.points[:, 1].max() == pytest.approx(1)


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_same_scene_gives_the_same_bytes(setting: str):
    scene = scene_of("cat", "red", setting=setting)
    assert draw(scene).tobytes() == draw(scene).tobytes()


@pytest.mark.parametrize("size", [32, 64, 128])
def test_images_are_rgb_and_of_the_size_asked_for(size: int):
    image = draw(scene_of("house", "blue"), size=size)
    assert (image.mode, image.size) == ("RGB", (size, size))


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("kind", OBJECTS)
def test_the_named_colour_fills_most_of_the_object(kind: str, colour: str):
    scene = scene_of(kind, colour)
    seen = pixels(scene, size=128)[object_mask(scene, size=128)]
    tube = TUBES[colour]
    named = np.array([tube.main, tube.deep, tube.pale], dtype=np.float64)
    distance = np.linalg.norm(seen[:, None] - named, axis=-1).min(axis=1)
    assert np.mean(distance < 60) >= 0.55


@pytest.mark.parametrize("kind", OBJECTS)
def test_no_colour_passes_for_another(kind: str):
    mains = np.array([TUBES[colour].main for colour in COLOURS], dtype=np.float64)
    for k, colour in enumerate(COLOURS):
        for warmth in (-1.0, 1.0):
            scene = Scene(setting="snow", items=scene_of(kind, colour).items, warmth=warmth)
            seen = pixels(scene)[object_mask(scene, size=64)]
            distances = np.linalg.norm(seen[:, None] - mains, axis=-1)
            near = distances.min(axis=1) < 60
            votes = np.bincount(distances[near].argmin(axis=1), minlength=len(COLOURS))
            assert votes.argmax() == k


def test_every_object_differs_from_every_other():
    views = {kind: pixels(scene_of(kind, "red")) for kind in OBJECTS}
    for a, b in itertools.combinations(OBJECTS, 2):
        assert np.abs(views[a] - views[b]).mean() > 5, (a, b)


@pytest.mark.parametrize("setting", SETTINGS)
def test_backdrops_are_greyer_than_every_object(setting: str):
    view = pixels(Scene(setting=setting, items=()))
    chroma = view.max(axis=-1) - view.min(axis=-1)
    weakest = min(max(tube.main) - min(tube.main) for tube in TUBES.values())
    assert np.percentile(chroma, 99) < weakest + 5


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("colour", COLOURS)
def test_every_colour_stands_out_in_every_setting(setting: str, colour: str):
    view = pixels(Scene(setting=setting, items=()))
    distance = np.linalg.norm(view - np.array(TUBES[colour].main), axis=-1)
    assert np.percentile(distance, 1) > 40


def test_a_mirrored_object_is_drawn_in_a_mirror():
    item = scene_of("car", "blue").items[0]
    mirrored = scene_of("car", "blue", flip=True).items[0]
    plain = pixels(Scene(setting="snow", items=(item,), shade=0.0))
    mirror = pixels(Scene(setting="snow", items=(mirrored,), shade=0.0))[:, ::-1]
    mask = object_mask(Scene(setting="snow", items=(item,)), size=64)
    assert np.abs(plain - mirror)[mask].mean() < 12


def test_the_style_of_a_scene_shows():
    usual = scene_of("cat", "red")
    for style in ({"outline": 1.4}, {"shade": 1.0}, {"light_from": 0.8}, {"warmth": 1.0}):
        styled = Scene(setting="room", items=usual.items, **style)
        assert draw(styled).tobytes() != draw(usual).tobytes(), style


def test_a_image_takes_a_few_milliseconds():
    rng = np.random.default_rng(0)
    scenes = [sample_scene(sample_spec(rng), rng) for _ in range(60)]
    medians: list[float] = []
    for _ in range(3):
        seconds: list[float] = []
        for scene in scenes:
            # Time of this thread, not of the clock: other work on the machine is not the drawing's.
            start = time.thread_time()
            draw(scene)
            seconds.append(time.thread_time() - start)
        medians.append(float(np.median(seconds)))
    assert min(medians) < 0.006
