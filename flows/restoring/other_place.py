"""A restore to another place: what may stand in the name of it, and how the person gives its password instead."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from blocks.errors import ConfigurationError
from blocks.host.passwords import NONE, PATTERN, refuse_password
from blocks.plan.plan import BackupPlan
from flows.restoring.request import RestoreRequest

PLACE = "the place to restore to (`--to`)"
WITHOUT_PASSWORD: dict[str, Any] = {"not": {"type": "string", "pattern": PATTERN}}
"""What the schema of a run's parameters says of a place: a server refuses such a run before it keeps it."""
VARIABLE_ONLY: dict[str, Any] = {"not": {"type": "string", "pattern": "^$|^[0-9]|[^A-Za-z0-9_]"}}
"""What it says of the name of a variable: a password that is given in its place should not be kept, either."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_NAMED_IN_URL = re.compile(r"[?&]password_env=([^&#]*)")


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Refuse a password among the parameters of a restore, before there is a run that would keep it.

    Raises:
        ConfigurationError: There is one, or what should be the name of a variable is none.
    """
    if isinstance(to := parameters.get("to"), str):
        refuse_password(to, PLACE)
    for called in ("plan", "backup"):  # a run is called after them
        if isinstance(word := parameters.get(called), str) and "://" in word:
            refuse_password(word, f"the name of a {called}")
    if isinstance(variable := parameters.get("to_password_env"), str) and not _VARIABLE.fullmatch(variable):
        # not repeated: it may be the password
        raise ConfigurationError(
            "`--to-password-env` is no name of an environment variable",
            hint="Set a variable to the password, and give its name; or say `none`.",
        )


def without_roles(plan: BackupPlan, wanted: RestoreRequest) -> BackupPlan:
    """Return the plan as it is restored where roles of the backup may not exist."""
    if not (wanted.no_owner or wanted.no_privileges):
        return plan
    without = {"owner": wanted.no_owner, "privileges": wanted.no_privileges}
    sources = {name: source.restored_without(**without) for name, source in plan.sources.items()}
    return plan.model_copy(update={"sources": sources})


def variables_of(to: str | None, to_password_env: str | None) -> frozenset[str]:
    """Return the names of the environment variables that let lastgood in at another place."""
    return frozenset({*_NAMED_IN_URL.findall(to or ""), *([to_password_env] if to_password_env else [])})


def restoring_to(plan: BackupPlan, to: str | None, to_password_env: str | None) -> BackupPlan:
    """Return the plan as it is restored to a place, which may ask for a password of its own.

    Args:
        plan: The plan that is restored.
        to: The place; None for the live one.
        to_password_env: The environment variable with the password of that place, or `none`.

    Raises:
        ConfigurationError: A password stands in the place; or the variable is not set, or is that of the credential.
    """
    check_parameters({"to": to, "to_password_env": to_password_env})
    if secret := variables_of(to, to_password_env) & plan.credential_variables:
        raise ConfigurationError(
            f"{', '.join(map(str, secret))} opens the repository of plan {plan.name}, and is sent to no other server",
            hint="Name the variable that holds the password of the place.",
        )
    if to_password_env is None:
        return plan
    if to is None:
        raise ConfigurationError(
            "a password for another place is given, and no place", hint="Name the place with --to, or leave it out."
        )
    if to_password_env != NONE and to_password_env not in os.environ:
        raise ConfigurationError(
            "the environment variable that `--to-password-env` names is not set", hint="Set it where lastgood runs."
        )
    sources = {name: source.admitted_elsewhere(to_password_env) for name, source in plan.sources.items()}
    return plan.model_copy(update={"sources": sources})
