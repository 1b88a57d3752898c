import hashlib
import pickle
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry.errors import WireError
from pageantry.keys.private import PrivateKey
from pageantry.keys.public import CERTIFIED, PUBLIC_LAYOUTS, PublicKey

POINT = bytes(range(32))
# the key that Pageant's and vault's documentation use
VAULT_KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIMGdHt5hXHrGrzJl/HeTPw5vyDH97wAkbbqZrgQ5h5Kw"


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


# a blob by hand, the fields in it, the size that ssh-keygen -l says
BY_HAND: list[tuple[bytes, tuple[Any, ...], int | None]] = [
    (b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + POINT, (POINT,), 256),
    (b"\0\0\0\x09ssh-ed448\0\0\0\x39" + bytes(57), (bytes(57),), 448),
    (b"\0\0\0\x07ssh-rsa\0\0\0\3\1\0\1\0\0\0\2\0\xff", (65537, 255), 8),
    (b"\0\0\0\x07ssh-dss\0\0\0\1\x17\0\0\0\1\x0b\0\0\0\1\4\0\0\0\1\x08", (23, 11, 4, 8), 5),
    (
        string(b"ecdsa-sha2-nistp256") + string(b"nistp256") + string(b"\4" + bytes(64)),
        (b"nistp256", b"\4" + bytes(64)),
        256,
    ),
    (
        string(b"ecdsa-sha2-nistp521") + string(b"nistp521") + string(b"\4" + bytes(132)),
        (b"nistp521", b"\4" + bytes(132)),
        521,
    ),
    (string(b"sk-ssh-ed25519@openssh.com") + string(POINT) + string(b"ssh:"), (POINT, b"ssh:"), 256),
    (
        string(b"sk-ecdsa-sha2-nistp256@openssh.com") + string(b"nistp256") + string(b"\4" + bytes(64)) + string(b"a"),
        (b"nistp256", b"\4" + bytes(64), b"a"),
        256,
    ),
    (string(b"ssh-xmss@openssh.com") + b"whatever", (b"whatever",), None),
    (string(b"ecdsa-sha2-nistp"), (b"",), None),
    (string(b"ssh-ed448-cert-v01@openssh.com"), (b"",), None),
]


@pytest.mark.parametrize(("blob", "fields", "bits"), BY_HAND)
def test_each_type_has_the_layout_of_its_specification(blob: bytes, fields: Any, bits: int | None) -> None:
    key = PublicKey(blob)
    assert (key.blob, key.fields, key.bits) == (blob, fields, bits)
    assert key.type.encode() == blob[4 : 4 + blob[3]]
    assert key.plain is key
    assert key.certificate is None
    assert key.known == (key.type in PUBLIC_LAYOUTS)
    assert key.hardware == key.type.startswith("sk-")


def test_every_key_type_has_a_test(private_keys: dict[str, PrivateKey]) -> None:
    assert private_keys.keys() == PUBLIC_LAYOUTS.keys()


@pytest.mark.parametrize(
    "blob",
    [
        b"", b"\0\0\0\0", b"\0\0\0\2a", string(b"with space"), string(b"\xff"), string(b"a" * 65),
        string(b"ssh-ed25519"), string(b"ssh-ed25519") + string(bytes(31)), string(b"ssh-ed448") + string(bytes(32)),
        string(b"ssh-ed25519") + string(bytes(32)) + b"x",
        string(b"sk-ssh-ed25519@openssh.com") + string(bytes(31)) + string(b"ssh:"),
        string(b"ssh-rsa") + string(b"\3") + string(b""),
        string(b"ssh-rsa") + string(b"\0") + string(b"\5"),
        string(b"ssh-rsa") + string(b"\3") + string(b"\x80"),
        string(b"ecdsa-sha2-nistp256") + string(b"nistp384") + string(b"\4" + bytes(64)),
        string(b"ecdsa-sha2-nistp256") + string(b"nistp256") + string(b"\2" + bytes(32)),
        string(b"ecdsa-sha2-nistp256") + string(b"nistp256") + string(b"\2" + bytes(64)),
        string(b"ecdsa-sha2-nistp256") + string(b"nistp256") + string(b""),
    ],
)  # fmt: skip
def test_what_only_looks_like_a_key_is_refused(blob: bytes) -> None:
    with pytest.raises(WireError):
        PublicKey(blob)


