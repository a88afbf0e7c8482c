"""Definitions without the roles that they name: owners, and who may do what."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from blocks.errors import PlaceUnfit
from blocks.sources.postgres.connect import Session
from blocks.sources.postgres.schema.entries import Entry, pieces, statements, tokens

_OWNER = re.compile(r'^ALTER [^\n]* OWNER TO ("(?:[^"]|"")*"|[^\s";]+);\s*$', re.MULTILINE)
_REST = re.compile(r"(?:\s|SET default_\w+ = [^\n]*;)*")
"""What may follow the last statement of an entry: settings for the next."""
_ROLE = re.compile(r"(?:SET|RESET) ROLE\b")
_GRANT = re.compile(r"(?:GRANT|REVOKE|SET SESSION AUTHORIZATION|RESET SESSION AUTHORIZATION)\b")
_PRIVILEGES = ("ACL", "DEFAULT ACL")
_PLACES = ("TO", "FROM", "AUTHORIZATION", "ROLE")
"""Words that a role follows, in statements about privileges."""
_NO_ROLES = ("PUBLIC", "DEFAULT", "CURRENT_USER", "SESSION_USER", "CURRENT_ROLE")

_MISSING = (
    "SELECT r FROM pg_catalog.unnest(%s::text[]) r EXCEPT SELECT rolname::text FROM pg_catalog.pg_roles ORDER BY 1"
)


@dataclass(frozen=True)
class Ownership:
    """What of a backup's definitions that names roles is restored.

    Attributes:
        owners: Owners of objects, and user mappings of foreign servers; without them all belongs to the role that
            restores.
        privileges: Privileges, default privileges, and policies that are for named roles.
    """

    owners: bool = True
    privileges: bool = True

    @property
    def complete(self) -> bool:
        """Whether all of it is."""
        return self.owners and self.privileges

    def of_definition(self, definition: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Return what a manifest says of a database, without what is not restored."""
        texts = {name: text for name in ("before", "after") if isinstance(text := definition.get(name), str)}
        return {**definition, **{name: self.of_text(text) for name, text in texts.items()}}

    def of_text(self, text: str) -> str:
        """Return definitions, as pg_dump writes them, without what is not restored."""
        if self.complete:
            return text
        preamble, entries = pieces(text)
        return preamble + "".join(header + self._kept(entry) for header, entry in entries)

    def _kept(self, entry: Entry) -> str:
        if entry.type == "LARGE OBJECTS":
            return "\n".join(s for _, s in statements(entry.text) if self._is_kept(s)) + "\n\n"
        unwanted = entry.type in _PRIVILEGES or (entry.type == "POLICY" and any(roles_of_policy(entry)))
        if (unwanted and not self.privileges) or (entry.type == "USER MAPPING" and not self.owners):
            return _settings_after(entry.text)
        last = None if self.owners else _owner(entry)
        return entry.text if last is None else entry.text[: last.start()] + entry.text[last.end() :]

    def _is_kept(self, statement: str) -> bool:
        return (self.owners or not _ROLE.match(statement)) and (self.privileges or not _GRANT.match(statement))

    def sentences(self) -> tuple[str, ...]:
        """Say what is not restored."""
        said = []
        if not self.owners:
            said.append("Owners and user mappings are not restored: what is made belongs to the role that restores.")
        if not self.privileges:
            said.append("Privileges, default privileges and policies for named roles are not restored.")
        return tuple(said)


def _owner(entry: Entry) -> re.Match[str] | None:
    """Find the owner that the last statement of an entry gives, which no text of a user can be."""
    last = next(reversed(list(_OWNER.finditer(entry.text))), None)
    return last if last is not None and _REST.fullmatch(entry.text, last.end()) else None


def owners_of(entry: Entry) -> list[str]:
    """Return the role that an entry makes the owner, quoted as it stands there."""
    return [] if (found := _owner(entry)) is None else [found[1]]


def _settings_after(text: str) -> str:
    """Return the settings for the next entry at the end of one."""
    end = max((start + len(statement) for start, statement in statements(text) if not _sets(statement)), default=0)
    return text[end:]


def _sets(statement: str) -> bool:
    return statement.startswith("SET default_")


def roles_of_policy(entry: Entry) -> Iterator[str]:
    """Return the roles that a policy is for, none where it is for all."""
    within = False
    for word, name in tokens(entry.text):
        if word in ("USING", "WITH"):
            return
        if within and name is not None and word not in _NO_ROLES:
            yield name
        within = within or word == "TO"


def _roles_of_privileges(entry: Entry) -> Iterator[str]:
    before = ""
    for word, name in tokens(entry.text):
        if before in _PLACES and name is not None and word not in _NO_ROLES:
            yield name
        before = word


def _roles_of_large_objects(entry: Entry, statement: re.Pattern[str]) -> Iterator[str]:
    for _, one in statements(entry.text):
        if statement.match(one):
            yield from _roles_of_privileges(Entry("ACL", one, ""))


def refuse_missing_roles(session: Session, entries: Iterable[Entry]) -> None:
    """Refuse definitions that name roles which the server does not have.

    Raises:
        PlaceUnfit: There are such; the hint says how to do without them.
    """
    owners, others = set[str](), set[str]()
    for entry in entries:
        owners.update(map(_plain, owners_of(entry)))
        match entry.type:
            case "ACL" | "DEFAULT ACL":
                others.update(_roles_of_privileges(entry))
            case "POLICY":
                others.update(roles_of_policy(entry))
            case "LARGE OBJECTS":
                owners.update(_roles_of_large_objects(entry, _ROLE))
                others.update(_roles_of_large_objects(entry, _GRANT))
            case "USER MAPPING":
                name = entry.plain("USER", "MAPPING", "FOR")
                owners.update({name} if name and name.upper() not in _NO_ROLES else ())
    missing = [str(r) for (r,) in session.execute(_MISSING, (sorted(owners | others),))]
    if missing:
        _refuse(session, [r for r in missing if r in owners], [r for r in missing if r not in owners])


def _refuse(session: Session, owners: list[str], others: list[str]) -> None:
    said = [f"role {name}, which owns what is restored, does not exist" for name in owners]
    said += [f"role {name}, which privileges or policies name, does not exist" for name in others]
    options = ["restore_owner: false` on the source (`--no-owner`)"] * bool(owners)
    options += ["restore_privileges: false` (`--no-privileges`)"] * bool(others or owners)
    raise PlaceUnfit(
        f"cannot restore to the server at {session.info.host}:{session.info.port}: {'; '.join(said)}",
        hint=f"Create {', '.join([*owners, *others])} there first (`pg_dumpall --roles-only` of the old server writes"
        f" roles), or restore without them: `{' and `'.join(options)}.",
    )


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
