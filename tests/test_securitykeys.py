"""The helper for security keys as programs written here, which do what OpenSSH's would never do."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import example, given
from hypothesis import strategies as st

from pageantry.errors import (
    BadReply,
    DeadlineExceeded,
    Disconnected,
    Error,
    Refused,
    Unsupported,
    UnsupportedKey,
)
from pageantry.keys import sshsig
from pageantry.keys.private import PrivateKey
from pageantry.keys.signatures import verify
from pageantry.messages import MAX_MESSAGE
from pageantry.wire import Reader, Writer

from .hosts import certificate, ed25519_key, rsa_key, strings, userauth

if sys.platform == "win32":
    pytest.skip("keys of security keys are for UNIX", allow_module_level=True)

from pageantry import securitykeys

SecurityKey, PinWanted, web_safe = securitykeys.SecurityKey, securitykeys.PinWanted, securitykeys.web_safe

TYPE = "sk-ssh-ed25519@openssh.com"
INSIDE = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
DATA = b"what is to be signed"


def key(application: bytes = b"ssh:", flags: int = 1) -> PrivateKey:
    return PrivateKey(TYPE, (INSIDE.public_key().public_bytes_raw(), application, flags, b"handle", b""))


def signature(data: bytes = DATA, name: str = TYPE, inside: ed25519.Ed25519PrivateKey = INSIDE) -> bytes:
    """What a security key would make of it."""
    tail = b"\1" + bytes(4)
    signed = inside.sign(sha256(b"ssh:").digest() + tail + sha256(data).digest())
    return bytes(Writer().text(name).string(signed).raw(tail))


def message(kind: int, content: bytes, version: int = 5) -> bytes:
    return bytes(Writer().byte(version).uint32(kind).raw(content))


GOOD = message(1, bytes(Writer().string(signature())))
FRAME = bytes(Writer().string(GOOD))

#: What each helper starts with; it has no buffers.
_BEGINNING = f"""#!{sys.executable} -IS
import os, signal, sys, time
GOOD, FRAME, HERE = {GOOD!r}, {FRAME!r}, '@HERE@'
def take(size):
    data = b""
    while len(data) < size:
        piece = os.read(0, size - len(data))
        if not piece:
            sys.exit(1)
        data += piece
    return data
def request():
    return take(int.from_bytes(take(4), "big"))
def write(data):
    while data:
        data = data[os.write(1, data):]
def note(name, data=b""):
    with open(os.path.join(HERE, name + "~"), "wb") as file:
        file.write(data)
    os.rename(file.name, os.path.join(HERE, name))
"""

Helper = Callable[[str], Path]


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Helper:
    """Makes a helper of these lines, which is used from there on. What it notes lies beside it."""

    def make(lines: str) -> Path:
        path = tmp_path / "helper"
        path.write_text(_BEGINNING.replace("@HERE@", str(tmp_path)) + lines)
        path.chmod(0o700)
        monkeypatch.setenv("SSH_SK_HELPER", str(path))
        return path

    return make


def answers(reply: bytes) -> str:
    return f"request(); write({bytes(Writer().string(reply))!r})"


def refusal(kind: type[Error], call: Callable[[], object]) -> Error:
    """The error of a call, which says in one line each what happened and what to do."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value) + caught.value.hint
    return caught.value


# What it asks


def test_the_helper_is_asked_for_a_signature_with_the_key_the_data_and_the_pin(helper: Helper, tmp_path: Path) -> None:
    helper("note('asked', request()); write(FRAME)")
    assert SecurityKey(key(), "internal").sign(DATA, pin="ünlocked") == signature()
    reader = Reader((tmp_path / "asked").read_bytes())
    assert (reader.byte(), reader.uint32(), reader.byte(), reader.uint32()) == (5, 1, 0, 3)
    assert PrivateKey.read(Reader(reader.string())) == key()
    assert (reader.text(), reader.string(), reader.string()) == ("internal", DATA, b"")
    assert (reader.uint32(), reader.text()) == (0, "ünlocked")
    reader.end()


