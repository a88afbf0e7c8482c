"""Who can open a repository, who cannot, and what becomes of a lastgood.json that somebody changed."""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
import pickle
import stat
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue, TypeAdapter, ValidationError

from blocks.crypto.credential import format_key, parse_key
from blocks.crypto.encoding import to_base64
from blocks.crypto.encryption_config import authenticated
from blocks.crypto.key_slots import public_bytes
from blocks.crypto.keyring import (
    Credential,
    Encryption,
    Kem,
    Keyring,
    NoEncryption,
    RecoveryKey,
    Role,
    generate_key_file,
    parse_encryption,
    write_key_file,
)
from blocks.crypto.keys import Keys
from blocks.crypto.repository_keys import add_slot, create_keys, list_slots, remove_slot, unlock
from blocks.errors import ConfigurationError, CorruptionDetected, LastgoodError, WrongKey

REPOSITORY = "repository-1"
PLAN, BACKUP = "trading", "FUL_20260102_030405_9f3a"
VECTOR = json.loads((Path(__file__).parent / "vectors" / "keyring.json").read_text())
Json = dict[str, JsonValue]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Key files of a reader, a writer and a stranger."""
    for name in ("reader", "writer", "stranger"):
        generate_key_file(tmp_path / f"{name}.key")
    return tmp_path


def holder(folder: Path, name: str, kem: Kem = Kem.HYBRID) -> Keyring:
    return Keyring(credential=Credential(key_file=folder / f"{name}.key"), kem=kem)


@pytest.fixture
def created(folder: Path) -> tuple[Json, Keys, RecoveryKey]:
    """A repository with slots of a reader, the recovery key and a writer."""
    encryption, keys, recovery = create_keys(holder(folder, "reader"), REPOSITORY)
    assert recovery is not None
    encryption = add_slot(encryption, keys, holder(folder, "writer").credential, Role.WRITER, "worker")
    return json.loads(json.dumps(encryption)), keys, recovery


Created = tuple[Json, Keys, RecoveryKey]


# --- data keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kem", Kem)
def test_a_data_key_comes_back_in_another_process_of_a_reader(kem: Kem, folder: Path) -> None:
    encryption, keys, _ = create_keys(holder(folder, "reader", kem), REPOSITORY)
    data_key, encapsulated = keys.new_data_key(PLAN, BACKUP)
    assert data_key is not None
    assert len(data_key) == 32
    again = unlock(json.loads(json.dumps(encryption)), holder(folder, "reader", kem), REPOSITORY)
    assert again.open_data_key(encapsulated, again.key_id, PLAN, BACKUP) == data_key
    assert (again.catalogue_key, again.digest_key) == (keys.catalogue_key, keys.digest_key)
    assert (again.key_id, again.epoch, again.role, again.encrypted) == ("epoch-1", 1, Role.READER, True)


@pytest.mark.parametrize(("plan", "backup"), [("trading2", BACKUP), (PLAN, "FUL_x"), (PLAN + BACKUP[0], BACKUP[1:])])
def test_a_data_key_of_another_backup_is_not_accepted(created: Created, plan: str, backup: str) -> None:
    _, keys, _ = created
    _, encapsulated = keys.new_data_key(plan, backup)
    with pytest.raises(CorruptionDetected, match=f"backup {BACKUP} of plan trading"):
        keys.open_data_key(encapsulated, keys.key_id, PLAN, BACKUP)


def test_a_damaged_encapsulation_is_found(created: Created) -> None:
    _, keys, _ = created
    encapsulated = base64.b64decode(keys.new_data_key(PLAN, BACKUP)[1] or "")
    for position in (0, 1087, 1088, 1119, 1120, 1151, len(encapsulated) - 1):
        damaged = bytearray(encapsulated)
        damaged[position] ^= 1
        with pytest.raises(CorruptionDetected):
            keys.open_data_key(to_base64(bytes(damaged)), keys.key_id, PLAN, BACKUP)
    for wrong in ("", "AAAA", "not base64!", to_base64(encapsulated[:-1]), to_base64(encapsulated) + "\n", None):
        with pytest.raises(CorruptionDetected):
            keys.open_data_key(wrong, keys.key_id, PLAN, BACKUP)


@pytest.mark.parametrize("key_id", ["epoch-2", "epoch-01", "none", ""])
def test_a_data_key_of_an_epoch_that_is_not_there_is_refused(created: Created, key_id: str) -> None:
    _, keys, _ = created
    with pytest.raises(WrongKey, match=r"lastgood\.json"):
        keys.open_data_key(keys.new_data_key(PLAN, BACKUP)[1], key_id, PLAN, BACKUP)


def test_each_backup_has_a_key_of_its_own(created: Created) -> None:
    _, keys, _ = created
    assert keys.new_data_key(PLAN, BACKUP)[0] != keys.new_data_key(PLAN, BACKUP)[0]


# --- roles -------------------------------------------------------------------------------------------------------


def test_a_writer_reads_the_catalogue_and_seals_data_but_never_reads_it(created: Created, folder: Path) -> None:
    encryption, keys, _ = created
    writer = unlock(encryption, holder(folder, "writer"), REPOSITORY)
    assert writer.role is Role.WRITER
    assert (writer.catalogue_key, writer.digest_key) == (keys.catalogue_key, keys.digest_key)
    data_key, encapsulated = writer.new_data_key(PLAN, BACKUP)
    assert keys.open_data_key(encapsulated, writer.key_id, PLAN, BACKUP) == data_key
    with pytest.raises(WrongKey, match="may write backups but not read their data"):
        writer.open_data_key(encapsulated, writer.key_id, PLAN, BACKUP)


def test_nothing_a_writer_holds_opens_a_private_key(created: Created, folder: Path) -> None:
    encryption, _, _ = created
    writer = unlock(encryption, holder(folder, "writer"), REPOSITORY)
    assert writer._reader_key is None
    assert writer._seeds == {}
    with pytest.raises(AssertionError):
        writer.slot_payload(Role.READER)


def test_a_writer_adds_writers_only(created: Created, folder: Path) -> None:
    encryption, _, _ = created
    writer = unlock(encryption, holder(folder, "writer"), REPOSITORY)
    stranger = holder(folder, "stranger")
    with pytest.raises(WrongKey, match="cannot add a reader"):
        add_slot(encryption, writer, stranger.credential, Role.READER, "me")
    more = add_slot(encryption, writer, stranger.credential, Role.WRITER, "second worker")
    assert unlock(more, stranger, REPOSITORY).role is Role.WRITER


def test_a_writer_removes_nobody(created: Created, folder: Path) -> None:
    encryption, _, _ = created
    writer = unlock(encryption, holder(folder, "writer"), REPOSITORY)
    with pytest.raises(WrongKey, match="cannot remove"):
        remove_slot(encryption, writer, list_slots(encryption)[0].id)


def test_an_added_reader_reads_and_a_removed_one_no_longer_does(created: Created, folder: Path) -> None:
    encryption, keys, _ = created
    stranger = holder(folder, "stranger")
    before = copy.deepcopy(encryption)
    more = add_slot(encryption, keys, stranger.credential, Role.READER, "auditor")
    assert unlock(more, stranger, REPOSITORY).role is Role.READER
    fewer = remove_slot(more, keys, list_slots(more)[-1].id)
    with pytest.raises(WrongKey):
        unlock(fewer, stranger, REPOSITORY)
    assert unlock(fewer, holder(folder, "reader"), REPOSITORY).role is Role.READER
    assert encryption == before


def test_a_writer_that_was_made_a_reader_reads(created: Created, folder: Path) -> None:
    encryption, keys, _ = created
    writer = holder(folder, "writer")
    assert unlock(encryption, writer, REPOSITORY).role is Role.WRITER
    more = add_slot(encryption, keys, writer.credential, Role.READER, "promoted")
    assert unlock(more, writer, REPOSITORY).role is Role.READER


def test_the_last_reader_stays(created: Created) -> None:
    encryption, keys, _ = created
    reader, recovery, writer = list_slots(encryption)
    fewer = remove_slot(encryption, keys, recovery.id)
    with pytest.raises(ConfigurationError, match="last one of a reader"):
        remove_slot(fewer, keys, reader.id)
    assert [slot.id for slot in list_slots(remove_slot(fewer, keys, writer.id))] == [reader.id]


def test_a_slot_that_is_not_there_cannot_be_removed(created: Created) -> None:
    encryption, keys, _ = created
    with pytest.raises(ConfigurationError, match="no slot 00000000") as caught:
        remove_slot(encryption, keys, "00000000")
    assert list_slots(encryption)[0].id in caught.value.hint


def test_slots_are_shown_without_keys(created: Created) -> None:
    shown = [(slot.label, slot.role.value, slot.kind.value) for slot in list_slots(created[0])]
    assert shown == [
        ("credential of the plan", "reader", "key-file"),
        ("recovery key", "reader", "key-file"),
        ("worker", "writer", "key-file"),
    ]


@pytest.mark.parametrize("label", ["two\nlines", "\x1b[31m", "x" * 201])
def test_labels_that_would_spoil_a_table_are_refused(created: Created, folder: Path, label: str) -> None:
    with pytest.raises(ConfigurationError, match="label"):
        add_slot(created[0], created[1], holder(folder, "stranger").credential, Role.WRITER, label)


def test_there_is_a_limit_to_credentials(created: Created, folder: Path) -> None:
    encryption, keys, _ = created
    credential = holder(folder, "stranger").credential
    while len(list_slots(encryption)) < 32:
        encryption = add_slot(encryption, keys, credential, Role.WRITER, "worker")
    with pytest.raises(ConfigurationError, match="at most 32"):
        add_slot(encryption, keys, credential, Role.WRITER, "worker")


def test_keys_of_another_repository_change_nothing_here(created: Created, folder: Path) -> None:
    _, other, _ = create_keys(holder(folder, "stranger"), "repository-2")
    with pytest.raises(CorruptionDetected, match=r"lastgood\.json"):
        add_slot(created[0], other, holder(folder, "stranger").credential, Role.WRITER, "worker")


# --- passphrases, key files, recovery keys -----------------------------------------------------------------------


def test_a_passphrase_opens_and_another_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHRASE", "correct horse battery staple")
    keyring = Keyring(credential=Credential(passphrase_env="PHRASE"))
    encryption, keys, _ = create_keys(keyring, REPOSITORY)
    assert unlock(encryption, keyring, REPOSITORY).catalogue_key == keys.catalogue_key
    monkeypatch.setenv("PHRASE", "correct horse battery stable")
    with pytest.raises(WrongKey, match="opens none of the 2 slots") as caught:
        unlock(encryption, keyring, REPOSITORY)
    assert "recovery key" in caught.value.hint


def test_a_passphrase_is_the_same_from_every_place_and_keyboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHRASE", "ｃafe\u0301 ﬁ")
    (tmp_path / "unix").write_bytes("café fi\n".encode())
    (tmp_path / "dos").write_bytes("café fi\r\n".encode())
    (tmp_path / "bare").write_bytes("café fi".encode())
    values = {Credential(passphrase_env="PHRASE").resolve().value}
    values |= {Credential(passphrase_file=tmp_path / name).resolve().value for name in ("unix", "dos", "bare")}
    assert values == {"café fi".encode()}


def test_only_one_newline_is_taken_from_a_passphrase_file(tmp_path: Path) -> None:
    (tmp_path / "phrase").write_bytes(b" spaces stay \n\n")
    assert Credential(passphrase_file=tmp_path / "phrase").resolve().value == b" spaces stay \n"


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n"])
def test_an_empty_passphrase_is_refused(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "phrase").write_bytes(content)
    monkeypatch.setenv("PHRASE", "")
    for credential in (Credential(passphrase_file=tmp_path / "phrase"), Credential(passphrase_env="PHRASE")):
        with pytest.raises(ConfigurationError, match="empty"):
            credential.resolve()


def test_missing_and_unreadable_credentials_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "huge").write_bytes(b"x" * 70_000)
    monkeypatch.setenv("BINARY", "\udcff")
    for credential, name in (
        (Credential(passphrase_env="NOT_SET_ANYWHERE"), "NOT_SET_ANYWHERE"),
        (Credential(recovery_key_env="NOT_SET_ANYWHERE"), "NOT_SET_ANYWHERE"),
        (Credential(passphrase_env="BINARY"), "BINARY"),
        (Credential(passphrase_file=tmp_path / "absent"), "absent"),
        (Credential(passphrase_file=tmp_path), tmp_path.name),
        (Credential(passphrase_file=tmp_path / "binary"), "binary"),
        (Credential(passphrase_file=tmp_path / "huge"), "huge"),
        (Credential(key_file=tmp_path / "absent"), "absent"),
    ):
        with pytest.raises(ConfigurationError, match=name):
            credential.resolve()


@pytest.mark.parametrize(
    "fields", [{}, {"passphrase_env": "A", "key_file": "b"}, {"passphrase_env": None}, {"password": "x"}]
)
def test_a_credential_names_exactly_one_place(fields: dict[str, str | None]) -> None:
    with pytest.raises(ValidationError):
        Credential.model_validate(fields)


def test_a_credential_survives_being_saved() -> None:
    credential = Credential(passphrase_env="PHRASE")
    assert Credential.model_validate_json(credential.model_dump_json()) == credential


def test_relative_paths_belong_to_the_folder_of_the_plan(tmp_path: Path) -> None:
    keyring = Keyring(credential=Credential(key_file=Path("keys/a.key"))).anchored(tmp_path)
    assert keyring.credential.key_file == tmp_path / "keys" / "a.key"
    assert Credential(passphrase_file=Path("p")).anchored(tmp_path).passphrase_file == tmp_path / "p"
    assert Credential(key_file=Path("/abs/a.key")).anchored(tmp_path).key_file == Path("/abs/a.key")
    assert Credential(key_file=Path("~/a.key")).anchored(tmp_path).key_file == Path.home() / "a.key"
    assert Credential(passphrase_env="PHRASE").anchored(tmp_path).passphrase_env == "PHRASE"


def test_a_key_file_is_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    generate_key_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="exists already"):
        generate_key_file(path)
    assert path.read_bytes() == before
    with pytest.raises(ConfigurationError, match="cannot be created"):
        generate_key_file(tmp_path / "absent" / "a.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_file_that_others_may_touch_is_refused(mode: int, tmp_path: Path) -> None:
    generate_key_file(tmp_path / "a.key")
    (tmp_path / "a.key").chmod(mode)
    with pytest.raises(ConfigurationError, match="by others") as caught:
        Credential(key_file=tmp_path / "a.key").resolve()
    assert "chmod 600" in caught.value.hint


def test_the_recovery_key_opens_everything_from_a_file_or_typed(
    created: Created, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encryption, keys, recovery = created
    write_key_file(tmp_path / "recovery.key", recovery.text)
    (tmp_path / "typed").write_text(f"\n  {recovery.text.lower().replace('-', ' ')}  \n")
    (tmp_path / "typed").chmod(0o600)
    (tmp_path / "wrapped").write_text(recovery.text[:40] + "\n" + recovery.text[40:])
    (tmp_path / "wrapped").chmod(0o600)
    monkeypatch.setenv("RECOVERY", recovery.text.removeprefix("LASTGOOD-KEY-1-"))
    places = [Credential(key_file=tmp_path / name) for name in ("recovery.key", "typed", "wrapped")]
    for credential in [*places, Credential(recovery_key_env="RECOVERY")]:
        opened = unlock(encryption, Keyring(credential=credential), REPOSITORY)
        assert (opened.role, opened.catalogue_key) == (Role.READER, keys.catalogue_key)


@given(st.binary(min_size=32, max_size=32))
def test_a_key_comes_back_from_its_text(key: bytes) -> None:
    assert parse_key(format_key(key), "test") == key


@settings(max_examples=200)
@given(
    key=st.binary(min_size=32, max_size=32),
    position=st.integers(0, 55),
    letter=st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
)
def test_one_wrong_letter_is_told(key: bytes, position: int, letter: str) -> None:
    letters = list(format_key(key).removeprefix("LASTGOOD-KEY-1-").replace("-", ""))
    if letters[position] == letter:
        return
    letters[position] = letter
    with pytest.raises(ConfigurationError, match="mistyped"):
        parse_key("".join(letters), "test")


def test_swapped_missing_and_strange_groups_are_told() -> None:
    text = format_key(bytes(range(32)))
    groups = text.split("-")
    groups[4], groups[5] = groups[5], groups[4]
    for wrong in ("-".join(groups), text[:-5], text + "-AAAA", "", "hello", text.replace("A", "é"), text[:-1] + "9"):
        with pytest.raises(ConfigurationError):
            parse_key(wrong, "test")


def test_digits_that_look_like_letters_are_read_as_them() -> None:
    text = format_key(bytes(range(32))).removeprefix("LASTGOOD-KEY-1-")
    assert set("OIB") <= set(text)
    assert parse_key(text.replace("O", "0").replace("I", "1").replace("B", "8"), "test") == bytes(range(32))


# --- a changed lastgood.json -------------------------------------------------------------------------------------


def leaves(value: JsonValue, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    else:
        yield path


def changed(encryption: Json, path: tuple[str | int, ...], change: Callable[[JsonValue], JsonValue]) -> Json:
    result = copy.deepcopy(encryption)
    place: JsonValue = result
    for step in path[:-1]:
        place = place[step]  # type: ignore[index,call-overload]
    place[path[-1]] = change(place[path[-1]])  # type: ignore[index,call-overload]
    return result


def resigned(encryption: Json) -> Json:
    """What an attacker without keys can do: make the checksum right again."""
    body = {name: value for name, value in encryption.items() if name != "checksum"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return {**body, "checksum": hashlib.sha256(text.encode()).hexdigest()}


def nudge(value: JsonValue) -> JsonValue:
    if isinstance(value, int):
        return value + 1
    assert isinstance(value, str)
    middle = len(value) // 2
    return value[:middle] + ("A" if value[middle : middle + 1] != "A" else "B") + value[middle + 1 :]


def test_damage_of_any_value_is_told_from_a_wrong_passphrase(created: Created, folder: Path) -> None:
    encryption, _, _ = created
    for path in leaves(encryption):
        for change in (nudge, lambda _: None, lambda _: [], lambda _: {}, lambda _: "\ud800"):
            with pytest.raises((CorruptionDetected, ConfigurationError)) as caught:
                unlock(changed(encryption, path, change), holder(folder, "reader"), REPOSITORY)
            assert "lastgood.json" in caught.value.message, path
            assert path == ("version",) or isinstance(caught.value, CorruptionDetected) or path == ("cipher",), path


def test_no_value_can_be_changed_without_the_keys(created: Created, folder: Path) -> None:
    encryption, _, _ = created
    for path in leaves(encryption):
        if path == ("checksum",):
            continue
        for change in (nudge, lambda _: None, lambda _: [], lambda _: {}, lambda _: True):
            with pytest.raises(LastgoodError):
                unlock(resigned(changed(encryption, path, change)), holder(folder, "reader"), REPOSITORY)


def test_every_unlock_sees_a_swapped_public_key(created: Created, folder: Path) -> None:
    encryption, _, _ = created
    foreign = to_base64(public_bytes(Kem.HYBRID, bytes(32)))
    swapped = resigned(changed(encryption, ("epochs", 0, "public_key"), lambda _: foreign))
    for name in ("reader", "writer"):
        with pytest.raises(CorruptionDetected, match=r"lastgood\.json"):
            unlock(swapped, holder(folder, name), REPOSITORY)


def test_a_reader_sees_a_public_key_that_a_writer_swapped(created: Created, folder: Path) -> None:
    encryption, _, _ = created
    writer = unlock(encryption, holder(folder, "writer"), REPOSITORY)
    foreign = to_base64(public_bytes(Kem.HYBRID, bytes(32)))
    swapped = changed(encryption, ("epochs", 0, "public_key"), lambda _: foreign)
    forged = authenticated({name: swapped[name] for name in ("version", "kem", "cipher", "epochs", "slots")}, writer)
    with pytest.raises(CorruptionDetected, match="public key of epoch 1"):
        unlock(forged, holder(folder, "reader"), REPOSITORY)


def test_a_slot_that_somebody_removed_is_seen(created: Created, folder: Path) -> None:
    encryption, _, _ = created
    slots = encryption["slots"]
    assert isinstance(slots, list)
    for kept in ([slots[0], slots[1]], [slots[1], slots[0], slots[2]], [*slots, slots[0]], []):
        with pytest.raises(CorruptionDetected, match=r"lastgood\.json"):
            unlock(resigned({**encryption, "slots": kept}), holder(folder, "reader"), REPOSITORY)


def test_a_missing_slot_is_a_wrong_key(created: Created, folder: Path) -> None:
    with pytest.raises(WrongKey, match="opens none of the 3 slots"):
        unlock(created[0], holder(folder, "stranger"), REPOSITORY)


def test_a_repository_put_in_place_of_another_is_refused(created: Created, folder: Path) -> None:
    with pytest.raises(WrongKey):
        unlock(created[0], holder(folder, "reader"), "repository-2")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 2),
        (("version",), None),
        (("version",), [1]),
        (("kem",), "mlkem1024-p384"),
        (("kem",), None),
        (("cipher",), "rot13"),
        (("cipher",), {}),
        (("slots", 0, "kdf", "name"), "md5"),
        (("slots", 0, "kdf"), None),
    ],
)
def test_what_this_version_does_not_know_fails_closed(
    created: Created, folder: Path, path: tuple[str | int, ...], value: JsonValue
) -> None:
    strange = resigned(changed(created[0], path, lambda _: value))
    for attempt in (
        lambda: unlock(strange, holder(folder, "reader"), REPOSITORY),
        lambda: list_slots(strange),
        lambda: remove_slot(strange, created[1], "00000000"),
    ):
        with pytest.raises(ConfigurationError, match="does not know"):
            attempt()


@pytest.mark.parametrize(
    "cost",
    [
        {"memory_kib": 2**30},
        {"memory_kib": 512 * 1024 + 1},
        {"memory_kib": 1},
        {"iterations": 2**31},
        {"iterations": 0},
        {"lanes": 2**20},
        {"lanes": 0},
        {"lanes": -1},
        {"salt": ""},
        {"salt": "AAAA"},
        {"more": 1},
    ],
    ids=str,
)
def test_hostile_argon2_costs_are_refused_before_they_are_paid(
    cost: Json, created: Created, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHRASE", "correct horse battery staple")
    salt = to_base64(bytes(32))
    kdf = {"name": "argon2id", "salt": salt, "iterations": 3, "memory_kib": 65536, "lanes": 4, **cost}
    hostile = changed(created[0], ("slots", 0, "kdf"), lambda _: kdf)  # type: ignore[arg-type,return-value]
    hostile = resigned(changed(hostile, ("slots", 0, "kind"), lambda _: "passphrase"))
    with pytest.raises(CorruptionDetected, match=r"lastgood.json: slots\.0"):
        unlock(hostile, Keyring(credential=Credential(passphrase_env="PHRASE")), REPOSITORY)


def test_a_passphrase_is_never_used_unstretched(created: Created, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHRASE", "correct horse battery staple")
    hostile = resigned(changed(created[0], ("slots", 0, "kind"), lambda _: "passphrase"))
    with pytest.raises(CorruptionDetected, match="argon2id"):
        unlock(hostile, Keyring(credential=Credential(passphrase_env="PHRASE")), REPOSITORY)


def test_the_object_holds_no_key_in_the_clear(created: Created) -> None:
    encryption, keys, recovery = created
    text = json.dumps(encryption)
    for secret in (keys.catalogue_key, keys._reader_key, keys._seeds[1], recovery.value, keys.digest_key):
        assert secret is not None
        assert to_base64(secret)[:-2] not in text
        assert secret.hex() not in text


# --- the plan and the repository must agree ----------------------------------------------------------------------


def test_encryption_is_never_switched_off_or_on_by_one_side(created: Created, folder: Path) -> None:
    plain, _, _ = create_keys(NoEncryption(), REPOSITORY)
    with pytest.raises(ConfigurationError, match="the repository is not encrypted"):
        unlock(plain, holder(folder, "reader"), REPOSITORY)
    with pytest.raises(ConfigurationError, match="the repository is encrypted"):
        unlock(created[0], NoEncryption(), REPOSITORY)
    for strange in ({}, {**plain, "version": 2}, {**plain, "kem": "x25519"}):
        with pytest.raises((ConfigurationError, CorruptionDetected)):
            unlock(strange, NoEncryption(), REPOSITORY)


def test_a_plan_that_asks_for_another_kem_is_refused_with_the_word_to_write(created: Created, folder: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        unlock(created[0], holder(folder, "reader", Kem.X25519), REPOSITORY)
    assert "kem: mlkem768-x25519" in caught.value.hint


def test_without_encryption_there_are_no_keys_but_digests_differ_by_repository() -> None:
    encryption, keys, recovery = create_keys(NoEncryption(), REPOSITORY)
    assert recovery is None
    again = unlock(json.loads(json.dumps(encryption)), NoEncryption(), REPOSITORY)
    assert (again.encrypted, again.catalogue_key, again.key_id, again.epoch) == (False, None, "none", 0)
    assert again.new_data_key(PLAN, BACKUP) == (None, None)
    assert again.open_data_key(None, "none", PLAN, BACKUP) is None
    assert again.digest_key == keys.digest_key != create_keys(NoEncryption(), "repository-2")[1].digest_key
    assert list_slots(encryption) == ()
    with pytest.raises(CorruptionDetected):
        again.open_data_key("AAAA", "epoch-1", PLAN, BACKUP)
    with pytest.raises(ConfigurationError, match="not encrypted"):
        add_slot(encryption, keys, Credential(passphrase_env="PHRASE"), Role.WRITER, "worker")


PLAN_VALUE: TypeAdapter[Keyring | NoEncryption] = TypeAdapter(Encryption)


def test_a_plan_says_a_credential_or_none_in_words() -> None:
    keyring = PLAN_VALUE.validate_python({"credential": {"passphrase_env": "PHRASE"}, "kem": "x25519"})
    assert isinstance(keyring, Keyring)
    assert (keyring.kem, keyring.credential.passphrase_env) == (Kem.X25519, "PHRASE")
    assert isinstance(PLAN_VALUE.validate_python("none"), NoEncryption)
    for given_block in (keyring, NoEncryption()):
        assert PLAN_VALUE.validate_python(given_block) == given_block
        assert type(PLAN_VALUE.validate_python(given_block.model_dump(mode="json"))) is type(given_block)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "off",
        "None",
        "NONE",
        "no",
        False,
        True,
        0,
        {},
        [],
        {"kem": "x25519"},
        {"type": None},
        {"type": "off"},
        {"type": "keyring"},
        {"credential": None},
        {"credential": "none"},
        {"credential": {}},
        {"credential": {"passphrase_env": "A"}, "kem": "rsa"},
        {"credential": {"passphrase_env": "A"}, "cipher": "none"},
    ],
    ids=str,
)
def test_anything_else_in_a_plan_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        PLAN_VALUE.validate_python(value)


def test_the_helper_leaves_blocks_as_they_are() -> None:
    block = NoEncryption()
    assert parse_encryption(block) is block


# --- secrets stay inside -----------------------------------------------------------------------------------------


def test_keys_do_not_travel_and_show_nothing(created: Created, folder: Path) -> None:
    _, keys, recovery = created
    for guarded in (keys, recovery, holder(folder, "reader").credential.resolve()):
        for leave in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot be pickled"):
                leave(guarded)
    shown = f"{keys} {keys!r} {recovery} {recovery!r}"
    assert keys.catalogue_key is not None
    for secret in (keys.catalogue_key, keys.digest_key, recovery.value):
        assert secret.hex() not in shown
        assert repr(secret) not in shown
    assert recovery.text not in shown


def test_importing_the_keyring_stays_light() -> None:
    code = (
        "import sys, blocks.crypto.keyring; "
        "print([name for name in ('great_expectations', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- golden ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VECTOR["repositories"])
def test_golden_repositories_open_for_ever(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = VECTOR["repositories"][name]
    monkeypatch.setenv("PHRASE", golden["passphrase"])
    monkeypatch.setenv("RECOVERY", golden["recovery_key"])
    for credential in (Credential(passphrase_env="PHRASE"), Credential(recovery_key_env="RECOVERY")):
        keys = unlock(golden["encryption"], Keyring(credential=credential, kem=golden["kem"]), golden["repository_id"])
        assert keys.catalogue_key is not None
        assert keys.catalogue_key.hex() == golden["catalogue_key"]
        assert keys.digest_key.hex() == golden["digest_key"]
        data_key = keys.open_data_key(golden["encapsulated_key"], "epoch-1", golden["plan"], golden["backup_id"])
        assert data_key is not None
        assert data_key.hex() == golden["data_key"]


def written_down_again(*names: str, purpose: str) -> bytes:
    return b"lastgood/1/" + purpose.encode() + b"".join(len(n.encode()).to_bytes(4, "big") + n.encode() for n in names)


def derived(key: bytes, purpose: str, *names: str, salt: bytes | None = None) -> bytes:
    return HKDF(SHA256(), 32, salt, written_down_again(*names, purpose=purpose)).derive(key)


def unwrapped(key: bytes, text: str, bound: bytes) -> bytes:
    data = base64.b64decode(text)
    return AESGCM(key).decrypt(data[:12], data[12:], bound)


def test_the_golden_hybrid_repository_opens_from_the_specification_alone() -> None:
    golden = VECTOR["repositories"]["mlkem768-x25519"]
    name, encryption = golden["repository_id"], golden["encryption"]
    slot, recovery, epoch = encryption["slots"][0], encryption["slots"][1], encryption["epochs"][0]
    kdf = slot["kdf"]
    argon = Argon2id(
        salt=base64.b64decode(kdf["salt"]),
        length=32,
        iterations=kdf["iterations"],
        lanes=kdf["lanes"],
        memory_cost=kdf["memory_kib"],
    )
    slot_key = argon.derive(unicodedata.normalize("NFKC", golden["passphrase"]).encode())
    bound = written_down_again(name, slot["id"], "reader", "passphrase", purpose="slot")
    payload = unwrapped(slot_key, slot["wrapped"], bound)
    typed = base64.b32decode(golden["recovery_key"].removeprefix("LASTGOOD-KEY-1-").replace("-", ""))[:32]
    slot_key = derived(typed, "slot", name, recovery["id"], salt=base64.b64decode(recovery["kdf"]["salt"]))
    bound = written_down_again(name, recovery["id"], "reader", "key-file", purpose="slot")
    assert unwrapped(slot_key, recovery["wrapped"], bound) == payload
    catalogue_key, reader_key = payload[:32], payload[32:]
    assert catalogue_key.hex() == golden["catalogue_key"]
    assert derived(catalogue_key, "digest", name).hex() == golden["digest_key"]
    body = {field: value for field, value in encryption.items() if field not in ("mac", "checksum")}
    text = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    assert hmac.new(derived(catalogue_key, "mac", name), text, "sha256").hexdigest() == encryption["mac"]
    bound = written_down_again(name, purpose="epoch") + (1).to_bytes(4, "big") + base64.b64decode(epoch["public_key"])
    seed = unwrapped(derived(reader_key, "epoch", name), epoch["private_key"], bound)
    expanded = hashlib.shake_256(seed).digest(96)
    private_key = hpke.MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])
    )
    suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    info = written_down_again(name, golden["plan"], golden["backup_id"], purpose="data-key")
    assert (
        suite.decrypt(base64.b64decode(golden["encapsulated_key"]), private_key, info=info).hex() == golden["data_key"]
    )
