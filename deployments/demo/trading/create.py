"""Makes the application's state, as it is before its first day."""

from __future__ import annotations

from . import Places
from .cache import Cache
from .files import create_configuration, create_models
from .ledger import create_ledger


def create_application(places: Places) -> None:
    """Make the ledger, configuration and models, and what it keeps in servers where it has them."""
    places.folder.mkdir(parents=True)
    create_configuration(places.folder / "config")
    create_models(places.folder / "models")
    create_ledger(places.ledger)
    if places.cache is not None:
        with Cache(places.cache) as cache:
            cache.create()
    if places.books is not None:
        from .books import Books  # brings a driver along, which an application without books does not need

        with Books(places.books) as books:
            books.create()