def test_the_pin_stands_in_no_argument_and_not_in_the_environment(helper: Helper, tmp_path: Path) -> None:
    helper("note('seen', repr((sys.argv, os.environb)).encode()); request(); write(FRAME)")
    SecurityKey(key(), "internal").sign(DATA, pin="31415926")
    seen = (tmp_path / "seen").read_text()
    assert "SSH_SK_HELPER" in seen
    assert "31415926" not in seen


def test_the_helper_inherits_three_descriptors(helper: Helper, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    lines = "seen = [number for number in range(200) if os.path.exists(f'/dev/fd/{number}')]"
    helper(f"{lines}; note('seen', repr(seen).encode()); request(); write(FRAME)")
    SecurityKey(key(), "internal").sign(DATA)
    os.close(reader)
    os.close(writer)
    assert (tmp_path / "seen").read_text() == "[0, 1, 2]"


def test_a_certificate_is_signed_for_by_its_plain_key(helper: Helper, tmp_path: Path) -> None:
    certified = key().certified(certificate(key().public, ed25519_key(1), kind=1))
    helper("note('asked', request()); write(FRAME)")
    verify(certified.public, SecurityKey(certified, "internal").sign(DATA), DATA)
    assert bytes(key().write(Writer())) in (tmp_path / "asked").read_bytes()


def test_more_than_the_helper_reads_is_not_sent(helper: Helper, tmp_path: Path) -> None:
    helper("note('started')")
    refusal(Refused, lambda: SecurityKey(key(), "internal").sign(bytes(MAX_MESSAGE)))
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(
    ("flags", "touch", "pin"), [(0, False, False), (1, True, False), (4, False, True), (0x25, True, True)]
)
def test_the_keys_flags_say_what_a_signature_takes(helper: Helper, flags: int, touch: bool, pin: bool) -> None:
    helper("")
    made = SecurityKey(key(flags=flags), "internal")
    assert (made.needs_touch, made.needs_pin) == (touch, pin)


def test_the_handle_is_not_shown(helper: Helper) -> None:
    helper("")
    assert repr(SecurityKey(key(), "internal")) == f"<SecurityKey {TYPE} {key().public.fingerprint()}>"


# What it answers


def test_an_answer_may_come_byte_by_byte(helper: Helper) -> None:
    helper("request()\nfor byte in FRAME: write(bytes((byte,))); time.sleep(0.001)")
    assert SecurityKey(key(), "internal").sign(DATA) == signature()


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        GOOD[:-1],
        GOOD + b"\0",
        GOOD[:5] + bytes(4),
        message(2, GOOD[5:]),
        message(0, b""),
        message(0, bytes(5)),
        message(1, bytes(Writer().string(signature(b"other data")))),
        message(1, bytes(Writer().string(signature(inside=ed25519.Ed25519PrivateKey.generate())))),
        message(1, bytes(Writer().string(signature(name="ssh-ed25519")))),
        message(1, bytes(Writer().string(signature()[:-5]))),
    ],
    ids=[
        "nothing", "cut off", "and more", "no signature", "of another request", "error without a number",
        "long error", "of other data", "of another key", "of another algorithm", "without a counter",
    ],
)  # fmt: skip
def test_a_lying_helper_is_found_out(helper: Helper, reply: bytes) -> None:
    path = helper(answers(reply))
    assert str(path) in str(refusal(BadReply, lambda: SecurityKey(key(), "internal").sign(DATA)))


def test_an_answer_to_another_request_is_named(helper: Helper) -> None:
    helper(answers(message(2, b"")))
    assert "type 2" in str(refusal(BadReply, lambda: SecurityKey(key(), "internal").sign(DATA)))


@pytest.mark.parametrize("size", [securitykeys.MAX_REPLY + 1, 2**32 - 1])
def test_an_answer_that_is_announced_too_long_is_not_waited_for(helper: Helper, size: int) -> None:
    helper(f"request(); write({size.to_bytes(4, 'big')!r}); time.sleep(600)")
    assert str(size) in str(refusal(BadReply, lambda: SecurityKey(key(), "internal").sign(DATA)))


