import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry.errors import UnsupportedKey, WireError
from pageantry.keys.private import CERTIFIED_LAYOUTS, PRIVATE_LAYOUTS, PrivateKey
from pageantry.keys.public import CERTIFIED, PublicKey
from pageantry.messages import AddIdentity, decode, frame
from pageantry.wire import Reader, Writer

POINT, SEED = bytes(range(32)), bytes(range(100, 132))
CURVE_POINT = b"\4" + bytes(64)


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


# the layouts of RFC 9987, sections 5.2.1 to 5.2.4, and of PROTOCOL.agent, by hand
BY_HAND = [
    (
        PrivateKey("ssh-rsa", (15, 3, 7, 2, 5, 128)),
        string(b"ssh-rsa") + b"\0\0\0\1\x0f\0\0\0\1\3\0\0\0\1\7\0\0\0\1\2\0\0\0\1\5\0\0\0\2\0\x80",
        string(b"ssh-rsa") + b"\0\0\0\1\3\0\0\0\1\x0f",
    ),
    (
        PrivateKey("ssh-dss", (23, 11, 4, 8, 7)),
        string(b"ssh-dss") + b"\0\0\0\1\x17\0\0\0\1\x0b\0\0\0\1\4\0\0\0\1\x08\0\0\0\1\7",
        string(b"ssh-dss") + b"\0\0\0\1\x17\0\0\0\1\x0b\0\0\0\1\4\0\0\0\1\x08",
    ),
    (
        PrivateKey("ecdsa-sha2-nistp256", (b"nistp256", CURVE_POINT, 255)),
        string(b"ecdsa-sha2-nistp256") + string(b"nistp256") + string(CURVE_POINT) + b"\0\0\0\2\0\xff",
        string(b"ecdsa-sha2-nistp256") + string(b"nistp256") + string(CURVE_POINT),
    ),
    (
        PrivateKey("ssh-ed25519", (POINT, SEED + POINT)),
        string(b"ssh-ed25519") + string(POINT) + string(SEED + POINT),
        string(b"ssh-ed25519") + string(POINT),
    ),
    (
        PrivateKey("sk-ssh-ed25519@openssh.com", (POINT, b"ssh:", 5, b"handle", b"")),
        string(b"sk-ssh-ed25519@openssh.com") + string(POINT) + string(b"ssh:") + b"\5" + string(b"handle") + bytes(4),
        string(b"sk-ssh-ed25519@openssh.com") + string(POINT) + string(b"ssh:"),
    ),
    (
        PrivateKey("sk-ecdsa-sha2-nistp256@openssh.com", (b"nistp256", CURVE_POINT, b"ssh:", 1, b"h", b"")),
        string(b"sk-ecdsa-sha2-nistp256@openssh.com")
        + (string(b"nistp256") + string(CURVE_POINT) + string(b"ssh:") + b"\1" + string(b"h") + bytes(4)),
        string(b"sk-ecdsa-sha2-nistp256@openssh.com") + string(b"nistp256") + string(CURVE_POINT) + string(b"ssh:"),
    ),
]


def written(key: PrivateKey) -> bytes:
    return bytes(key.write(Writer()))


def read(data: bytes) -> PrivateKey:
    reader = Reader(data)
    key = PrivateKey.read(reader)
    reader.end()
    return key


@pytest.mark.parametrize(("key", "wire", "public"), BY_HAND, ids=lambda value: getattr(value, "type", ""))
def test_each_type_has_the_layout_of_its_specification(key: PrivateKey, wire: bytes, public: bytes) -> None:
    assert written(key) == wire
    assert read(wire) == key
    assert key.public.blob == public


def test_a_key_survives_the_wire(private: PrivateKey) -> None:
    again = read(written(private))
    assert again == private
    assert again.fields == private.fields
    assert again.plain is again
    assert hash(again) == hash(private)


def test_every_type_has_a_layout(private_keys: dict[str, PrivateKey]) -> None:
    assert private_keys.keys() == PRIVATE_LAYOUTS.keys()
    assert CERTIFIED_LAYOUTS.keys() == set(CERTIFIED.values())


def test_a_certified_key_survives_the_wire(private: PrivateKey, certify: Callable[[PublicKey], PublicKey]) -> None:
    if private.type == "ssh-ed448":
        assert private.type not in CERTIFIED.values()  # OpenSSH has no certificates for it
        return
    certificate = certify(private.public)
    certified = private.certified(certificate)
    again = read(written(certified))
    assert again == certified != private
    assert (again.public, again.certificate, again.fields) == (certificate, certificate, private.fields)
    assert again.plain == private
    assert written(certified).startswith(string(certificate.type.encode()) + string(certificate.blob))


