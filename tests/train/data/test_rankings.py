"""Claims: each ranking comes once before any comes again; held-out prompts stay out; what cannot be
read is named and left out; a run keeps the rankings that it began with."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from random_walk import RandomWalk
from torch import Tensor
from torch.testing import assert_close
from worlds import in_two

from imgalign.errors import CheckpointError, ConfigError, InputError, StoreError
from imgalign.preferences.foreign.records import GivenRanking
from imgalign.preferences.records import ELSEWHERE
from imgalign.prompts import Prompts
from imgalign.runs.world import Alone, World
from imgalign.train.config import TrainConfig
from imgalign.train.data.encoded import EncodedSamples
from imgalign.train.data.given_rankings import GivenRankings
from imgalign.train.data.judged import RECORD, read_record, write_record
from imgalign.train.data.rankings import FolderConfig, RankingsConfig, TableConfig
from imgalign.train.data.source import Parts
from imgalign.train.watcher import Interrupted, Watcher

PROMPTS = ["a red fox", "a blue boat", "a green tree"]


def judged(count: int = 6) -> list[GivenRanking]:
    return [
        GivenRanking(
            prompt=PROMPTS[number % 3],
            images=(f"{number}a", f"{number}b"),
            ranks=(0, 1),
        )
        for number in range(count)
    ]


NOWHERE = Path("no folder of a run")


def pixels(image: str) -> Tensor:
    if image.startswith("lost"):
        raise InputError(f"{image}: no such file")
    return torch.full((1, 3, 4, 4), int(image[:-1]) / 10 + (0.05 if image[-1] == "b" else 0.0))


def source(
    rankings: Sequence[GivenRanking],
    *,
    policy: RandomWalk | None = None,
    world: World | None = None,
    held_out: Sequence[str] = (),
    encoded: EncodedSamples | None = None,
    run: Path = NOWHERE,
    **settings: object,
) -> GivenRankings:
    return GivenRankings(
        RankingsConfig.model_validate(settings),
        rankings,
        pixels,
        policy=policy or RandomWalk(),
        reward=None,
        encoded=encoded or EncodedSamples(None),
        held_out=held_out,
        run=run,
        seed=0,
        world=world or Alone(),
    )


def test_every_ranking_comes_once_before_any_comes_again_and_the_order_is_new():
    given = source(judged(), rankings_per_iteration=2)
    seen = [
        tuple(row.tolist())
        for iteration in range(6)
        for row in given.batch(iteration).data.content["latents"][::2, 0, 0]
    ]
    first, second = seen[:6], seen[6:]
    assert len(set(first)) == len(set(second)) == 6
    assert set(first) == set(second)
    assert first != second
    again = source(judged(), rankings_per_iteration=2).batch(3)
    assert torch.equal(
        again.data.content["latents"], given.batch(3).data.content["latents"]
    )  # a function of seed and iteration


def test_a_ranking_keeps_its_images_together_in_the_order_of_its_ranks():
    other = GivenRanking(prompt="a red fox", images=("7a", "8a", "9a"), ranks=(1, 0, 1), weight=2.0)
    bad = GivenRanking(prompt="a red fox", images=("1a", "2a"), ranks=(-1, -1), all_bad=True)
    batch = source([other, bad]).batch(0)
    rows = {each.tolist()[2] >= 0: row for row, each in enumerate(batch.index)}
    three, two = rows[True], rows[False]
    assert batch.ranks[three].tolist() == [1, 0, 1]
    assert batch.ranks[two].tolist() == [-1, -1, -1]
    assert batch.all_bad.tolist()[two]
    assert batch.weights[three] == 2
    latents = batch.data.content["latents"][batch.index[three]]
    expected = torch.cat([pixels(name).clamp(1e-4).logit() for name in other.images])
    assert_close(latents, expected[:, :, :2, :2])


def test_a_batch_says_whether_any_ranking_ties_be_it_held_out_or_of_another_batch():
    for place in (0, 5):
        some = judged()
        some[place] = replace(some[place], ranks=(0, 0))
        given = source(some, rankings_per_iteration=1, held_out=[PROMPTS[2]])
        batches = [*(given.batch(number) for number in range(4)), given.held_out()]
        assert all(each is not None and each.ties for each in batches)
    assert source(judged(), rankings_per_iteration=1).batch(0).ties is False


def test_rankings_of_held_out_prompts_are_measured_and_not_learned_from():
    given = source(judged(12), held_out=["A  red fox"], held_out_rankings=3)
    assert set(given.batch(0).data.prompts) == set(PROMPTS[1:])
    batch = given.held_out()
    assert batch is not None
    assert set(batch.data.prompts) == {"a red fox"}
    assert batch.num_rankings == 3
    assert source(judged()).held_out() is None


def test_images_are_encoded_once_and_by_the_next_run_not_at_all(tmp_path):
    class Counting(RandomWalk):
        encodings = 0

        def encode(self, prompts, samples):
            type(self).encodings += 1
            return super().encode(prompts, samples)

    for _ in range(2):
        given = source(judged(), policy=Counting(), encoded=EncodedSamples(tmp_path))
        given.batch(0)
        given.batch(1)
    assert Counting.encodings == 12


def test_two_processes_share_the_encoding_and_have_the_rankings_of_one(tmp_path):
    expected = source(judged(), rankings_per_iteration=4).batch(0)

    def work(world: World) -> Tensor:
        given = source(
            judged(), world=world, encoded=EncodedSamples(tmp_path), rankings_per_iteration=4
        )
        return given.batch(0).data.content["latents"]

    assert torch.equal(torch.cat(in_two(work)), expected.data.content["latents"])


def test_fewer_held_out_rankings_than_processes_are_refused_before_anything_is_learned():
    held_out = judged()[0].prompt

    def work(world: World) -> None:
        source(judged(), world=world, held_out=[held_out], held_out_rankings=1).batch(0)

    with pytest.raises(ConfigError, match=r"data\.held_out: expected at least 2 .* got 1; start"):
        in_two(work)
    config = RankingsConfig(held_out_rankings=1)
    config.refuse_measured(0, num_processes=2)
    config.refuse_measured(5, num_processes=1)


def test_rankings_with_an_image_that_cannot_be_read_are_left_out_and_it_is_named(tmp_path, caplog):
    broken = GivenRanking(prompt="a red fox", images=("0a", "lost1"), ranks=(0, 1))
    for again in range(2):  # the second as of a resumed run
        (tmp_path / "left_out.txt").write_text("row 7: no label\n") if not again else None
        given = source([broken, broken, *judged()], run=tmp_path)
        assert given.batch(0).num_rankings == 6
    said = "images that cannot be used: 1, with which 2 of 8 rankings are left out, see "
    assert said in caplog.text
    assert "(lost1: no such file)" in caplog.text
    expected = "row 7: no label\nimage lost1: lost1: no such file\n"
    assert (tmp_path / "left_out.txt").read_text() == expected
    with pytest.raises(InputError, match="none of the rankings is left to learn from"):
        source([broken], run=tmp_path).batch(0)


def test_more_rankings_than_there_are_is_an_error_with_the_number():
    with pytest.raises(ConfigError, match=r"expected 1 to 6, .* got 7"):
        source(judged(), rankings_per_iteration=7).batch(0)
    assert source(judged()).batch(0).num_rankings == 6  # not asked for: all there are


def test_a_stop_while_images_are_encoded_ends_at_once():
    given = source(judged())
    with pytest.raises(Interrupted):
        given.batch(0, watcher=Watcher(stop_requested=lambda: True))


# --- the record


def test_a_resumed_run_learns_from_the_rankings_that_it_began_with(tmp_path, ranked_store):
    config = RankingsConfig.model_validate({"database": str(ranked_store)})
    given = config.given
    config.keep(tmp_path)
    assert read_record(tmp_path / RECORD) == given.rankings
    write_record(tmp_path / RECORD, given.rankings[:1])
    source = config.build(
        Parts(
            policy=RandomWalk(),
            reward=None,
            prompts=Prompts(("prompt 0",), ()),
            run=tmp_path,
            seed=0,
            world=Alone(),
        )
    )
    batch = source.batch(0)
    assert batch.data.prompts == [given.rankings[0].prompt] * 2
    expected = torch.cat([given.load(image) for image in given.rankings[0].images])
    encoded = RandomWalk().encode(["", ""], expected).content["latents"]
    assert torch.equal(batch.data.content["latents"], encoded)


def test_a_damaged_record_is_a_checkpoint_error(tmp_path):
    path = tmp_path / RECORD
    with pytest.raises(CheckpointError, match="missing or damaged"):
        read_record(path)
    for line in ("[1]", '{"images": ["a"], "ranks": []}', "{", json.dumps({"prompt": "a"})):
        path.write_text(line + "\n")
        with pytest.raises(CheckpointError, match="start a new run"):
            read_record(path)


def test_filters_that_leave_nothing_are_named_with_what_there_is(ranked_store):
    config = {"database": str(ranked_store), "project": "nowhere", "annotator": "Ada"}
    with pytest.raises(InputError) as error:
        RankingsConfig.model_validate(config).read()
    assert str(error.value) == (
        "the rankings with data.project=nowhere, data.annotator=Ada: expected rankings, got none; "
        "there are: annotator ann, project default"
    )


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_pairs_of_a_folder_and_of_a_table_are_rankings_of_two(tmp_path, kind):
    pairs = tmp_path / "pairs"
    for number in range(4):
        for side, colour in (("chosen", (0, 40 * number, 0)), ("rejected", (40 * number, 0, 9))):
            (pairs / side).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), colour).save(pairs / side / f"{number}.png")
        (pairs / "chosen" / f"{number}.txt").write_text(f"prompt {number}")
    rows = [
        {"prompt": f"prompt {n}", "chosen": f"chosen/{n}.png", "rejected": f"rejected/{n}.png"}
        for n in range(4)
    ]
    (pairs / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    places = {"folder": {"folder": str(pairs)}, "table": {"file": str(pairs / "pairs.jsonl")}}
    data = TrainConfig.model_validate(
        {"algorithm": {"name": "dpo"}, "data": {"from": kind, **places[kind]}}
    ).data
    assert isinstance(data, FolderConfig | TableConfig)
    given = data.given
    assert sorted(each.prompt for each in given.rankings) == [f"prompt {n}" for n in range(4)]
    assert {each.ranks for each in given.rankings} == {(0, 1)}
    two = next(each for each in given.rankings if each.prompt == "prompt 2")
    assert_close(given.load(two.images[0])[0, :, 0, 0], torch.tensor([0.0, 80 / 255, 0.0]))
    assert data.load_prompts().training
    with pytest.raises(InputError, match="the image 0000 of this run is no longer there"):
        given.load("0000")


def test_known_noise_of_each_image_is_what_it_is_scored_with():
    policy = RandomWalk()
    seeded = [replace(each, seeds=(7 + place, 50 + place)) for place, each in enumerate(judged())]
    batch = source(seeded, policy=policy, rankings_per_iteration=6).batch(0)
    drawn = policy.draw(batch.data, seeds=range(len(batch.data)))
    expected = {
        image: policy.starting_noise([seed])["noise"][0]
        for each in seeded
        for image, seed in zip(each.images, each.seeds or (), strict=True)
    }
    own = torch.stack(list(expected.values()))
    assert len(own.unique(dim=0)) == 12
    for row in drawn.noise:
        assert (own == row).flatten(1).all(dim=1).sum() == 1
    fresh = source(judged(), policy=policy, rankings_per_iteration=6).batch(0)
    assert not torch.equal(policy.draw(fresh.data, seeds=range(12)).noise, drawn.noise)


def test_seeds_of_the_provenance_are_kept_with_the_rankings(tmp_path, ranked_store):
    config = RankingsConfig.model_validate({"database": str(ranked_store), "noise": "provenance"})
    config.keep(tmp_path)
    kept = read_record(tmp_path / RECORD)
    assert {each.prompt: each.seeds for each in kept} == {
        "prompt 0": (0, 1),
        "prompt 1": (10, 11),
        "prompt 2": (20, 21),
    }


def test_a_folder_of_images_that_does_not_fit_is_called_as_the_setting_is(tmp_path, ranked_store):
    images = ranked_store.parent / "images"
    elsewhere = {"database": str(ranked_store), "originals": str(tmp_path / "elsewhere")}
    with pytest.raises(StoreError, match=r"images; leave out data\.originals, or move"):
        RankingsConfig.model_validate(elsewhere).read()
    images.rename(tmp_path / "moved")
    with pytest.raises(StoreError, match=r"say where they are with data\.originals=FOLDER$"):
        RankingsConfig.model_validate({"database": str(ranked_store)}).read()
    with sqlite3.connect(ranked_store) as database:
        database.execute("DELETE FROM folders")
    database.close()
    with pytest.raises(StoreError, match=r"say where they are with data\.originals=FOLDER$"):
        RankingsConfig.model_validate({"database": str(ranked_store)}).read()


def test_the_noise_of_images_made_elsewhere_is_not_known(ranked_store):
    with sqlite3.connect(ranked_store) as database:
        database.execute(
            "UPDATE provenances SET imgalign_version = ? WHERE seed IN (11, 30)", [ELSEWHERE]
        )
    database.close()
    config = RankingsConfig.model_validate({"database": str(ranked_store), "noise": "provenance"})
    said = r"got 1 of 6 images \(such as \w{8}\) that were made elsewhere; use data.noise=fresh"
    with pytest.raises(ConfigError, match=said):
        config.read()


def test_the_noise_of_images_is_that_of_the_model_which_generated_them(ranked_store):
    def config(noise: str) -> RankingsConfig:
        return RankingsConfig.model_validate({"database": str(ranked_store), "noise": noise})

    config("provenance").refuse_model("m")
    config("provenance").refuse_model("/elsewhere/m")
    with sqlite3.connect(ranked_store) as database:
        database.execute("UPDATE provenances SET adapter = 'runs/a', adapter_hash = 'b'")
        database.execute("UPDATE provenances SET model = 'owner/n' WHERE seed IN (11, 30)")
    database.close()
    said = (
        r"^data\.noise: provenance: expected images generated by policy\.model, 'm', got 1 of 6 "
        r"images \(such as \w{8}\) by 'owner/n', .*use data\.noise=fresh"
    )
    with pytest.raises(ConfigError, match=said):
        config("provenance").refuse_model("m")
    with pytest.raises(ConfigError, match="got 5 of 6 images"):
        config("provenance").refuse_model("owner/n")
    config("fresh").refuse_model("m")