@pytest.mark.parametrize("version", [4, 6, 255])
def test_another_version_of_the_protocol_is_named(helper: Helper, version: int) -> None:
    helper(answers(message(9, b"whatever", version)))
    error = refusal(Unsupported, lambda: SecurityKey(key(), "internal").sign(DATA))
    assert f"version {version}" in str(error)
    assert "SSH_SK_HELPER" in error.hint


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (43, PinWanted, "wants its PIN"),
        (59, Unsupported, "cannot sign that way"),
        (60, Refused, "no security key is there"),
        (4, Refused, "error 4"),
        (2**32 - 1, Refused, "error 4294967295"),
    ],
)
def test_what_the_device_says_is_told(helper: Helper, number: int, kind: type[Error], words: str) -> None:
    helper(answers(message(0, number.to_bytes(4, "big"))))
    assert words in str(refusal(kind, lambda: SecurityKey(key(), "internal").sign(DATA)))


def test_a_wrong_pin_is_told_from_none_and_not_shown(helper: Helper) -> None:
    helper(answers(message(0, (43).to_bytes(4, "big"))))
    error = refusal(PinWanted, lambda: SecurityKey(key(), "internal").sign(DATA, pin="31415926"))
    assert str(error) == "the PIN is not the security key's"


@given(
    reply=st.binary(max_size=200) | st.builds(lambda at, new: GOOD[:at] + new, st.integers(0, len(GOOD)), st.binary())
)
@example(reply=GOOD)
def test_no_answer_does_harm(reply: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSH_SK_HELPER", sys.executable)
        patch.setattr(securitykeys, "_exchange", lambda *_: reply)
        try:
            assert SecurityKey(key(), "internal").sign(DATA) == signature()
        except (BadReply, Unsupported, Refused):
            assert reply != GOOD


# How it ends


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("sys.exit(255)", "status 255"),
        ("request(); sys.exit(3)", "status 3"),
        ("request(); write(FRAME[:-1]); sys.exit(0)", "status 0"),
        ("request(); os.kill(os.getpid(), signal.SIGSEGV)", "status -11"),
        ("os.close(0); os.close(1); time.sleep(600)", "hung up"),
    ],
)
def test_a_helper_that_ends_early_is_told_of(helper: Helper, lines: str, words: str) -> None:
    helper(lines)
    error = refusal(Disconnected, lambda: SecurityKey(key(), "internal").sign(bytes(250_000)))
    assert words in str(error)
    assert error.hint


@pytest.mark.parametrize(
    "lines",
    [
        "request(); time.sleep(600)",
        "time.sleep(600)",
        "request(); write((4000).to_bytes(4, 'big'))\nwhile True: write(b'x'); time.sleep(0.05)",
    ],
    ids=["says nothing", "reads nothing", "a byte now and then"],
)
def test_a_helper_that_takes_too_long_is_killed(helper: Helper, lines: str) -> None:
    helper(lines)
    began = time.monotonic()
    error = refusal(DeadlineExceeded, lambda: SecurityKey(key(), "internal").sign(bytes(250_000), timeout=1))
    assert error.hint
    assert 1 <= time.monotonic() - began < 15


def test_a_helper_for_which_nobody_waits_is_killed(helper: Helper, tmp_path: Path) -> None:
    helper("note('process', str(os.getpid()).encode()); request(); time.sleep(600)")
    running = tmp_path / "process"
    refusal(Disconnected, lambda: SecurityKey(key(), "internal").sign(DATA, gone=running.exists))
    with pytest.raises(ProcessLookupError):
        os.kill(int(running.read_text()), 0)


def test_what_was_asked_for_at_the_same_time_is_asked_one_after_the_other(helper: Helper, tmp_path: Path) -> None:
    helper(
        "request(); os.mkdir(os.path.join(HERE, 'device')); time.sleep(0.1)\n"
        "os.rmdir(os.path.join(HERE, 'device')); write(FRAME)"
    )
    made = SecurityKey(key(), "internal")
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append(made.sign(DATA))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [signature()] * 4