def test_certified_keys_leave_out_what_the_certificate_says(
    private_keys: dict[str, PrivateKey], certify: Callable[[PublicKey], PublicKey]
) -> None:
    tails: dict[str, Callable[[Any], Writer]] = {
        "ssh-rsa": lambda f: Writer().mpint(f[2]).mpint(f[3]).mpint(f[4]).mpint(f[5]),
        "ssh-dss": lambda f: Writer().mpint(f[4]),
        "ecdsa-sha2-nistp384": lambda f: Writer().mpint(f[2]),
        "ssh-ed25519": lambda f: Writer().string(f[0]).string(f[1]),
        "sk-ssh-ed25519@openssh.com": lambda f: Writer().string(f[0]).string(f[1]).byte(f[2]).string(f[3]).string(f[4]),
        "sk-ecdsa-sha2-nistp256@openssh.com": lambda f: Writer().string(f[2]).byte(f[3]).string(f[4]).string(f[5]),
    }
    for name, tail in tails.items():
        key = private_keys[name]
        certificate = certify(key.public)
        head = string(certificate.type.encode()) + string(certificate.blob)
        assert written(key.certified(certificate)) == head + bytes(tail(key.fields))


def test_a_certificate_for_another_key_is_refused(
    private_keys: dict[str, PrivateKey], certify: Callable[[PublicKey], PublicKey]
) -> None:
    key = private_keys["ssh-ed25519"]
    other = certify(PublicKey(string(b"ssh-ed25519") + string(POINT[::-1])))
    with pytest.raises(WireError, match="another key"):
        key.certified(other)
    with pytest.raises(WireError, match="another key"):
        key.certified(certify(private_keys["ssh-rsa"].public))
    with pytest.raises(WireError, match="in a certificate's place"):
        key.certified(key.public)
    with pytest.raises(WireError, match="another key"):
        read(string(other.type.encode()) + string(other.blob) + written(key)[len(string(b"ssh-ed25519")) :])
    rsa = certify(private_keys["ssh-rsa"].public)
    with pytest.raises(WireError, match="another type"):
        read(string(other.type.encode()) + string(rsa.blob) + written(key)[len(string(b"ssh-ed25519")) :])


@pytest.mark.parametrize("name", [b"ssh-new", b"", b"\xff", b"ssh-ed448-cert-v01@openssh.com"])
def test_an_unknown_type_is_told_from_a_broken_key(name: bytes) -> None:
    with pytest.raises(UnsupportedKey):
        read(string(name) + string(b"x"))


def test_two_public_halves_that_differ_are_refused() -> None:
    with pytest.raises(WireError, match="differ"):
        PrivateKey("ssh-ed25519", (POINT, SEED + POINT[::-1]))
    with pytest.raises(WireError, match="differ"):
        PrivateKey("ssh-ed25519", (POINT, POINT))


def test_a_key_does_not_show_its_secret(private: PrivateKey) -> None:
    assert repr(private) == f"<PrivateKey {private.type} {private.public.fingerprint()}>"


@given(st.data())
def test_any_bytes_are_a_key_or_refused(
    private_keys: dict[str, PrivateKey], certify: Callable[[PublicKey], PublicKey], data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(list(private_keys.values())))
    if data.draw(st.booleans()) and key.type != "ssh-ed448":
        key = key.certified(certify(key.public))
    wire = written(key)
    start = data.draw(st.integers(0, len(wire)))
    look_at(wire[:start] + data.draw(st.binary(max_size=6)) + wire[start + data.draw(st.integers(0, 6)) :])


@given(st.binary(max_size=200))
def test_any_bytes_at_all_are_a_key_or_refused(wire: bytes) -> None:
    look_at(wire)


def look_at(wire: bytes) -> None:
    try:
        key = PrivateKey.read(Reader(wire))
    except WireError:
        return
    assert read(written(key)) == key


# the real agent


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bytes], bytes]]:
    """Sends a payload to OpenSSH's own agent and returns the reply's."""
    if not (hasattr(socket, "AF_UNIX") and shutil.which("ssh-agent")):
        pytest.skip("no ssh-agent that listens on a socket")
    path = str(tmp_path_factory.mktemp("agent") / "socket")
    environment = {"PATH": os.environ["PATH"], "HOME": os.path.dirname(path)}
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL, env=environment)
    try:
        deadline = time.monotonic() + 10
        while not os.path.exists(path):
            assert time.monotonic() < deadline, "ssh-agent did not start"
            time.sleep(0.01)
        with socket.socket(socket.AF_UNIX) as connection:  # type: ignore[attr-defined,unused-ignore]
            connection.settimeout(10)
            connection.connect(path)
            stream = connection.makefile("rb")

            def ask(payload: bytes) -> bytes:
                connection.sendall(frame(payload))
                return stream.read(int.from_bytes(stream.read(4), "big"))

            yield ask
            stream.close()
    finally:
        process.terminate()
        process.wait(10)


def added(agent: Callable[[bytes], bytes], key: PrivateKey) -> bool:
    reply = agent(AddIdentity(key, "a comment").payload())
    listed: Any = decode(agent(b"\x0b"))
    return reply == b"\x06" and (key.public.blob, b"a comment") in listed.identities


@pytest.mark.interop
def test_openssh_s_agent_takes_our_keys_and_certificates(
    private: PrivateKey, agent: Callable[[bytes], bytes], keygen: Any, tmp_path: Path
) -> None:
    if private.type == "ssh-ed448":
        assert not added(agent, private)  # OpenSSH does not know it; the agent must be in step afterwards
        return
    assert added(agent, private)
    (tmp_path / "key.pub").write_text(private.public.line() + "\n")
    certificate = PublicKey.from_line(Path(keygen.certify(str(tmp_path / "key"))).read_text())
    assert added(agent, private.certified(certificate))
