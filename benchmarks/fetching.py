"""Files of the web that a comparison needs and no package has."""

import urllib.request
from pathlib import Path

from imgalign.files import write_atomically


def fetched(address: str, folder: Path) -> Path:
    """A file of the web, kept in a folder from then on; one that lies there is taken as it is."""
    file = folder / address.rpartition("/")[2]
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with urllib.request.urlopen(address, timeout=60) as response:
                write_atomically(file, response.read())
        except OSError as error:
            raise SystemExit(
                f"{address}: could not be fetched ({error}); put it into {folder} by hand"
            ) from None
    return file.absolute()
