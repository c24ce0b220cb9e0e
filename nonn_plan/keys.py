"""`keys`: an authority of one's own, and a certificate for the host and for each board."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonn_plan.options import AsJson
from nonn_plan.output import Output

if TYPE_CHECKING:
    from boards.credentials.facts import CertificateFacts
    from boards.credentials.holder import Holder

Keys = Annotated[
    Path, typer.Argument(metavar="KEYS", help="Folder with a folder of keys for each of them.")
]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(
        help="Keys and certificates of host and boards.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("init")(init)
    group.command("show")(show)
    app.add_typer(group, name="keys")


def init(
    keys: Keys,
    boards: Annotated[
        list[str] | None,
        typer.Option(
            "--board",
            metavar="NAME[=ADDRESS]",
            help="A board's name, as in the plan, and its IP addresses or host names, with commas "
            "between. Repeatable.",
        ),
    ] = None,
    plan_file: Annotated[
        Path | None, typer.Option("--plan", help="Also each board that this plan uses.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the keys that are missing; what exists is never replaced."""
    from boards.credentials.holder import HOST, parse_board
    from boards.credentials.keyring import list_keys, make_keys

    output = Output(as_json)
    typed = [parse_board(text) for text in boards or ()]
    names = {each.name for each in typed}
    planned = [each for each in _planned(plan_file) if each.name not in names]
    made = make_keys(keys, [*typed, *planned])
    found = list_keys(keys)
    _show(output, found)
    output.say(f"made: {', '.join(made) or 'nothing, all of it was there'}")
    output.say(
        f"copy to each board the folder with its name, and nothing else; "
        f"{keys / HOST} is for this machine's commands"
    )
    output.result({"made": made, "certificates": _documents(found)})


def show(keys: Keys, as_json: AsJson = False) -> None:
    """Show what each certificate says, and until when it is valid."""
    from boards.credentials.keyring import list_keys

    output = Output(as_json)
    found = list_keys(keys)
    _show(output, found)
    output.result(_documents(found))


def _planned(plan_file: Path | None) -> "Sequence[Holder]":
    """Return the boards that a plan uses, or none without a plan."""
    if plan_file is None:
        return ()
    from boards.credentials.holder import board
    from nonn_plan.planning import read_plan
    from planner.workload import require_students

    plan = read_plan(plan_file)
    require_students(plan)
    return [board(name, where=str(plan_file)) for name in sorted(plan.decision.used)]


def _show(output: Output, found: "Sequence[CertificateFacts]") -> None:
    output.table(
        "Certificates",
        ("name", "what for", "valid until", "addresses", "SHA-256"),
        [
            (
                each.name,
                ", ".join(each.purposes) or "nothing here",
                _until(each),
                ", ".join(each.addresses),
                each.fingerprint,
            )
            for each in found
        ],
    )


def _until(certificate: "CertificateFacts") -> str:
    late = "" if datetime.now(UTC) <= certificate.valid_until else " (expired)"
    return f"{certificate.valid_until:%Y-%m-%d}{late}"


def _documents(found: "Sequence[CertificateFacts]") -> list[dict[str, object]]:
    return [
        asdict(each)
        | {
            "valid_from": each.valid_from.isoformat(),
            "valid_until": each.valid_until.isoformat(),
        }
        for each in found
    ]
