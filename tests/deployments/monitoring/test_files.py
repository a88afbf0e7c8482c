"""The files for a site: under its prefix, with its places; programs take them, and none is written over."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from blocks.errors import ConfigurationError
from deployments import monitoring
from deployments.monitoring.files import ALERTS, NAMES, monitoring_files, write_monitoring_files
from tests.deployments.monitoring.promtool import said


def test_without_a_prefix_they_are_the_files_that_are_shipped() -> None:
    folder = Path(monitoring.__file__).parent
    assert monitoring_files() == {name: (folder / name).read_text() for name in NAMES}


def test_a_prefix_stands_before_published_names_and_no_others() -> None:
    plain, prefixed = monitoring_files(), monitoring_files("my.site")
    for name in NAMES:
        assert prefixed[name].replace("my_site_backup_", "backup_") == plain[name]
    assert "rate(my_site_backup_retention_cleaned_failed[5m]) > 0" in prefixed[ALERTS]
    assert "my_site_lastgood" not in prefixed[ALERTS]
    assert "name: backup_alerts" in prefixed[ALERTS]


def test_prometheus_and_alertmanager_take_them(tmp_path: Path) -> None:
    write_monitoring_files(tmp_path, "site", ["backup1:9817", "[::1]:9817"])
    assert said("check", "config", str(tmp_path / "prometheus.yml")) == ""
    amtool = ["amtool", "check-config", str(tmp_path / "alertmanager.yml")]
    checked = subprocess.run(amtool, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    job = yaml.safe_load((tmp_path / "prometheus.yml").read_text())["scrape_configs"][0]
    assert (job["job_name"], job["static_configs"]) == ("lastgood", [{"targets": ["backup1:9817", "[::1]:9817"]}])
    assert json.loads((tmp_path / "dashboard.json").read_text())["uid"] == "lastgood"


@pytest.mark.parametrize(
    ("severity", "receiver"), [("critical", "urgent"), ("warning", "mail"), ("info", "mail"), ("", "mail")]
)
def test_who_is_told_is_decided_by_severity(severity: str, receiver: str, tmp_path: Path) -> None:
    write_monitoring_files(tmp_path)
    words = [
        "amtool",
        "config",
        "routes",
        "test",
        f"--config.file={tmp_path / 'alertmanager.yml'}",
        f"severity={severity}",
    ]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip() == receiver


@pytest.mark.parametrize("prefix", ["1st", "a b", "x{", "é", "a\nb"])
def test_what_cannot_be_a_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the prefix"):
        monitoring_files(prefix)


@pytest.mark.parametrize(
    "target", ["backup1", "http://backup1:9817", "backup1:port", 'a":1', "", "a b:1", "a:1\n", "a:0", "a:65536"]
)
def test_what_is_no_place_to_scrape_is_refused(target: str) -> None:
    with pytest.raises(ConfigurationError, match="no place to scrape"):
        monitoring_files(targets=[target])


def as_file(path: Path) -> None:
    path.write_text("mine")


def as_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [as_file, as_dangling_link])
def test_what_is_there_is_left_and_nothing_is_written(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "dashboard.json")
    with pytest.raises(ConfigurationError, match=r"dashboard\.json exists"):
        write_monitoring_files(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["dashboard.json"]


@pytest.mark.parametrize("name", ["file/folder", "long" * 100])
def test_a_folder_that_cannot_be_made_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written into"):
        write_monitoring_files(tmp_path / name)


def test_where_one_of_them_cannot_be_written_none_is_left(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(ConfigurationError, match="File too large"):
            write_monitoring_files(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
    assert len(write_monitoring_files(tmp_path)) == len(NAMES)
