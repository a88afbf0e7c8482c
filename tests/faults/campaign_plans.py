# ruff: noqa: E501  rows of attempts are read as rows
"""One edit of a plan, then a command; and slips in the command itself."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.campaign_attempts import attempt, expect
from tests.faults.campaign_world import World

REFUSED = 10
DONE = (0, REFUSED)
TREE = "tree: {type: files, url: ./tree}"

EDITS: dict[str, tuple[tuple[str, str], ...]] = {
    "nothing edited": (),
    "the ledger's path is another healthy database": (("./state/app.db", "./state/other.db"),),
    "the ledger's path is a database that is missing": (("./state/app.db", "./state/none.db"),),
    "the ledger's path is a text file": (("./state/app.db", "./stranger/thesis.txt"),),
    "the ledger's path is a folder": (("./state/app.db", "./stranger"),),
    "the ledger's path is a file of the tree": (("./state/app.db", "./tree/a.txt"),),
    "the ledger's path is the key": (("./state/app.db", "./key"),),
    "the ledger's path is the plan": (("./state/app.db", "./plan.yaml"),),
    "the ledger's path is in the repository": (("./state/app.db", "./repo/lastgood.json"),),
    "the tree's folder is a stranger's": (("./tree}", "./stranger}"),),
    "the tree's folder is that of everything": (("./tree}", ".}"),),
    "the tree's folder is that of the database": (("./tree}", "./state}"),),
    "the tree's folder is the repository": (("./tree}", "./repo}"),),
    "the tree's folder is within the repository": (("./tree}", "./repo/backups}"),),
    "the tree's folder is a file": (("./tree}", "./stranger/thesis.txt}"),),
    "the tree's folder is the database file": (("./tree}", "./state/app.db}"),),
    "the tree's folder is missing": (("./tree}", "./none}"),),
    "the tree is now a database": (("type: files, url: ./tree", "type: sqlite, path: ./state/other.db"),),
    "the ledger is now a folder": (("type: sqlite, path: ./state/app.db", "type: files, url: ./stranger"),),
    "the ledger is now a folder that holds its database": (("type: sqlite, path: ./state/app.db", "type: files, url: ./state"),),
    "the sources are swapped by name": (("ledger:", "x:"), ("tree:", "ledger:"), ("x:", "tree:")),
    "a source is renamed": (("tree:", "woods:"),),
    "a source is taken out": (("  " + TREE + "\n", ""),),
    "another source is added": (("  " + TREE, "  " + TREE + "\n  other: {type: sqlite, path: ./state/other.db}"),),
    "a folder around all is added": (("  " + TREE, "  " + TREE + "\n  all: {type: files, url: .}"),),
    "a table is left out": (("./state/app.db", "./state/app.db, exclude: [accounts]"),),
    "only one table is taken": (("./state/app.db", "./state/app.db, tables: [orders]"),),
    "tables that do not exist are taken": (("./state/app.db", "./state/app.db, tables: [nonsense]"),),
    "files are left out": (("./tree}", "./tree, exclude: ['*.txt', 'new/*']}"),),
    "only some files are included": (("./tree}", "./tree, include: ['sub/**']}"),),
    "nothing is included": (("./tree}", "./tree, include: ['nonsense']}"),),
    "a folder is left out": (("./tree}", "./tree, exclude: ['sub']}"),),
    "critical names one table": (("encryption:", "critical: [ledger/orders]\nencryption:"),),
    "critical names nothing that exists": (("encryption:", "critical: [nothing/here]\nencryption:"),),
    "the plan has another name": (("name: shop", "name: stop"),),
    "the repository is a folder that does not exist": (("./repo}", "./none}"),),
    "the repository is an empty folder": (("./repo}", "./empty}"),),
    "the repository is a folder with files": (("./repo}", "./stranger}"),),
    "the repository is the tree": (("./repo}", "./tree}"),),
    "the repository is the folder of everything": (("./repo}", ".}"),),
    "the repository is within the tree": (("./repo}", "./tree/repo}"),),
    "encryption is none now": (("encryption: {credential: {key_file: ./key}}", "encryption: none"),),
    "the key is another file": (("./key}", "./other-key}"),),
    "the key is a text file": (("key_file: ./key", "key_file: ./stranger/thesis.txt"),),
    "the plan names a source twice": (("  " + TREE, "  " + TREE + "\n  " + TREE.replace("./tree", "./stranger")),),
    "a hook fails": (("encryption:", "hooks: {before: ['false'], after: ['false']}\nencryption:"),),
    "a hook removes the tree": (("encryption:", "hooks: {before: ['mv tree gone']}\nencryption:"),),
    "the url of the tree is a URL": (("./tree}", "file://FOLDER/tree}"),),
    "the tree does not leave its file system": (("./tree}", "./tree, one_file_system: true}"),),
}  # fmt: skip

COMMANDS: dict[str, tuple[str, ...]] = {
    "restore FUL": ("restore", "FUL", "--yes"),
    "merge FUL": ("restore", "FUL", "--mode", "merge", "--yes"),
    "restore one table and one file": ("restore", "FUL", "--collection", "ledger/accounts", "--collection", "tree/*", "--key", "*1*", "--key", "a.txt", "--yes"),
}  # fmt: skip


def _edited(world: World, edits: tuple[tuple[str, str], ...]) -> None:
    world.path("empty").mkdir(exist_ok=True)
    for old, new in edits:
        world.edit(old, new.replace("FOLDER", str(world.folder)))


for _edit, _changes in EDITS.items():
    for _name, _words in COMMANDS.items():

        @attempt(f"{_edit}; {_name}", lambda w, c=_changes: _edited(w, c))
        def _(world: World, words: tuple[str, ...] = _words) -> list[str]:
            return expect(world.run(*words), 0, 2, 3, 4, 6, 7, REFUSED)


for _edit, _changes in EDITS.items():

    @attempt(f"restore FUL; then {_edit}; undo", repository=False)
    def _(world: World, changes: tuple[tuple[str, str], ...] = _changes) -> list[str]:
        """What the restore took and what it left both have to be there, in the end."""
        world.must("restore", "FUL", "--yes")
        between = world.path("plan.yaml").read_text()
        _edited(world, changes)
        world.path("plan.yaml").with_name("edited.yaml").write_text(world.path("plan.yaml").read_text())
        world.path("plan.yaml").write_text(between)
        world.plan = "edited.yaml"
        now = world.facts()
        code = world.run("undo", "--yes")
        world.before |= {one for one in now if one[0] not in ("edited.yaml",)}
        return expect(code, 0, 2, 3, 4, 6, 7, REFUSED)


def _line(*words: str, codes: tuple[int, ...], verb: str = "restore") -> None:
    @attempt(f"{verb} {' '.join(words)}")
    def _(world: World) -> list[str]:
        return expect(world.run(verb, *words), *codes)


for _words in (
    ("FUL", "--yes", "--collection", "ledger/acounts"),
    ("FUL", "--yes", "--collection", "ledger/*", "--collection", "tre/*"),
    ("FUL", "--yes", "--collection", "ledger"),
    ("FUL", "--yes", "--collection", "LEDGER/*"),
    ("FUL", "--yes", "--collection", ""),
    ("FUL", "--yes", "--key", "no such key"),
    ("FUL", "--yes", "--key", "a.txt", "--key", "typo.txt"),
    ("nonsense", "--yes"),
    ("", "--yes"),
    ("*", "--yes"),
):
    _line(*_words, codes=(2, 6))
for _words in (("--at", "2999-01-01", "--yes"), ("--at", "in 3 days", "--yes"), ("--at", "1h", "--yes"), ("--at", "-2h ago", "--yes"),
               ("FUL", "--at", "now", "--yes"), ("FUL", "INC", "--yes"), ("--at", "1970-01-01", "--yes"), ("--at", "2020-13-45", "--yes"),
               ("FUL",), ("FUL", "--overwrite"), ("FUL", "--mode", "exact"), ("FUL", "--json"), ("FUL", "--yes", "--mode", "exactly"),
               ("FUL", "--yes", "--to"), ("FUL", "--yes=no"), ("FUL", "--yes", "--to", "a", "--to", "b"), ("FUL", "--yes", "--to-password-env", "X")):  # fmt: skip
    _line(*_words, codes=(2, 6, REFUSED))
_line("--overwrite", "FUL", "--yes", codes=(*DONE, 2))
_line("--yes", codes=DONE)
_line("FUL", "--yes", "--key", "", codes=DONE)  # the empty path is that of the tree's root
_line("FUL", "--yes", "--without-emergency-backup", "--collection", "nothing/*", codes=(6,))


@attempt(
    "retention with everything old and keep_last 1",
    lambda w: w.edit("encryption:", "retention: {full: 1d, incremental: 1d}\nencryption:"),
)
def _(world: World) -> list[str]:
    return expect(world.run("retention"), 0)


for _policy in ("{full: 6m}", "{full: 0d}", "{full: -1d}", "{full: 1}", "{full: 3600}", "{full: PT1M}", "{full: P0D}", "{full: 1h}", "{keep_last: 0}", "{keep_last: -1}",
                "{emergency: 1s}", "{full: ''}", "{full: null}", "{full: 0.5}", "{full: 0.00001d}", "{full: 1e-9y}", "{fulll: 90d}"):  # fmt: skip

    @attempt(
        f"retention: {_policy}; retention", lambda w, p=_policy: w.edit("encryption:", f"retention: {p}\nencryption:")
    )
    def _(world: World) -> list[str]:
        return expect(world.run("retention"), 2)


@attempt("init twice")
def _(world: World) -> list[str]:
    return expect(world.run("init"), 2, 4, REFUSED)


for _where in (
    "stranger",
    "tree",
    ".",
    "state",
    "empty",
    "repo/backups",
    "state/app.db",
    "stranger/thesis.txt",
    "plan.yaml",
    "key",
):

    @attempt(
        f"init with the repository at {_where}",
        lambda w, u=_where: w.path("empty").mkdir() or w.edit("./repo}", f"./{u}}}"),
        repository=False,
    )
    def _(world: World) -> list[str]:
        return expect(world.run("init"), 0, 2, 3, 4, REFUSED)


@attempt("key remove of the own slot, without --yes")
def _(world: World) -> list[str]:
    slot = json.loads(world.run("key list", "--json").out)["slots"][0]["id"]
    return expect(world.run("key remove", slot), 2, 7, REFUSED)


@attempt("key remove of every slot with --yes", repository=False)
def _(world: World) -> list[str]:
    for slot in json.loads(world.run("key list", "--json").out)["slots"]:
        world.run("key remove", slot["id"], "--yes")
    kept = json.loads(world.path("repo/lastgood.json").read_text())["encryption"]["slots"]
    return [] if any(slot["role"] == "reader" for slot in kept) else ["no reader is left"]


@attempt("the plan and the key lie in the tree; restore FUL after a change of the key")
def _(world: World) -> list[str]:
    for name in ("plan.yaml", "key"):
        world.path(name).rename(world.path(f"tree/{name}"))
    world.plan = "tree/plan.yaml"
    world.edit("./state/", "../state/")
    world.edit("url: ./tree", "url: .")
    world.edit("./repo", "../repo")
    world.must("backup", "--type", "full")
    full = world.newest("FUL")
    world.must("key add", "--role", "reader", "--label", "new", "--key-file", "tree/key2", "--generate")
    world.edit("./key}", "./key2}")
    world.write("tree/later.txt", "later")
    world.look()
    done = world.run("restore", full, "--yes")
    again = world.run("list")
    return expect(done, *DONE) + expect(again, 0)


@attempt("the repository lies in the tree; restore FUL", repository=False)
def _(world: World) -> list[str]:
    world.path("repo").rename(world.path("tree/repo"))
    world.edit("./repo}", "./tree/repo}")
    world.must("backup", "--type", "full")
    world.write("tree/later.txt", "later")
    before = {one for one in world.path("tree/repo").rglob("*") if one.is_file()}
    world.before = world.facts() - {one for one in world.facts() if "repo/" in one[0]}
    done = world.run("restore", world.newest("FUL"), "--yes")
    gone = {one for one in before if not one.exists() and "locks" not in one.parts}
    return expect(done, *DONE) + [f"gone: {gone}"] * bool(gone)


@attempt(
    "the repository lies in the tree and then moves beside it; restore of the backup made before", repository=False
)
def _(world: World) -> list[str]:
    world.path("repo").rename(world.path("tree/repo"))
    world.edit("./repo}", "./tree/repo}")
    world.must("backup", "--type", "full")
    subprocess.run(["cp", "-a", world.path("tree/repo"), world.path("repo")], check=True)
    world.edit("./tree/repo}", "./repo}")
    world.before = world.facts()
    return expect(world.run("restore", world.newest("FUL"), "--yes"), *DONE)


@contextmanager
def _previewed(world: World, passing: str | None = None) -> Iterator[None]:
    """Nothing is written meanwhile; in a folder there may have been something that is gone again."""
    before = stamps(world.folder)
    yield
    after = stamps(world.folder)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} - {passing}
    if changed:
        raise AssertionError(f"written: {sorted(changed)}")


def stamps(folder: Path) -> dict[str, object]:
    """Return of everything, the repository included, what a write would change."""
    found: dict[str, object] = {}
    for path in [folder, *folder.rglob("*")]:
        name = str(path.relative_to(folder))
        if name.split("/")[0] in ("home", "tmp"):
            continue
        stat = path.lstat()
        found[name] = (stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_mode)
    return found


for _words in (("restore", "FUL", "--mode", "preview"), ("restore", "FUL", "--mode", "preview", "--to", "new"), ("restore", "FUL", "--mode", "preview", "--to", "new", "--overwrite", "--yes"),
               ("restore", "FUL", "--mode", "preview", "--collection", "tree/*", "--to", "stranger", "--overwrite"), ("restore", "FUL", "--mode", "preview", "--collection", "ledger/*", "--to", "state/other.db", "--overwrite"),
               ("restore", "FUL", "--mode", "preview", "--collection", "ledger/*", "--to", "new/deep/x.db"),
               ("undo", "--preview"), ("retention", "--dry-run"), ("check",), ("check", "--read-data"), ("list",), ("show", "FUL"), ("diff", "FUL", "latest")):  # fmt: skip

    @attempt(f"{' '.join(_words)} writes nothing at all")
    def _(world: World, words: tuple[str, ...] = _words) -> list[str]:
        for connection in ("state/app.db", "state/other.db"):
            world.sql(connection, "PRAGMA user_version")
        if words[0] == "undo":
            world.must("restore", "FUL", "--yes")
            world.before = world.facts()
        # a check tries again whether the storage lets an object be created once, with one that it removes
        with _previewed(world, "repo" if words[0] == "check" else None):
            return expect(world.run(*words), 0, 2, REFUSED)


@attempt("verify --deep touches no live state")
def _(world: World) -> list[str]:
    before = {
        name: stamp for name, stamp in stamps(world.folder).items() if not name.startswith("repo") and name != "."
    }
    done = world.run("verify", "FUL", "--deep")
    after = {name: stamp for name, stamp in stamps(world.folder).items() if not name.startswith("repo") and name != "."}
    return expect(done, 0) + [
        f"{name} was touched" for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    ]
