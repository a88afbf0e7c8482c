"""Which server a place is, whatever its URL looks like."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace

from pydantic import JsonValue

from blocks.errors import LastgoodError
from blocks.host.identity import on_this_machine, place_identity
from blocks.host.places import Location
from blocks.sources.redis.connect import Access
from blocks.sources.redis.net.cluster import Cluster, reach
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.place import Kind, Place

_PATIENCE_SECONDS = 5.0
_SHOWN = 16
"""Digits of an id of 40 that are kept."""


def location_of(place: Place, access: Access, databases: Collection[int] | None, part: str) -> Location:
    """Locate a place: a file by its path, a server by what it says of itself, or else by its address.

    Args:
        place: The place, as it was parsed from a URL.
        access: How it lets us in.
        databases: Their numbers; None for all.
        part: What is taken of it, in words.
    """
    if place.kind is Kind.FILE:
        return Location(str(place), paths=(place.path.absolute(),), part=part)
    numbers = None if databases is None else frozenset(map(str, databases))
    access = replace(access, timeout_seconds=min(access.timeout_seconds, _PATIENCE_SECONDS))
    try:
        server = reach(place, access)
    except LastgoodError:
        return Location(str(place), server=_address_of(place), databases=numbers, part=part)
    try:
        return Location(str(place), server=_identity_of(server), databases=numbers, part=part)
    finally:
        server.close()


def lasting_identity(place: Place, access: Access) -> dict[str, JsonValue]:
    """Return what a server is known by: addresses as the plan has them, its run, its histories, nodes of a cluster.

    A server that was started again has its address, one that took over its history. Nothing where it does not answer.

    Args:
        place: The place, as it was parsed from a URL.
        access: How it lets us in.
    """
    if place.kind is Kind.FILE:
        return place_identity(place.path, place.path.absolute().parent)
    try:
        server = reach(place, replace(access, timeout_seconds=min(access.timeout_seconds, _PATIENCE_SECONDS)))
    except LastgoodError:
        return {}
    try:
        return {"server": [*_written(place), *_histories(server)]}
    finally:
        server.close()


def _written(place: Place) -> list[str]:
    if place.kind is Kind.UNIX:
        return [on_this_machine(os.path.realpath(place.path))]
    said = f"{place.master} of " if place.master else ""
    return [
        said + (on_this_machine(f"localhost:{port}") if _is_local(host) else f"{host.lower()}:{port}")
        for host, port in place.hosts
    ]


def _is_local(host: str) -> bool:
    return host.lower() in ("localhost", "::1") or host.startswith("127.")


def _histories(server: Server | Cluster) -> list[str]:
    if isinstance(server, Cluster):
        with suppress(LastgoodError):
            return [f"node {owner[:_SHOWN]}" for owner in sorted({owner for owner in server.layout().owners if owner})]
        return []
    facts = server.facts
    histories = [facts.get(name, "") for name in ("master_replid", "master_replid2")]
    told = [f"history {history[:_SHOWN]}" for history in histories if history.strip("0")]  # zeros are none
    return [f"run {facts['run_id'][:_SHOWN]}", *told] if "run_id" in facts else told


def _identity_of(server: Server | Cluster) -> tuple[str, ...]:
    """Return what a server and its replicas have in common and no other has; for a cluster, all of its masters."""
    try:
        if isinstance(server, Cluster):
            return "redis-cluster", *sorted({owner for owner in server.layout().owners if owner})
        return "redis", server.info("replication")["master_replid"]
    except (LastgoodError, KeyError):
        return ("redis", server.facts.get("run_id", "")) if isinstance(server, Server) else _address_of(server.place)


def _address_of(place: Place) -> tuple[str, ...]:
    if place.kind is Kind.UNIX:
        return "redis-socket", os.path.realpath(place.path)
    hosts = sorted({f"{address}:{port}" for host, port in place.hosts for address in _addresses(host)})
    return f"redis-{place.kind}", place.master, *hosts


def _addresses(host: str) -> set[str]:
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return {host.lower()}
    return {"localhost" if each == "::1" or each.startswith("127.") else each for each in found}
