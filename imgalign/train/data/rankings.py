"""Where rankings come from: the store, folders of pairs of images, and tables of images.

Left out: what is made of them (given_rankings.py), and rankings of texts in files (texts.py).
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from imgalign.config import PathText, refuse_ineffective
from imgalign.errors import InputError
from imgalign.images import read_tensor
from imgalign.preferences import address
from imgalign.preferences.foreign.pair_folder import read_pair_folder
from imgalign.preferences.foreign.table import read_table
from imgalign.preferences.judges import chosen_rankings
from imgalign.preferences.records import JudgedBy, Samples
from imgalign.preferences.store import Store
from imgalign.train.data.given_rankings import GivenRankingsConfig
from imgalign.train.data.judged import Given, SampleLoader, from_store, of_files, present
from imgalign.train.data.kept_texts import loader_of
from imgalign.train.data.noise import provenance_of, refuse_other_model, refuse_other_size


class RankingsConfig(GivenRankingsConfig):
    """Rankings made in the app, by simulated annotators or AI judges, or imported."""

    source: Literal["rankings"] = Field("rankings", alias="from")
    """Where the data comes from."""

    database: PathText | None = None
    """File or URL of the rankings. Null takes IMGALIGN_DATABASE, where a URL with a password
    belongs, or imgalign.db in this folder."""

    originals: Path | None = None
    """Folder of the ranked images, where the database does not know it."""

    project: str | None = None
    """Only rankings of this project. Null takes all but blind comparisons of models (projects whose
    names end in -compare), which test what was learned."""

    group: str | None = None
    """Only rankings of annotators of this group."""

    annotator: str | None = None
    """Only rankings of this annotator."""

    judged_by: JudgedBy = "people"
    """Rankings by people, with simulated annotators in their place, by AI judges, or all of them,
    mixed."""

    samples: Samples = "images"
    """Rankings of images, or of texts."""

    noise: Literal["fresh", "provenance"] = "fresh"
    """The noise with which images are scored: drawn anew each time, or that from which the image
    was generated, by the seed in its provenance (arXiv:2605.09433). The latter needs images that
    this model generated at its own size."""

    @property
    def given_samples(self) -> Samples:
        """As the settings say."""
        return self.samples

    def read(self) -> Given:
        """Those of the database that say something, and whose images are there."""
        asked = {"project": self.project, "group": self.group, "annotator": self.annotator}
        filters = ", ".join(f"data.{name}={value}" for name, value in asked.items() if value)
        where = f"the rankings{f' with {filters}' if filters else ''}"
        with self.opened() as store:
            found = chosen_rankings(
                store,
                self.samples,
                judged_by=self.judged_by,
                **asked,
                where=where,
                option="data.judged_by=",
            )
            made = provenance_of(store, found) if self.noise == "provenance" else {}
            judged = from_store(found, seeds={image: own.seed for image, own in made.items()})
            if not judged:
                skipped = f"{len(found)} skipped ones and no other" if found else "none"
                raise InputError(
                    f"{where}: expected rankings, got {skipped}; "
                    f"rank {self.samples} with imgalign ui first"
                )
            if self.samples == "texts":
                keys = dict.fromkeys(key for each in judged for key in each.images)
                load = loader_of({key: store.text(key) for key in keys})
                return Given(rankings=judged, load=load, where=where)
            kept = present(judged, store.images)
            return Given(rankings=kept, load=self.loader(), where=where, provenance=made)

    def refuse_model(self, model: str) -> None:
        """Another one than generated the images, where these are scored with their own noise."""
        refuse_other_model(self.given.provenance, model)

    def refuse_size(self, width: int, height: int) -> None:
        """Another one than the images were generated in."""
        refuse_other_size(self.given.provenance, (width, height))

    def loader(self, run: Path | None = None) -> SampleLoader:
        """Loads originals, and checks each against its hash; texts are those that the run keeps."""
        if self.samples == "texts":
            return super().loader(run)
        with self.opened() as store:
            images = store.images
        return lambda image_id: read_tensor(images.checked(image_id))[None]

    def opened(self) -> Store:
        """The database, which must exist."""
        database: str | Path | None = self.database
        if database is not None and "://" not in str(database):
            database = Path(database).expanduser()
        return Store.open(
            database, images=self.originals, create=False, images_named_by="data.originals"
        )

    @model_validator(mode="after")
    def _texts_have_no_originals_and_are_not_made_from_noise(self) -> "RankingsConfig":
        if self.samples == "texts":
            refuse_ineffective(self, ["originals", "noise"], "with samples: texts")
        return self

    @model_validator(mode="after")
    def _a_password_is_not_written_down(self) -> "RankingsConfig":
        if self.database is not None and address.has_password(self.database):
            raise ValueError(
                "database: a URL with a password would be written into the run's config.yaml; give "
                "it by the environment variable IMGALIGN_DATABASE"
            )
        return self


class FolderConfig(GivenRankingsConfig):
    """Pairs of images: in chosen/ and rejected/, in w/ and l/, or x.png and x-rejected.png."""

    source: Literal["folder"] = Field("folder", alias="from")
    """Where the data comes from."""

    folder: Path
    """Its layout is explained in docs/pairs.md; prompts are in text files beside the chosen
    images."""

    def read(self) -> Given:
        """The pairs; what is left out is said."""
        return of_files(read_pair_folder(self.folder))


class TableConfig(GivenRankingsConfig):
    """Pairs or ranked lists in a parquet or JSON-lines file, or a folder of such files."""

    source: Literal["table"] = Field("table", alias="from")
    """Where the data comes from."""

    file: Path
    """Its columns are explained in docs/pairs.md."""

    def read(self) -> Given:
        """The rows; what is left out is said."""
        return of_files(read_table(self.file))
