"""Formats of public data sets: what is written is what their documentation says, and is read back
as the same rankings."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from provenances import provenance
from pyarrow import parquet
from submissions import judge, on_screen

from imgalign.errors import InputError
from imgalign.images import jpeg, png, read_image_file
from imgalign.preferences.foreign.field_export import export_field
from imgalign.preferences.foreign.formats import FieldFormat
from imgalign.preferences.foreign.table import read_table
from imgalign.preferences.identity import person
from imgalign.preferences.records import Ranking, TieGroups, ranks
from imgalign.preferences.store import Store

FORMATS: tuple[FieldFormat, ...] = get_args(FieldFormat)
LISTS: tuple[FieldFormat, ...] = ("image_reward_db", "hpd_v2")
STRICT: tuple[FieldFormat, ...] = ("hpd_v2_pairs", "hpd_v3")
Add = Callable[..., list[str]]


@pytest.fixture
def add(store: Store) -> Add:
    """Queue noisy images of a prompt for some annotators; gives the ids of the images."""

    def add(prompt: str, judged: dict[str, TieGroups | None], num_images: int = 3) -> list[str]:
        random = np.random.default_rng(len(prompt))
        pixels = random.integers(0, 256, (num_images, 16, 16, 3), dtype=np.uint8)
        ids = [
            store.add_image(png(Image.fromarray(each)), provenance(prompt=prompt, seed=number))
            for number, each in enumerate(pixels)
        ]
        store.add_item(prompt, ids, source="test", overlap=len(judged))
        for who, groups in judged.items():
            item = store.next_item(person(who))
            if groups is None:
                store.submit(judge(item, person(who), ranking=None, verdict="all_bad"))
            else:
                shown = on_screen(store, item, groups, person(who))
                store.submit(judge(item, person(who), ranking=shown))
        return ids

    return add


@pytest.fixture
def judged(store: Store, add: Add) -> Store:
    for name in ("Bob Smith", "cy"):
        store.add_annotator(name)
    add(
        "A red fox,\nin the  snow: naïve 🦊",
        {"ann": ((2,), (0, 1)), "Bob Smith": ((1,), (2,), (0,)), "cy": ((0, 1, 2),)},
    )
    add("two", {"ann": ((1,), (0,)), "Bob Smith": None}, num_images=2)
    add("seven", {"cy": ((6, 0), (3,), (1, 2, 4), (5,))}, num_images=7)
    return store


def place(folder: Path, layout: FieldFormat) -> Path:
    return folder / ("out.parquet" if layout == "pick_a_pic" else "out")


def listed(rankings: Any, names: Callable[[str], str] = str) -> Counter[Any]:
    """Each ranking as its prompt on one line and the rank of each image."""
    return Counter(
        (
            " ".join(each.prompt.split()),
            frozenset(zip(map(names, each.sample_ids), ranks(each), strict=True))
            if isinstance(each, Ranking)
            else frozenset(zip(each.images, each.ranks, strict=True)),
        )
        for each in rankings
    )


def paired(of_lists: Counter[Any], *, ties: bool) -> Counter[Any]:
    """The pairs of images of lists, each with ranks 0 and 1, or 0 and 0."""
    found: Counter[Any] = Counter()
    for (prompt, images), number in of_lists.items():
        places = sorted(images)
        for at, (one, rank) in enumerate(places):
            for other, its in places[at + 1 :]:
                if ties or rank != its:
                    pair = frozenset({(one, int(rank > its)), (other, int(its > rank))})
                    found[prompt, pair] += number
    return found


@pytest.mark.parametrize("layout", LISTS)
def test_lists_are_read_back_as_the_same_rankings_with_ties(
    judged: Store, tmp_path: Path, layout: FieldFormat
):
    exported = export_field(judged.rankings(), judged, tmp_path / "out", layout=layout)
    found = read_table(tmp_path / "out")
    assert found.left_out == found.notes == ()
    assert listed(found.rankings) == listed(
        each for each in judged.rankings() if each.verdict == "ranked"
    )
    assert exported.num_rankings == len(found.rankings) == 5
    assert exported.lines() == [
        f"{tmp_path / 'out'}: {exported.num_rows} rows of 5 rankings",
        "left out, all bad, for which the format has no place: 1",
    ]


@pytest.mark.parametrize("layout", STRICT)
def test_pairs_are_read_back_as_the_same_preferences_and_ties_are_counted(
    judged: Store, tmp_path: Path, layout: FieldFormat
):
    exported = export_field(judged.rankings(), judged, tmp_path / "out", layout=layout)
    found = read_table(tmp_path / "out")
    ranked = listed(each for each in judged.rankings() if each.verdict == "ranked")
    assert listed(found.rankings) == paired(ranked, ties=False)
    assert exported.num_rows == len(found.rankings) == 2 + 3 + 1 + 17
    assert exported.num_rankings == 4  # all tie in the fifth
    assert exported.lines()[1:] == [
        "left out, ties of two images, the format wants a better one: 8",
        "left out, all bad, for which the format has no place: 1",
    ]


def test_pick_a_pic_is_read_back_as_the_same_pairs_and_ties(judged: Store, tmp_path: Path):
    file = tmp_path / "out.parquet"
    exported = export_field(judged.rankings(), judged, file, layout="pick_a_pic")
    found = read_table(file)
    assert found.left_out == found.notes == ()

    def as_jpeg(image: str) -> str:
        return hashlib.sha256(jpeg(read_image_file(judged.image_path(image)))).hexdigest()

    kept = [each for each in judged.rankings() if each.verdict == "ranked"]
    assert listed(found.rankings) == paired(listed(kept, as_jpeg), ties=True)
    assert exported.num_rows == len(found.rankings) == 3 + 3 + 3 + 1 + 21


def test_pick_a_pic_has_the_columns_and_types_of_the_data_set(judged: Store, tmp_path: Path):
    file = tmp_path / "out.parquet"
    export_field(judged.rankings(), judged, file, layout="pick_a_pic")
    table = parquet.read_table(file)
    assert {each.name: str(each.type) for each in table.schema} == {
        "are_different": "bool",
        "best_image_uid": "string",
        "caption": "string",
        "created_at": "timestamp[ns]",
        "has_label": "bool",
        **{f"image_{side}_{what}": "string" for side in (0, 1) for what in ("uid", "url")},
        **{f"jpg_{side}": "binary" for side in (0, 1)},
        **{f"label_{side}": "double" for side in (0, 1)},
        **{f"model_{side}": "string" for side in (0, 1)},
        "num_example_per_prompt": "int64",
        "ranking_id": "int64",
        "user_id": "int64",
    }
    rows = table.to_pylist()
    rankings = [each for each in judged.rankings() if each.verdict == "ranked"]
    for row in rows:
        ranking = rankings[row["ranking_id"]]
        assert row["caption"] == ranking.prompt
        assert row["created_at"].to_pydatetime().replace(tzinfo=UTC) == ranking.created_at
        of = dict(zip(ranking.sample_ids, ranks(ranking), strict=True))
        zero, one = row["image_0_uid"], row["image_1_uid"]
        best = "tie" if of[zero] == of[one] else min((zero, one), key=lambda each: of[each])
        assert row["best_image_uid"] == best
        label = 0.5 if best == "tie" else float(best == zero)
        assert (row["label_0"], row["label_1"]) == (label, 1 - label)
        assert row["jpg_0"].startswith(b"\xff\xd8\xff")
    # ann, Bob Smith and cy by their first judgements
    assert {(row["ranking_id"], row["user_id"]) for row in rows} == {
        (number, ["ann", "bob smith", "cy"].index(each.annotator))
        for number, each in enumerate(rankings)
    }
    of_prompt = Counter(row["caption"] for row in rows)
    assert all(row["num_example_per_prompt"] == of_prompt[row["caption"]] for row in rows)


def entries(store: Store, out: Path, layout: FieldFormat) -> list[dict[str, Any]]:
    export_field(store.rankings(), store, out, layout=layout)
    (file,) = out.glob("*.json")
    return json.loads(file.read_text("utf-8"))


def test_folders_have_the_keys_and_types_of_the_data_sets(store: Store, add: Add, tmp_path: Path):
    ids = add("a fox", {"ann": ((1,), (0, 2)), "bob": ((1,), (2,), (0,))})
    paths = [f"images/{image}.png" for image in ids]
    assert entries(store, tmp_path / "a", "image_reward_db") == [
        {"id": "000000", "prompt": "a fox", "generations": paths, "ranking": [2, 1, 2]},
        {"id": "000001", "prompt": "a fox", "generations": paths, "ranking": [3, 1, 2]},
    ]
    assert entries(store, tmp_path / "b", "hpd_v2") == [
        {
            "prompt": "a fox",
            "image_path": paths,
            "rank": [2.5, 1.0, 2.0],
            "raw_annotations": [
                {"rank": [2, 1, 2], "user_hash": "0"},
                {"rank": [3, 1, 2], "user_hash": "1"},
            ],
        }
    ]
    first = entries(store, tmp_path / "c", "hpd_v2_pairs")[:2]
    assert first == [
        {"prompt": "a fox", "file_path": paths[:2], "human_preference": [0, 1]},
        {"prompt": "a fox", "file_path": paths[1:], "human_preference": [1, 0]},
    ]
    assert entries(store, tmp_path / "d", "hpd_v3")[0] == {
        "prompt": "a fox",
        "path1": paths[1],
        "path2": paths[0],
        "confidence": 1.0,
        "choice_dist": [1, 0],
        "model1": provenance().model,
        "model2": provenance().model,
    }
    for image, path in zip(ids, paths, strict=True):
        assert (tmp_path / "a" / path).read_bytes() == store.image_path(image).read_bytes()


@pytest.mark.parametrize("layout", FORMATS)
def test_no_format_has_names_of_annotators_or_paths_of_this_machine(
    store: Store, tmp_path: Path, layout: FieldFormat
):
    adapter = {"adapter": "/home/eve/runs/one/step-3", "adapter_hash": "0" * 64}
    ids = [
        store.add_image(png(Image.new("RGB", (8, 8), (n, 0, 0))), provenance(seed=n, **adapter))
        for n in range(2)
    ]
    store.add_item("a fox", ids, source="test")
    store.add_annotator("Zebedee", group="Quokka")
    store.submit(judge(store.next_item("zebedee"), "zebedee"))
    out = place(tmp_path, layout)
    export_field(store.rankings(), store, out, layout=layout)
    files = [out] if out.is_file() else [each for each in out.rglob("*") if each.is_file()]
    written = b"".join(file.read_bytes() for file in files).lower()
    for private in (b"zebedee", b"quokka", b"/home", b"eve/"):
        assert private not in written
    assert (b"one/step-3" in written) == (layout in ("pick_a_pic", "hpd_v3"))


@pytest.mark.parametrize("layout", FORMATS)
def test_without_anything_to_write_nothing_is_and_the_reasons_are_said(
    store: Store, add: Add, tmp_path: Path, layout: FieldFormat
):
    add("none", {"ann": None})
    with pytest.raises(InputError, match=r"no row to write: all bad, .*: 1; rank some"):
        export_field(store.rankings(), store, place(tmp_path, layout), layout=layout)
    if layout in STRICT:
        add("tied", {"ann": ((0, 1, 2),)})
        with pytest.raises(InputError, match="a better one: 3;"):
            export_field(store.rankings(), store, tmp_path / "out", layout=layout)
    assert list(tmp_path.glob("out*")) == []


def test_only_an_earlier_export_is_replaced(judged: Store, tmp_path: Path):
    out = tmp_path / "out"
    for layout in LISTS:
        export_field(judged.rankings(), judged, out, layout=layout)
    assert [each.name for each in out.glob("*.json")] == ["test.json"]
    (out / ".imgalign-export").unlink()
    with pytest.raises(InputError, match="expected a new folder or an earlier export"):
        export_field(judged.rankings(), judged, out, layout="hpd_v2")
    (tmp_path / "mine.parquet").touch()
    with pytest.raises(InputError, match="exists and is not replaced"):
        export_field(judged.rankings(), judged, tmp_path / "mine.parquet", layout="pick_a_pic")
    with pytest.raises(InputError, match=r"expected the name of a file in \.parquet"):
        export_field(judged.rankings(), judged, tmp_path / "new", layout="pick_a_pic")


def test_ranks_of_annotators_that_do_not_fit_the_mean_are_not_taken_for_ranks(
    judged: Store, tmp_path: Path
):
    export_field(judged.rankings(), judged, tmp_path / "out", layout="hpd_v2")
    file = tmp_path / "out" / "test.json"
    (row,) = (each for each in json.loads(file.read_text("utf-8")) if each["prompt"] == "two")
    for raw in ([{"rank": [1, 2], "user_hash": "0"}], [{"rank": [1]}], [{}], "x", None):
        file.write_text(json.dumps([row | {"raw_annotations": raw}]))
        (found,) = read_table(file).rankings
        assert found.ranks == (1, 0)  # the mean
