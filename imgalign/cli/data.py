"""Commands on the preference store: check it, export and import rankings, rate models."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from imgalign.cli.options import (
    Create,
    Database,
    Group,
    Images,
    JudgedBy,
    Project,
    changed,
    refuse_given,
)
from imgalign.preferences.foreign.formats import ExportFormat
from imgalign.preferences.wording import counted, there_are


def check(database: Database = None, images: Images = None) -> None:
    """Check every image against its hash, and every ranking against its item."""
    from imgalign.preferences.checking import check_store
    from imgalign.preferences.store import Store
    from imgalign.runs.progress import progress

    with Store.open(database, images=images, create=False) as store:
        with progress("checking") as on_progress:
            found = check_store(store, on_progress=on_progress)
        typer.echo("\n".join(found.lines()))
    raise typer.Exit(0 if found.passed else 2)


def export(
    file: Annotated[
        Path,
        typer.Argument(
            help="JSON lines, parquet (pick_a_pic), or a folder; an earlier export of rankings or "
            "in a folder is replaced."
        ),
    ],
    kind: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="All rankings in a file; chosen/ and rejected/ images; texts in JSON lines with "
            "the columns prompt, chosen, rejected; or images in the format of a public data set.",
        ),
    ] = "rankings",
    pairs: Annotated[
        Literal["all", "best_worst"] | None,
        typer.Option(
            help="Of each ranking, with --format pairs or text_pairs: all pairs (the default), or "
            "the best with the worst."
        ),
    ] = None,
    group: Group = None,
    project: Annotated[str | None, typer.Option(help="Only rankings of this project.")] = None,
    judged_by: JudgedBy = "people",
    database: Database = None,
    images: Images = None,
) -> None:
    """Write all rankings, items and annotators to a file, or images or texts for other trainers."""
    from imgalign.preferences.exchange import export_rankings
    from imgalign.preferences.exclusions import all_exclusions
    from imgalign.preferences.foreign.field_export import FieldExport, export_field
    from imgalign.preferences.foreign.pair_export import Exported, export_pairs
    from imgalign.preferences.foreign.text_export import export_text_pairs
    from imgalign.preferences.judges import chosen_rankings
    from imgalign.preferences.store import Store

    if kind == "rankings":
        ineffective = {"pairs": pairs, "group": group, "judged_by": judged_by}
        refuse_given(changed(export, ineffective), "without --format pairs or text_pairs")
        with Store.open(database, images=images, create=False) as store:
            num_rankings = export_rankings(store, file, project=project)
            written = counted(num_rankings, "ranking")
            typer.echo(f"{file}: {written}; copy {store.images.root} along with it")
            if excluded := all_exclusions(store.database, project=project):
                there = there_are(len(excluded), "exclusion")
                typer.echo(f"{there} in it, of annotators: their rankings too")
        return
    if kind not in ("pairs", "text_pairs"):
        refuse_given({"--pairs": pairs}, "without --format pairs or text_pairs")
    choice = pairs or "all"
    with Store.open(database, images=images, create=False) as store:
        rankings = chosen_rankings(
            store,
            "texts" if kind == "text_pairs" else "images",
            judged_by=judged_by,
            group=group,
            project=project,
        )
        exported: Exported | FieldExport
        if kind == "pairs":
            exported = export_pairs(rankings, store.image_path, file, choice=choice)
        elif kind == "text_pairs":
            exported = export_text_pairs(rankings, store.text, file, choice=choice)
        else:
            exported = export_field(rankings, store, file, layout=kind)
    typer.echo("\n".join(exported.lines()))


def people(
    project: Project = "default",
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Their judgements count nowhere, and stay on record."),
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Their judgements count again.")
    ] = None,
    admit: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="They go on without qualification.")
    ] = None,
    database: Database = None,
    images: Images = None,
) -> None:
    """Print how well each annotator of a project judges, and how reliable they are together.

    --exclude, --include and --admit may be given several times, and are done before.
    """
    from imgalign.preferences import exclusions, qualification
    from imgalign.preferences.people import people_of
    from imgalign.preferences.store import Store

    with Store.open(database, images=images, create=False) as store:
        for name in exclude or ():
            exclusions.exclude(store.database, name, project=project)
        for name in include or ():
            exclusions.include(store.database, name, project=project)
        for name in admit or ():
            qualification.admit(store.database, name, project=project)
        typer.echo("\n".join(people_of(store, project).lines()))


def import_(
    file: Annotated[Path, typer.Argument(help="A file that `imgalign data export` wrote.")],
    source_images: Annotated[
        Path | None, typer.Option(help="The images folder of the store that was exported.")
    ] = None,
    database: Database = None,
    images: Images = None,
    create: Create = False,
) -> None:
    """Import the rankings of another store, all of them or none."""
    from imgalign.preferences.address import is_missing
    from imgalign.preferences.exchange import check_export, import_rankings
    from imgalign.preferences.opening import check_place, open_or_make

    check_place(database, images=images, create=create)
    check_export(file, images=source_images, into_new=is_missing(database))
    with open_or_make(database, images=images, create=create, on_made=typer.echo) as store:
        num_new = import_rankings(store, file, images=source_images)
        typer.echo(f"{there_are(num_new, 'ranking')} new in {store.database.name}")


def ratings(
    group: Group = None,
    project: Annotated[str | None, typer.Option(help="Only rankings of this project.")] = None,
    judged_by: JudgedBy = "people",
    method: Annotated[
        Literal["bradley-terry", "plackett-luce", "elo"],
        typer.Option(help="A tie is half a win each; plackett-luce models how often they occur."),
    ] = "bradley-terry",
    ridge: Annotated[
        float, typer.Option(min=0, help="Prior precision; 0.1 also rates models that never lost.")
    ] = 0.0,
    database: Database = None,
    images: Images = None,
) -> None:
    """Rate models and checkpoints by the rankings of their images, all together and two by two."""
    if method == "elo":
        refuse_given({"--ridge": ridge or None}, "with --method elo")
    from imgalign.preferences.comparisons import compare_makers
    from imgalign.preferences.makers import rate_makers
    from imgalign.preferences.store import Store

    with Store.open(database, images=images, create=False) as store:
        found = rate_makers(
            store, method=method, group=group, project=project, judged_by=judged_by, ridge=ridge
        )
        compared = compare_makers(store, project=project, group=group, judged_by=judged_by)
    lines = [
        f"  {line}" if at else f"\n{line}"
        for two in compared
        for at, line in enumerate(two.lines())
    ]
    typer.echo("\n".join([*found.lines(), *lines]))