def test_a_certificate_says_what_it_certifies(private: PrivateKey, certify: Callable[[PublicKey], PublicKey]) -> None:
    plain = private.public
    if plain.type == "ssh-ed448":
        assert plain.type not in CERTIFIED.values()  # OpenSSH has none for it
        return
    key = certify(plain)
    says = key.certificate
    assert says is not None
    assert CERTIFIED[key.type] == key.plain_type == plain.type
    assert key.plain == plain != key
    assert (key.fields, key.bits, key.hardware) == (plain.fields, plain.bits, plain.hardware)
    assert key.fingerprint() == plain.fingerprint()
    assert (says.serial, says.kind, says.key_id, says.principals) == (77, 1, "an id", ("me", "you"))
    assert (says.valid_after, says.valid_before) == (5, 2**64 - 1)
    assert (says.authority, says.signature) == (b"authority", b"signature")
    for broken in (key.blob[:-1], key.blob + b"\0", key.blob[:60]):
        with pytest.raises(WireError):
            PublicKey(broken)


def test_certificates_have_openssh_s_names() -> None:
    assert set(CERTIFIED) == {
        "ssh-ed25519-cert-v01@openssh.com", "ssh-rsa-cert-v01@openssh.com", "ssh-dss-cert-v01@openssh.com",
        "ecdsa-sha2-nistp256-cert-v01@openssh.com", "ecdsa-sha2-nistp384-cert-v01@openssh.com",
        "ecdsa-sha2-nistp521-cert-v01@openssh.com", "sk-ssh-ed25519-cert-v01@openssh.com",
        "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
    }  # fmt: skip


@given(st.data())
def test_any_bytes_are_a_key_or_refused(
    private_keys: dict[str, PrivateKey], certify: Callable[[PublicKey], PublicKey], data: st.DataObject
) -> None:
    blob = data.draw(st.sampled_from(list(private_keys.values()))).public.blob
    if data.draw(st.booleans()) and b"ed448" not in blob:
        blob = certify(PublicKey(blob)).blob
    start = data.draw(st.integers(0, len(blob)))
    blob = blob[:start] + data.draw(st.binary(max_size=6)) + blob[start + data.draw(st.integers(0, 6)) :]
    look_at(blob)


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda rest: string(b"ssh-new") + rest))
def test_any_bytes_at_all_are_a_key_or_refused(blob: bytes) -> None:
    look_at(blob)


def look_at(blob: bytes) -> None:
    try:
        key = PublicKey(blob)
    except WireError:
        return
    assert key.blob == blob
    assert PublicKey.from_line(key.line("c")) == key
    assert key.plain.plain_type == key.plain_type == key.plain.type
    assert key.bits is None or key.known
    assert key.type in repr(key)


def test_public_lines_are_read() -> None:
    key = PublicKey.from_line(VAULT_KEY)
    for line in (f"ssh-ed25519 {VAULT_KEY}", f"ssh-ed25519 {VAULT_KEY} me@here and there\n", f"  {VAULT_KEY}\r\n"):
        assert PublicKey.from_line(line) == key
    assert key.base64 == VAULT_KEY
    assert key.line() == f"ssh-ed25519 {VAULT_KEY}"
    assert key.line("a\n\x1b[31mb ") == f"ssh-ed25519 {VAULT_KEY} a[31mb"


@pytest.mark.parametrize(
    "line",
    ["", " ", "ssh-ed25519", f"ssh-rsa {VAULT_KEY}", f"{VAULT_KEY} comment", VAULT_KEY[:-1], "ssh-ed25519 é", "AAAA"],
)
def test_what_is_no_public_line_is_refused(line: str) -> None:
    with pytest.raises(WireError):
        PublicKey.from_line(line)


