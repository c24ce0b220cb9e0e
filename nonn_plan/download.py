"""`download`: fetch a published data set; no other command ever fetches anything."""

from pathlib import Path
from typing import Annotated

import typer

from nonn_core.data.published import PUBLISHED
from nonn_plan.options import AsJson
from nonn_plan.output import Output
from profiles.errors import InputError

NAMES = ", ".join(PUBLISHED)
KEPT = "files that were fetched whole are kept; run the same command again to go on"


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(download)


def download(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"{NAMES}.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for the files; default: ./NAME."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a published data set and check it against its published checksums."""
    from nonn_core.data.download import download as fetch

    output = Output(as_json)
    if name not in PUBLISHED:
        raise InputError("not a data set that can be downloaded", found=name, allowed=NAMES)
    dataset, folder = PUBLISHED[name], out or Path(name)
    with output.progress(KEPT) as progress:
        fetched = fetch(dataset, folder, progress)
    files = [folder / file.name for file in dataset.files]
    for path in files:
        output.say(f"{path}: {'fetched' if path in fetched else 'was there already'}, intact")
    source = dataset.source(folder)
    output.say(f"next: nonn-plan train-teacher --network wrn16-2 --data {source}")
    output.result(
        {
            "name": name,
            "data": source,
            "files": list(map(str, files)),
            "fetched": list(map(str, fetched)),
        }
    )
