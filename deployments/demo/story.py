"""The story: a live application is backed up, changed, lost, and had back, and every claim on the way is proved."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
from rich.console import Console
from rich.markup import escape

from deployments.demo.folder import DemoFolder
from deployments.demo.guarded import ServerFailed
from deployments.demo.narrator import Narrator
from deployments.demo.proofs import Proofs
from deployments.demo.servers import LOCAL, Servers
from deployments.demo.steps import Story
from deployments.demo.trading import Places
from deployments.demo.trading.create import create_application
from deployments.demo.trading.redis import RedisError
from deployments.demo.uses import PrefectInUse, use_prefect
from deployments.server import running_server, stop_server
from flows.reporting.units import human_seconds

DEFAULT_FOLDER = Path(".demo")


def run_demo(
    folder: Path = DEFAULT_FOLDER, *, keep_server: bool = True, console: Console | None = None, storage: str = LOCAL
) -> bool:
    """Run the whole story; return whether everything was proved.

    Args:
        folder: Where the application, its backups and the demo's Prefect server live; what an earlier demo left goes.
        keep_server: Leave the server running, so that the runs can be looked at.
        console: Where to print.
        storage: Where backups are kept: `local`, or `s3` for a SeaweedFS that is started for it.

    Raises:
        ConfigurationError: The folder holds something that no demo made, or the storage cannot be run here.
        LastgoodError: A step failed.
    """
    began = time.monotonic()
    narrator = Narrator(console or Console())
    place = DemoFolder(folder)
    place.renew()
    try:
        # they end here, however the story ends
        with Servers(place.servers, storage) as servers:
            prefect, places = _set_the_scene(place, servers, narrator)
            with prefect.entered(), place.remembering():
                story = Story(place, places, servers, narrator, save_plan=prefect.started)
                story.tell()
        narrator.table(story.proofs.table())
        _sum_up(narrator, story.proofs, time.monotonic() - began)
        _say_where(narrator, prefect, place, servers, keep_server)
    except (RedisError, psycopg.Error) as exc:
        raise ServerFailed(f"a server of the demo failed: {str(exc).strip()}") from exc
    finally:
        if not keep_server:
            stop_server(place.prefect)
        # also after a failure: the run that failed is there to be looked at
        elif running_server(place.prefect) is not None:
            option = "" if place.path == DEFAULT_FOLDER.absolute() else f" --dir {place.path}"
            narrator.say(f"The Prefect server goes on running; stop it with [bold]lastgood demo --stop{option}[/]")
    return not story.proofs.failed


def stop_demo(folder: Path = DEFAULT_FOLDER) -> bool:
    """Stop the servers that a demo left running; return whether there were any."""
    place = DemoFolder(folder)
    return place.stop_servers() | stop_server(place.prefect)


def _set_the_scene(place: DemoFolder, servers: Servers, narrator: Narrator) -> tuple[PrefectInUse, Places]:
    with narrator.step("start application, Prefect") as step, ThreadPoolExecutor(1) as aside:
        created = aside.submit(_create, place, servers)
        prefect = use_prefect(place.prefect)
        places = created.result()
        step.done(f"state in {', '.join(['SQLite', 'files', *servers.names])}; runs at {prefect.ui_url}")
    if servers.left_out:
        narrator.say(f"[yellow]![/] left out: {escape(', '.join(servers.left_out))}")
    return prefect, places


def _create(place: DemoFolder, servers: Servers) -> Places:
    servers.start()
    cache = servers.cache.socket if servers.cache is not None else None
    books = servers.books.conninfo if servers.books is not None else None
    places = Places(place.state, cache, books)
    create_application(places)
    return places


def _sum_up(narrator: Narrator, proofs: Proofs, seconds: float) -> None:
    proved = len(proofs.made) - len(proofs.failed)
    colour = "red" if proofs.failed else "green"
    narrator.say(f"[bold {colour}]{proved} of {len(proofs.made)} claims proved[/] in {human_seconds(seconds)}.\n")


def _say_where(narrator: Narrator, prefect: PrefectInUse, place: DemoFolder, servers: Servers, kept: bool) -> None:
    here = place.plan.is_relative_to(Path.cwd())
    plan = place.plan.relative_to(Path.cwd()) if here else place.plan
    if servers.repository is None:
        narrator.say(f"Look at the backups with [bold]lastgood list {plan}[/]")
    else:
        narrator.say("The demo's own S3 server, and the backups in it, ended with the demo.")
    if names := " and ".join(servers.names):
        kept_in = "; what was in there is in the backups" if servers.repository is None else ""
        narrator.say(f"The demo's own {names} ended with it{kept_in}.")
    if kept or not prefect.started:
        narrator.say(f"See the runs, their stages and their artifacts at [bold]{prefect.ui_url}/runs[/]")
