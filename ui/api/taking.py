"""Routes by which a browser takes a file home that the app writes in the background."""

import fastapi
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel

from ui.api.responses import as_attachment
from ui.builds import Builds


class Begun(BaseModel):
    """A file that is being written, by name."""

    file: str


class Asked(BaseModel):
    """Whether a file is written, and then what it holds."""

    ready: bool
    said: str


def add_files(routes: fastapi.APIRouter, builds: Builds, under: str) -> None:
    """`{under}/{file}`, which says whether it is written, and its content."""

    @routes.get(f"{under}/{{file}}")
    def ask(file: str) -> Asked:
        built = builds.build(file).built
        return Asked(ready=built is not None, said="" if built is None else built.said)

    @routes.get(f"{under}/{{file}}/content")
    def take(file: str) -> Response:
        built = builds.take(file)
        return FileResponse(
            built.path, media_type="application/octet-stream", headers=as_attachment(built.name)
        )