def test_whoever_leaves_while_another_has_its_turn_does_not_wait(helper: Helper, tmp_path: Path) -> None:
    helper(
        "request(); note('running')\nwhile not os.path.exists(os.path.join(HERE, 'touched')): time.sleep(0.01)\n"
        "write(FRAME)"
    )
    made = SecurityKey(key(), "internal")
    results: list[bytes] = []
    first = threading.Thread(target=lambda: results.append(made.sign(DATA)))
    first.start()
    while not (tmp_path / "running").exists():
        time.sleep(0.01)
    refusal(Disconnected, lambda: made.sign(DATA, gone=lambda: True))
    (tmp_path / "touched").touch()
    first.join(30)
    assert results == [signature()]


def test_a_turn_is_not_waited_for_beyond_the_deadline(helper: Helper) -> None:
    helper("request(); write(FRAME)")
    made = SecurityKey(key(), "internal")
    failed: list[str] = []

    def sign() -> None:
        failed.append(str(refusal(DeadlineExceeded, lambda: made.sign(DATA, timeout=0.5))))

    waiting = threading.Thread(target=sign, daemon=True)
    with securitykeys._turn:
        waiting.start()
        waiting.join(30)
        assert failed == ["other signatures by a security key took too long"]
    assert made.sign(DATA) == signature()


@pytest.mark.parametrize(
    "lines",
    ["request(); write(FRAME)", "sys.exit(1)", "write(b'xxxx'); time.sleep(600)", "time.sleep(600)"],
    ids=["answers", "ends", "lies", "hangs"],
)
def test_nothing_is_left_behind(helper: Helper, leaves_nothing: Callable[..., None], lines: str) -> None:
    helper(lines)
    made = SecurityKey(key(), "internal")

    def sign() -> None:
        try:
            made.sign(DATA, timeout=0.5)
        except Error:
            pass

    leaves_nothing(sign, times=3)


def test_a_helper_that_cannot_be_run_is_told_of(helper: Helper) -> None:
    path = helper("")
    made = SecurityKey(key(), "internal")
    path.write_text("#!/nowhere/at/all\n")
    assert str(path) in str(refusal(Refused, lambda: made.sign(DATA)))


# What is refused from the start


def test_a_helper_that_is_not_there_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").write_text("no program")
    (tmp_path / "program").touch(0o700)
    monkeypatch.chdir(tmp_path)
    for name in (str(tmp_path / "absent"), str(tmp_path / "text"), str(tmp_path), "program"):
        monkeypatch.setenv("SSH_SK_HELPER", name)
        error = refusal(Refused, lambda: SecurityKey(key(), "internal"))
        assert name in str(error)
        assert "SSH_SK_HELPER" in error.hint


def test_the_helper_is_looked_for_where_systems_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv("SSH_SK_HELPER", raising=False)
        else:
            monkeypatch.setenv("SSH_SK_HELPER", value)
        monkeypatch.setattr(securitykeys, "_PLACES", (str(tmp_path / "absent"), str(tmp_path)))
        refusal(Refused, lambda: SecurityKey(key(), "internal"))
        path = tmp_path / "ssh-sk-helper"
        path.write_text(_BEGINNING.replace("@HERE@", str(tmp_path)) + "request(); write(FRAME)")
        path.chmod(0o700)
        assert SecurityKey(key(), "internal").sign(DATA) == signature()
        path.unlink()


def test_a_key_that_no_security_key_holds_is_refused(helper: Helper) -> None:
    helper("")
    refusal(UnsupportedKey, lambda: SecurityKey(ed25519_key(1), "internal"))


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = Path(os.path.realpath(tmp_path)) / "lib[1]" / "library.so"
    path.parent.mkdir()
    path.touch()
    return path


def test_internal_needs_no_permission(helper: Helper) -> None:
    helper("request(); write(FRAME)")
    assert SecurityKey(key(), "INTERNAL", "").sign(DATA) == signature()


@pytest.mark.parametrize(
    ("patterns", "allowed"),
    [
        ("{0}/lib[1]/*", True),
        ("/nowhere/*,{0}/*.so", True),
        ("{0}/lib?1?/library.so", True),
        ("*", True),
        ("{0}/*,!*/library.so", False),
        ("!*/library.so,{0}/*", False),
        ("!/nowhere/*", False),
        ("{0}/lib[1][1]/*", False),
        ("{0}", False),
        ("library.so", False),
        ("", False),
        (securitykeys.DEFAULT_ALLOWED, False),
    ],
)
def test_a_library_has_to_be_allowed(helper: Helper, library: Path, patterns: str, allowed: bool) -> None:
    helper("note('asked', request()); write(FRAME)")
    patterns = patterns.format(library.parent.parent)
    if allowed:
        SecurityKey(key(), str(library), patterns).sign(DATA)
        assert str(library).encode() in (library.parent.parent / "asked").read_bytes()
    else:
        error = refusal(Refused, lambda: SecurityKey(key(), str(library), patterns))
        assert "allowed" in str(error)