@given(st.text(max_size=100))
def test_any_text_is_a_key_or_refused(line: str) -> None:
    try:
        key = PublicKey.from_line(line)
    except WireError:
        return
    assert PublicKey.from_line(key.line()) == key


def test_a_line_s_message_shows_no_control_characters() -> None:
    with pytest.raises(WireError) as caught:
        PublicKey.from_line(f"\x1b[31m {VAULT_KEY}")
    assert "\x1b" not in str(caught.value)


def test_fingerprints_are_hashes_of_the_blob() -> None:
    key = PublicKey.from_line(VAULT_KEY)
    assert key.fingerprint() == "SHA256:" + b64encode(hashlib.sha256(key.blob).digest()).decode().rstrip("=")
    assert key.fingerprint("md5") == "MD5:" + hashlib.md5(key.blob).digest().hex(":")
    with pytest.raises(ValueError, match="sha1"):
        key.fingerprint("sha1")


def test_keys_are_equal_when_their_blobs_are() -> None:
    key, other = PublicKey.from_line(VAULT_KEY), PublicKey(string(b"ssh-new") + b"x")
    assert {key: 1}[PublicKey(key.blob)] == 1
    assert key != other
    assert pickle.loads(pickle.dumps(key)) == key


def test_a_key_is_parsed_in_microseconds(private_keys: dict[str, PrivateKey]) -> None:
    for name, allowed in (
        ("ssh-ed25519", 2e-6),
        ("ssh-rsa", 50e-6),
        ("ssh-dss", 50e-6),
        ("ecdsa-sha2-nistp521", 50e-6),
    ):
        blob = private_keys[name].public.blob
        best = min(timed(lambda blob=blob: PublicKey(blob)) for _ in range(20))  # type: ignore[misc]
        assert best < allowed, name


def timed(call: Callable[[], object], times: int = 200) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def test_a_huge_number_costs_no_time() -> None:
    blob = string(b"ssh-rsa") + string(b"\3") + string(b"\x7f" * 250_000)
    assert timed(lambda: PublicKey(blob).bits, 10) < 0.02


# real keys


@pytest.mark.interop
def test_ssh_keygen_s_keys_have_its_fingerprints_and_sizes(kind: str, keygen: Any) -> None:
    path = keygen.make(kind) + ".pub"
    with open(path) as file:
        line = file.read()
    key = PublicKey.from_line(line)
    assert key.line(f"{kind}@example") == line.rstrip()
    for digest in ("sha256", "md5"):
        bits, fingerprint = keygen.run("-lf", path, "-E", digest).stdout.decode().split()[:2]
        assert (key.bits, key.fingerprint(digest)) == (int(bits), fingerprint)


@pytest.mark.interop
def test_ssh_keygen_s_certificates_are_understood(kind: str, keygen: Any) -> None:
    with open(keygen.certificate(kind)) as file:
        key = PublicKey.from_line(file.read())
    with open(keygen.make(kind) + ".pub") as file:
        assert key.plain == PublicKey.from_line(file.read())
    with open(keygen.make("ed25519") + ".pub") as file:
        authority = PublicKey.from_line(file.read())
    says = key.certificate
    assert says is not None
    assert (says.serial, says.kind, says.key_id, says.principals) == (77, 1, "an id", ("me", "you"))
    assert (says.valid_after, says.valid_before) == (1577836800, 2208988800)
    assert says.authority == authority.blob
    assert b"permit-pty" in says.extensions
    printed = keygen.run("-lf", keygen.certificate(kind)).stdout.decode()
    assert key.fingerprint() in printed


@pytest.mark.interop
@pytest.mark.parametrize("name", ["sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"])
def test_certificates_for_security_keys_are_understood(
    name: str, keygen: Any, private_keys: dict[str, PrivateKey], tmp_path: Any
) -> None:
    plain = private_keys[name].public
    (tmp_path / "sk.pub").write_text(plain.line() + "\n")
    with open(keygen.certify(str(tmp_path / "sk"))) as file:
        key = PublicKey.from_line(file.read())
    assert key.plain == plain
    assert key.hardware
    assert plain.fingerprint() in keygen.run("-lf", str(tmp_path / "sk.pub")).stdout.decode()
