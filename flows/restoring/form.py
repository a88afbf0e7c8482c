"""The form of a restore in the Prefect UI: what it is headed with, and lists that are lists from the start."""

from __future__ import annotations

from typing import Any

from pydantic import BeforeValidator, Field, JsonValue

ALL: list[str] = []
"""Globs that choose everything; nobody changes it."""
NONE_IS_ALL = BeforeValidator(lambda value: [] if value is None else value)
"""What a caller may still say; in the type itself it would be a choice between a list and nothing in the form."""


def headed(title: str, **more: JsonValue) -> Any:
    """Return what says how a field is headed; more keys of its JSON schema may follow."""
    return Field(json_schema_extra={"title": title, **more})