def test_it_is_the_library_behind_a_link_that_has_to_be_allowed(helper: Helper, library: Path) -> None:
    helper("note('asked', request()); write(FRAME)")
    good, bad = library.parent / "good.so", library.parent.parent / "link.so"
    good.symlink_to(library)
    bad.symlink_to(library)
    assert SecurityKey(key(), str(bad), f"{library.parent}/library.so").sign(DATA) == signature()
    assert str(library).encode() in (library.parent.parent / "asked").read_bytes()
    refusal(Refused, lambda: SecurityKey(key(), str(bad), str(bad)))


@pytest.mark.parametrize(
    "name", ["", "library.so", "./library.so", "{0}/absent.so", "{0}", "{0}/lib\0.so", "/\udcff" * 99]
)
def test_what_is_no_library_is_refused(helper: Helper, library: Path, name: str) -> None:
    helper("")
    refusal(Refused, lambda: SecurityKey(key(), name.format(library.parent), "*"))


# What a web site's key may sign

WEB, SSH = key(b"https://example.org").public, key(b"ssh:work").public
FILE = sshsig.to_be_signed(bytes(64), "file")


@pytest.mark.parametrize(
    "data",
    [FILE, userauth(WEB, bytes(32)), userauth(WEB, bytes(32), host_key=ed25519_key(1).public)],
    ids=["a file", "a login", "a login at a named host"],
)
def test_a_key_of_a_web_site_signs_for_ssh(data: bytes) -> None:
    assert web_safe(WEB, data)
    assert not any(web_safe(WEB, data[:size]) for size in range(len(data)))
    assert not web_safe(WEB, data + b"\0")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'{"type":"webauthn.get","challenge":"AAAA","origin":"https://example.org"}',
        bytes(37) + sha256(b"client data").digest(),
        userauth(SSH, bytes(32)),
        b"SSHSIG" + strings("fi\0le", "", "sha512", "digest"),
        b"SSHSIG" + strings("file", "", "sha\x00512", "digest"),
        b"sshsig" + FILE[6:],
    ],
)
def test_a_key_of_a_web_site_signs_nothing_else(data: bytes) -> None:
    assert not web_safe(WEB, data)
    assert web_safe(SSH, data)
    assert web_safe(ed25519_key(1).public, data)
    assert web_safe(rsa_key().public, data)


@given(data=st.binary() | st.binary().map(lambda data: b"SSHSIG" + data))
def test_what_a_key_of_a_web_site_signs_is_one_of_the_two(data: bytes) -> None:
    assert web_safe(SSH, data)
    if web_safe(WEB, data):
        assert data.startswith(b"SSHSIG") or WEB.blob in data


@given(namespace=st.text("abc@.ü", min_size=1), digest=st.binary(max_size=64))
def test_files_of_any_namespace_may_be_signed(namespace: str, digest: bytes) -> None:
    assert web_safe(WEB, sshsig.to_be_signed(digest, namespace))


def test_a_certificate_is_judged_by_its_key() -> None:
    certified = certificate(WEB, ed25519_key(1), kind=1)
    assert not web_safe(certified, DATA)
    assert web_safe(certified, userauth(certified, bytes(32)))
    assert not web_safe(certified, userauth(WEB, bytes(32)))
    assert web_safe(certificate(SSH, ed25519_key(1), kind=1), DATA)


def test_keys_of_applications_that_are_named_sign_anything() -> None:
    application = WEB.fields[-1]
    assert isinstance(application, bytes)
    assert web_safe(WEB, DATA, application.decode())
    assert not web_safe(WEB, DATA, f"*,!{application.decode()}")
    assert not web_safe(SSH, DATA, "another:*")
