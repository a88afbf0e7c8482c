"""Parameters that several commands share."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

Plan = Annotated[str, Parameter(help="Path of a YAML plan, or name of a saved Backup Plan block.")]
Backup = Annotated[
    str, Parameter(help="Id of a backup, the beginning or end of one that no other backup shares, or `latest`.")
]
Flag = Parameter(negative=())
"""A switch that is only ever put on."""
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON instead of a table.")]
NoServer = Annotated[
    bool,
    Parameter(
        name="--no-server", negative=(), help="Run here even where a Prefect server answers; the run is not recorded."
    ),
]
Collections = Annotated[
    list[str] | None,
    Parameter(name="--collection", negative=(), help="Glob over names such as ledger/orders; may be repeated."),
]
KeyGlobs = Annotated[
    list[str] | None, Parameter(name="--key", negative=(), help="Glob over keys such as position:*; may be repeated.")
]
