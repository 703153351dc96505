"""Image files that are scored: those that can be read, and those that are damaged or gone."""

import pytest
from PIL import Image

import reward_models
from imgalign.errors import InputError, StoreError
from imgalign.images import png, to_image
from imgalign.preferences.splits import three_way_split
from reward_models.evaluate import evaluate, score_files
from reward_models.fit import fit


def test_files_are_scored_like_tensors(fitted, world, tmp_path):
    out, _ = fitted
    images, redness, _ = world
    names = sorted(redness, key=redness.__getitem__)
    for name in (names[0], names[-1]):
        (tmp_path / f"{name}.png").write_bytes(png(to_image(images[name])))
    files = [tmp_path / f"{names[0]}.png", tmp_path / f"{names[-1]}.png"]
    reward = reward_models.load(out)
    dull, red = score_files(reward, files, ["a cat"])
    assert dull.score < red.score
    assert (red.path, red.prompt) == (files[1], "a cat")


def test_scoring_a_corrupt_file_names_it(fitted, tmp_path):
    out, _ = fitted
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(InputError, match=r"no image can be read; the first: .*broken.png: damaged"):
        score_files(reward_models.load(out), [broken], ["a cat"])


def lossy(images, lost):
    """A loader to which some files are damaged or gone."""

    def load(name):
        if name in lost:
            raise (StoreError if lost.index(name) % 2 else InputError)(f"{name}.png: damaged")
        return images[name]

    return load


def test_a_lost_image_leaves_its_rankings_out_of_the_fit_and_is_named(
    world, config, tmp_path, caplog
):
    images, _, rankings = world
    lost = [rankings[0].sample_ids[0], rankings[5].sample_ids[3]]
    report = fit(rankings, lossy(images, lost), config, tmp_path / "reward")
    assert report.counts.unreadable == 2
    assert report.counts.ranked == len(rankings) - 2
    assert sum(report.num_rankings.values()) == len(rankings) - 2
    assert "2 with a sample that cannot be read" in report.lines()[0]
    assert [f"{name}.png: damaged" for name in lost] == caplog.messages[:2]
    assert "2 images cannot be read, so 2 of 60 rankings are left out" in caplog.messages


def test_a_lost_image_leaves_its_ranking_out_of_an_evaluation(fitted, world, caplog):
    images, _, rankings = world
    reward = reward_models.load(fitted[0])
    tested = three_way_split(rankings, validation=0.15, test=0.2, seed=0).test
    found = evaluate(reward, rankings, lossy(images, [tested[0].sample_ids[1]]))
    rest = [ranking for ranking in rankings if ranking is not tested[0]]
    assert found.accuracy == evaluate(reward, rest, images.__getitem__).accuracy
    assert "1 image cannot be read, so 1 of" in caplog.text


def test_nothing_but_lost_images_is_an_error_that_names_one(world, config, tmp_path):
    images, _, rankings = world
    with pytest.raises(InputError, match=r"240 images cannot be read; the first: 000.png: damaged"):
        fit(rankings, lossy(images, sorted(images)), config, tmp_path / "reward")


def test_a_lost_file_does_not_keep_the_others_from_their_scores(fitted, world, tmp_path):
    images = world[0]
    files = [tmp_path / f"{number}.png" for number in range(4)]
    for number in (0, 1, 3):
        files[number].write_bytes(png(to_image(images[f"{number:03}"])))
    files[1].write_bytes(files[1].read_bytes()[:100])
    reward = reward_models.load(fitted[0])
    prompts = ["a cat", "a fox", "a tree", "a boat"]
    found = score_files(reward, files, prompts)
    alone = score_files(reward, [files[0], files[3]], ["a cat", "a boat"])
    assert [each.score for each in found] == [alone[0].score, None, None, alone[1].score]
    assert found[1].problem.startswith(f"{files[1]}: damaged image")
    assert found[2].problem == f"{files[2]}: no such file"
    with pytest.raises(InputError, match=r"no image can be read; the first: .*1.png: damaged"):
        score_files(reward, files[1:3], ["a cat"])


def test_a_photograph_is_scored_as_it_is_seen(fitted, tmp_path):
    upright = Image.new("RGB", (16, 16), "red")
    upright.paste("blue", (0, 0, 16, 5))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter to the right before it is shown
    upright.save(tmp_path / "upright.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.png")
    files = [tmp_path / f"{name}.png" for name in ("upright", "turned", "lying")]
    model = reward_models.load(fitted[0])
    # One at a time: rows of one batch may be rounded differently.
    first, second, third = (score_files(model, [file], ["a cat"])[0] for file in files)
    assert first.score == second.score != third.score
