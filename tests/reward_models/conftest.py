import pytest
from red_world import make_images, make_rankings
from tiny_clip import write_clip

from imgalign.preferences.fit_report import Ceiling
from reward_models.fit import FitConfig, fit


@pytest.fixture(scope="session")
def make_clip():
    return write_clip


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("towers") / "clip")


@pytest.fixture(scope="session")
def world():
    images, redness = make_images(240)
    return images, redness, make_rankings(redness)


@pytest.fixture(scope="session")
def config(clip_folder):
    return FitConfig(
        clip=str(clip_folder), epochs=15, batch_size=8, learning_rate=1e-2, prior_stds=(3.0,)
    )


@pytest.fixture(scope="session")
def fitted(world, config, tmp_path_factory):
    images, _, rankings = world
    out = tmp_path_factory.mktemp("fits") / "reward"
    ceiling = Ceiling(value=1.0, meaning="noiseless labels")
    return out, fit(rankings, images.__getitem__, config, out, ceiling=ceiling)


@pytest.fixture(scope="module", params=[True, False], ids=["likelihood", "head alone"])
def likelihood(request) -> bool:
    return bool(request.param)
