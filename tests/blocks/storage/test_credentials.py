"""Where credentials of storages come from, and that nothing shows them."""

from __future__ import annotations

import json
import logging
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from blocks.errors import ConfigurationError, LastgoodError, StorageRefused
from blocks.plan.hook_context import HookContext
from blocks.plan.hooked_run import HookedRun
from blocks.plan.plan import BackupPlan, parse_plan
from blocks.storage.kinds import open_tier, secret_variables
from blocks.storage.s3 import s3_credentials, s3_region
from blocks.storage.settings import StorageSettings
from tests.cloud_servers import ACCOUNT_KEY, ACCOUNT_KEY_ENV, Azurite
from tests.fault_proxy import Fault, FaultProxy, Reply
from tests.object_servers import KEY_ID, KEY_ID_ENV, SECRET, SECRET_ENV, Seaweed

NONE = "http://127.0.0.1:1"
"""Where nobody answers."""


@pytest.fixture
def states(_own_state_home: Path) -> Path:
    return _own_state_home


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials but those of the test."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", NONE)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def as_file(path: Path, *, profile: str = "default", secret: str = SECRET, token: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    more = f"aws_session_token = {token}\n" if token else ""
    path.write_text(f"[{profile}]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {secret}\n{more}")
    return path


def environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    return {}


def named_variables(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    monkeypatch.setenv("MY_ID", KEY_ID)
    monkeypatch.setenv("MY_SECRET", SECRET)
    return {"key_id_env": "MY_ID", "secret_env": "MY_SECRET"}


def home(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    as_file(folder / ".aws" / "credentials")
    return {}


def shared_file(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(as_file(folder / "shared")))
    return {}


def profile_of_configuration(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(as_file(folder / "config", profile="profile backup")))
    monkeypatch.setenv("AWS_PROFILE", "backup")
    return {}


def profile_of_plan(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    as_file(folder / ".aws" / "credentials", profile="backup")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    return {"profile": "backup"}


def file_of_plan(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    return {"credentials_file": as_file(folder / "own")}


WAYS = [environment, named_variables, home, shared_file, profile_of_configuration, profile_of_plan, file_of_plan]


@pytest.mark.parametrize("way", WAYS)
def test_credentials_of_s3_are_found(
    seaweed_server: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: Callable[..., dict[str, Any]]
) -> None:
    settings = StorageSettings(endpoint=seaweed_server.endpoint, attempts=2, **way(monkeypatch, tmp_path))
    tier = open_tier(f"s3://{seaweed_server.bucket()}/x", settings)
    tier.put("object", b"data", exclusive=True)
    assert tier.get("object") == b"data"


def metadata(role: str) -> type[BaseHTTPRequestHandler]:
    """What an instance of EC2 is told about its role."""

    class Metadata(BaseHTTPRequestHandler):
        def answer(self, text: str) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def do_PUT(self) -> None:
            self.answer("a token of the metadata service")

        def do_GET(self) -> None:
            keys = {"AccessKeyId": KEY_ID, "SecretAccessKey": SECRET, "Token": "", "Code": "Success"}
            keys |= {"Expiration": "2099-01-01T00:00:00Z", "LastUpdated": "2026-01-01T00:00:00Z", "Type": "AWS-HMAC"}
            self.answer(json.dumps(keys) if self.path.endswith(role) else role)

        def log_message(self, *_: object) -> None:
            pass

    return Metadata


@pytest.fixture
def instance() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), metadata("backup-role"))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_an_instance_has_the_credentials_of_its_role(
    seaweed_server: Seaweed, monkeypatch: pytest.MonkeyPatch, instance: str
) -> None:
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", instance)
    tier = open_tier(f"s3://{seaweed_server.bucket()}/x", StorageSettings(endpoint=seaweed_server.endpoint))
    tier.put("object", b"data")
    assert tier.get("object") == b"data"


def test_where_there_are_no_credentials_that_is_said_at_once(seaweed_server: Seaweed) -> None:
    with pytest.raises(StorageRefused, match=r"no credentials for s3://bucket/x at .* were found") as caught:
        open_tier("s3://bucket/x", StorageSettings(endpoint=seaweed_server.endpoint)).put("object", b"")
    assert "storage" in caught.value.hint


def test_session_tokens_come_with_their_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(as_file(tmp_path / "shared", token="from the file")))
    found = s3_credentials(StorageSettings())
    assert found is not None
    assert found()["token"] == "from the file"
    for name, value in {"MY_ID": "a", "MY_SECRET": "b", "MY_TOKEN": "from a variable"}.items():
        monkeypatch.setenv(name, value)
    named = s3_credentials(StorageSettings(key_id_env="MY_ID", secret_env="MY_SECRET", token_env="MY_TOKEN"))
    assert named is not None
    assert named()["token"] == "from a variable"


def test_a_token_is_sent_with_the_request(
    s3: Seaweed, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = StorageSettings(endpoint=proxy.endpoint, credentials_file=as_file(tmp_path / "own", token="abc"))
    proxy.faults.append(Fault("answer", "PUT", reply=Reply(403)))
    with pytest.raises(StorageRefused):
        open_tier("s3://bucket/x", settings).put("object", b"data")
    assert proxy.headers[-1]["x-amz-security-token"] == "abc"


def test_keys_that_somebody_renews_are_read_again(tmp_path: Path) -> None:
    settings = StorageSettings(credentials_file=as_file(tmp_path / "own", secret="first"))
    found = s3_credentials(settings)
    assert found is not None
    assert found()["secret_access_key"] == "first"
    as_file(tmp_path / "own", secret="second")
    assert found()["secret_access_key"] == "second"
    assert found()["expires_at"] is not None, "so that obstore asks again"


def test_the_region_is_that_of_the_profile_where_nothing_else_names_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert s3_region(StorageSettings()) is None
    config = tmp_path / "config"
    config.write_text("[default]\nregion = eu-north-1\n[profile b]\nregion = eu-west-3\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    assert s3_region(StorageSettings()) == "eu-north-1"
    assert s3_region(StorageSettings(profile="b")) == "eu-west-3"
    assert s3_region(StorageSettings(profile="b", region="us-west-1")) == "us-west-1"
    monkeypatch.setenv("AWS_REGION", "sa-east-1")
    assert s3_region(StorageSettings()) is None, "obstore reads the environment"
    assert s3_region(StorageSettings(profile="b")) == "eu-west-3"


# What is wrong with them


@pytest.mark.parametrize(
    ("url", "given", "words"),
    [
        ("s3://b/x", {"secret_env": "NOT_SET"}, r"repository\.storage\.key_id_env: .* AWS_ACCESS_KEY_ID is not set"),
        ("s3://b/x", {"key_id_env": "NOT_SET"}, r"repository\.storage\.key_id_env: .* NOT_SET is not set"),
        ("s3://b/x", {"key_id_env": "HOME", "secret_env": "NO"}, r"repository\.storage\.secret_env: .* NO is not set"),
        (
            "s3://b/x",
            {"key_id_env": "HOME", "secret_env": "HOME", "token_env": "NO"},
            r"repository\.storage\.token_env: .* NO is not set",
        ),
        (
            "az://b/x",
            {"account": "a", "secret_env": "NOT_SET"},
            r"repository\.storage\.secret_env: .* NOT_SET is not set",
        ),
        ("az://b/x", {}, r"repository\.storage: .*Account must be specified"),
        ("s3://b/x", {"profile": "none"}, r"repository\.storage: .*profile \(none\)"),
        ("s3://b/x", {"credentials_file": "/none"}, r"repository\.storage\.credentials_file: there is no file /none"),
        ("gs://b/x", {"credentials_file": "/none"}, r"repository\.storage: .*service account file from /none"),
        ("gs://b/x", {"secret_env": "X"}, r"repository\.storage: secret_env means nothing to gs://"),
        ("/path", {"secret_env": "X"}, r"repository\.storage: secret_env means nothing to file://"),
    ],
)
def test_credentials_that_are_not_there_are_said_by_field_before_any_request(
    proxy: FaultProxy, url: str, given: dict[str, Any], words: str
) -> None:
    more = {} if url.startswith("/") else {"endpoint": proxy.endpoint}
    with pytest.raises(ConfigurationError, match=words) as caught:
        open_tier(url, StorageSettings(**given, **more))
    assert (caught.value.exit_code, bool(caught.value.hint), proxy.requests) == (2, True, [])


@pytest.mark.parametrize(
    "endpoint", ["host:9000", "ftp://host", "http://", "https://key:secret@host", "https://host/?sig=x", "http://h#x"]
)
def test_an_endpoint_that_is_none_or_holds_credentials_is_refused(endpoint: str) -> None:
    with pytest.raises(ValidationError) as caught:
        StorageSettings(endpoint=endpoint)
    assert "secret" not in str(caught.value)


# Nothing shows them


def test_nothing_secret_is_in_what_is_shown_kept_or_logged(
    s3: Seaweed,
    az: Azurite,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    states: Path,
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    token = "token-of-the-session"
    monkeypatch.setenv("MY_TOKEN", token)
    own = as_file(tmp_path / "own", token=token)
    shown: list[str] = []
    through = s3.settings.model_copy(update={"endpoint": proxy.endpoint, "attempts": 1})
    for url, settings in (
        (f"s3://{s3.bucket()}/x", through),
        (f"s3://{s3.bucket()}/x", through.model_copy(update={"token_env": "MY_TOKEN"})),
        (f"s3://{s3.bucket()}/x", StorageSettings(endpoint=proxy.endpoint, attempts=1, credentials_file=own)),
        (f"az://{az.bucket()}/x", az.settings),
    ):
        tier = open_tier(url, settings)
        with suppress(StorageRefused):  # the server knows no tokens
            tier.put("object", b"data")
        shown += [repr(tier), str(vars(tier)), tier.place, tier.url, repr(settings), settings.model_dump_json()]
        for answer in (Reply(403), Reply(500), Reply(400, {}, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")):
            proxy.faults[:] = [Fault("answer", "GET", reply=answer)]
            try:
                tier.get("none")
            except LastgoodError as exc:
                shown += [*traceback.format_exception(exc), repr(exc), exc.hint]
    plan = parse_plan(as_plan("s3://b/x", {"key_id_env": KEY_ID_ENV, "secret_env": SECRET_ENV}), "p")
    shown += [repr(plan), plan.model_dump_json(), caplog.text]
    kept = [path for path in states.rglob("*") if path.is_file()]
    shown += [path.name + path.read_text() for path in kept]
    everything = "\n".join(shown)
    assert kept
    assert "cannot read none" in everything
    assert not [secret for secret in (SECRET, KEY_ID, ACCOUNT_KEY, ACCOUNT_KEY[:20], token) if secret in everything]


def as_plan(url: str, storage: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "p",
        "sources": {"a": {"type": "sqlite", "path": "x"}},
        "repository": {"url": url, "storage": storage},
        "encryption": "none",
    }


@pytest.mark.parametrize("url", ["/path", "s3://b/x", "memory://b/x"])
def test_settings_that_say_nothing_of_their_own_fit_every_kind(url: str) -> None:
    # as a block that was loaded has them
    open_tier(url, StorageSettings(**StorageSettings().model_dump()))


def test_a_setting_that_there_is_not_is_refused_with_the_plan() -> None:
    with pytest.raises(ConfigurationError, match=r"repository\.storage\.regoin: there is no such field"):
        parse_plan(as_plan("s3://b/x", {"regoin": "eu-central-1"}), "p")


AWS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
PREFECT = {"PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"}


@pytest.mark.parametrize(
    ("url", "given", "variables"),
    [
        ("/path", {}, set()),
        ("s3://b/x", {}, AWS),
        ("s3://b/x", {"key_id_env": "K", "secret_env": "S", "token_env": "T"}, {"K", "S", "T"}),
        ("s3://b/x", {"profile": "p"}, set()),
        ("s3://b/x", {"credentials_block": "aws-credentials/x"}, PREFECT),
        ("az://b/x", {"secret_env": "S"}, {"S"}),
        ("gs://b/x", {}, {"GOOGLE_SERVICE_ACCOUNT_KEY"}),
    ],
)
def test_what_lets_into_the_storage_is_kept_from_hooks(
    url: str, given: dict[str, Any], variables: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan: BackupPlan = parse_plan(as_plan(url, given) | {"hooks": {"before": [["sh", "-c", "env > seen"]]}}, "p")
    assert plan.secret_variables == variables == secret_variables(url, plan.repository.storage)
    for name in variables:
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("OTHER", "kept")
    hooks = plan.hooks.anchored(tmp_path)
    with HookedRun(hooks, HookContext("p", "backup"), plan.secret_variables).around_reading():
        pass
    seen = (tmp_path / "seen").read_text()
    assert "hunter2" not in seen
    assert "OTHER=kept" in seen


def test_a_key_for_azure_is_found_in_the_environment(az: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"az://{az.bucket()}/x"
    monkeypatch.delenv(ACCOUNT_KEY_ENV)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY)
    tier = open_tier(url, az.settings.model_copy(update={"secret_env": None}))
    tier.put("object", b"data")
    assert tier.get("object") == b"data"


def test_only_a_server_without_tls_gets_no_token_of_google(proxy: FaultProxy, s3: Seaweed) -> None:
    proxy.faults.append(Fault("answer", "PUT", reply=Reply(403)))
    with pytest.raises(StorageRefused, match="403"):
        open_tier("gs://bucket/x", StorageSettings(endpoint=proxy.endpoint)).put("object", b"")
    assert proxy.headers[-1]["authorization"] == "Bearer none"
    with pytest.raises(StorageRefused, match="no credentials for gs://bucket/x"):
        open_tier("gs://bucket/x", StorageSettings(endpoint=proxy.endpoint.replace("http:", "https:"), attempts=1)).put(
            "object", b""
        )


def test_named_variables_are_read_when_a_tier_is_opened(s3: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    tier = s3.tier()
    monkeypatch.delenv(KEY_ID_ENV)
    monkeypatch.delenv(SECRET_ENV)
    tier.put("object", b"data")
    assert tier.get("object") == b"data"
