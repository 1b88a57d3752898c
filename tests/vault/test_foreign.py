import base64
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pageantry.errors import SettingsError
from pageantry.vault import store, storeroom
from pageantry.vault.foreign import FORMATS, load

STORES = Path(__file__).with_name("stores")
PASSWORD = b"not so secret"
WANTED = json.loads((STORES / "settings.json").read_text(encoding="utf-8"))


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A copy of the storeroom, with its buckets named as vault(1) names them."""
    target = tmp_path / "room"
    target.mkdir()
    for number, path in enumerate(sorted((STORES / "storeroom").iterdir())):
        shutil.copy(path, target / (".keys" if path.name == ".keys" else f"{number:02x}"))
    return target


def refusal(path: Path, password: bytes = PASSWORD, formats: tuple[str, ...] = FORMATS) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(str(path), password, formats)
    error = caught.value
    assert error.hint
    assert "\n" not in str(error) + error.hint
    for secret in ("not so secret", "correct horse"):
        assert secret not in str(error) + error.hint + repr(error)
    return error


@pytest.mark.parametrize("name", FORMATS)
def test_a_store_made_by_vaults_own_program_is_read(name: str) -> None:
    assert load(str(STORES / name), PASSWORD) == (WANTED, [])
    assert load(str(STORES / name), PASSWORD, [name]) == (WANTED, [])


def test_buckets_may_be_named_as_vault_names_them(room: Path) -> None:
    assert load(str(room), PASSWORD) == (WANTED, [])
    (room / "5 (conflicted copy)").write_text("?")
    (room / "20").write_text("?")
    assert load(str(room), PASSWORD) == (WANTED, [])


@pytest.mark.parametrize("name", FORMATS)
def test_a_wrong_password_is_told_as_such(name: str) -> None:
    error = refusal(STORES / name, b"another")
    assert "wrong password" in str(error)
    assert str(STORES / name) in str(error)
    assert "VAULT_KEY" in error.hint
    assert "another" not in str(error) + error.hint


def test_a_format_that_cannot_be_is_told() -> None:
    assert "is a file" in str(refusal(STORES / "v0.3", formats=("storeroom",)))
    assert "is a folder" in str(refusal(STORES / "storeroom", formats=("v0.3", "v0.2")))
    assert "wrong password" in str(refusal(STORES / "v0.2", formats=("v0.3",)))


def test_what_is_missing_or_no_store_is_told(tmp_path: Path) -> None:
    assert "No such file" in str(refusal(tmp_path / "missing"))
    (tmp_path / "text").write_text('{"services": {}}')
    assert "not base64" in str(refusal(tmp_path / "text"))
    (tmp_path / "short").write_text("AAAA")
    assert "too short" in str(refusal(tmp_path / "short"))
    assert ".keys" in str(refusal(tmp_path))


def test_a_file_beyond_all_measure_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_FILE", 1000)
    (tmp_path / "large").write_bytes(b"A" * 1001)
    assert "larger than" in str(refusal(tmp_path / "large"))


@pytest.mark.parametrize("name", ["v0.2", "v0.3"])
@settings(max_examples=40)
@given(data=st.data())
def test_any_flipped_bit_in_a_file_is_refused(name: str, data: st.DataObject) -> None:
    sealed = bytearray(base64.b64decode((STORES / name).read_bytes()))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "store")
        path.write_bytes(base64.b64encode(sealed))
        refusal(path)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_words(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "store")
        path.write_bytes(base64.b64encode(data))
        refusal(path)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_flipped_bit_in_a_bucket_is_refused(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder, "room")
        shutil.copytree(STORES / "storeroom", room)
        bucket = data.draw(st.sampled_from(sorted(room.iterdir())))
        flip_a_bit(bucket, data)
        error = refusal(room)
    assert bucket.name in str(error) or "wrong password" in str(error)


def flip_a_bit(bucket: Path, data: st.DataObject) -> None:
    header, *lines = bucket.read_bytes().split(b"\n")
    number = data.draw(st.integers(0, len([line for line in lines if line]) - 1))
    sealed = bytearray(base64.b64decode(lines[number]))
    sealed[data.draw(st.integers(1, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    lines[number] = base64.b64encode(sealed)
    bucket.write_bytes(b"\n".join([header, *lines]))


def test_a_lost_bucket_is_noticed_wherever_it_was(room: Path, tmp_path: Path) -> None:
    for bucket in sorted(room.iterdir()):
        if bucket.name == ".keys":
            continue
        bucket.rename(tmp_path / "lost")
        assert "incomplete" in str(refusal(room))
        (tmp_path / "lost").rename(bucket)
    assert load(str(room), PASSWORD) == (WANTED, [])


def test_a_lost_line_in_a_bucket_is_noticed(room: Path) -> None:
    bucket = max(room.iterdir(), key=lambda path: path.stat().st_size)
    lines = bucket.read_bytes().rstrip(b"\n").split(b"\n")
    bucket.write_bytes(b"\n".join(lines[:-1]))
    assert f"bucket {bucket.name} is damaged" in str(refusal(room))


def test_another_version_is_refused(room: Path) -> None:
    for path in room.iterdir():
        body = path.read_bytes()
        path.write_bytes(body.replace(b'{"version":1}', b'{"version":2}'))
        assert "version 1" in str(refusal(room))
        path.write_bytes(body)


def test_a_store_that_asks_for_endless_work_is_refused_at_once(room: Path) -> None:
    header, body = (room / ".keys").read_bytes().split(b"\n", 1)
    sealed = bytearray(base64.b64decode(body))
    sealed[0] = 0x10 | (storeroom.MAX_WORK - 10 + 1)
    (room / ".keys").write_bytes(header + b"\n" + base64.b64encode(sealed))
    assert "rounds" in str(refusal(room))


@pytest.mark.parametrize("name", FORMATS)
def test_derivepassphrase_reads_the_same_from_these_stores(name: str, room: Path, peers: str) -> None:
    path = room if name == "storeroom" else STORES / name
    done = subprocess.run(  # it does not find out the format of a folder on Windows
        [peers, "-m", "derivepassphrase", "export", "vault", "-f", name, "-k", PASSWORD.decode(), path],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
        env=os.environ | {"PYTHONUTF8": "1"},
    )
    assert json.loads(done.stdout) == load(str(path), PASSWORD)[0]


def test_what_vault_itself_writes_now_is_read(npm: Path, tmp_path: Path) -> None:
    def vault(*words: str) -> None:
        subprocess.run(
            ["node", npm / "vault" / "bin" / "vault", *words],
            env=os.environ | {"VAULT_KEY": "schlüssel", "VAULT_PATH": str(tmp_path / "native")},
            capture_output=True,
            timeout=60,
            check=True,
        )

    vault("--config", "--length", "40")
    vault("--config", "--repeat", "3", "--upper", "0", "grüße")
    config, notes = load(str(tmp_path / "native"), "schlüssel".encode())
    assert config == {"global": {"length": 40}, "services": {"grüße": {"repeat": 3, "upper": 0}}}
    assert notes == []
