import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pageantry.keys.private import PrivateKey
from pageantry.keys.public import CERTIFIED, PublicKey
from pageantry.wire import Reader, Writer

TYPES = {
    "rsa": ("-t", "rsa", "-b", "2048"),
    "dsa": ("-t", "dsa"),
    "ecdsa256": ("-t", "ecdsa", "-b", "256"),
    "ecdsa384": ("-t", "ecdsa", "-b", "384"),
    "ecdsa521": ("-t", "ecdsa", "-b", "521"),
    "ed25519": ("-t", "ed25519"),
}


class Keygen:
    """The real ssh-keygen, and the keys it has made so far."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.make = cache(self._make)
        self.certificate = cache(self._certificate)

    def run(self, *arguments: str, check: bool = True, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ("ssh-keygen", *arguments),
            check=check,
            input=data,
            stdin=None if data is not None else subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            env=os.environ | {"HOME": self.folder, "LC_ALL": "C"},
        )

    def _make(self, kind: str) -> str:
        """The path of an unencrypted key, its comment `KIND@example`."""
        path = os.path.join(self.folder, kind)
        done = self.run("-q", *TYPES[kind], "-N", "", "-C", f"{kind}@example", "-f", path, check=False)
        if done.returncode and kind == "dsa":
            pytest.skip("this ssh-keygen no longer makes DSA keys")
        assert done.returncode == 0, done.stderr
        return path

    def encrypted(self, kind: str, name: str, *options: str, passphrase: str) -> str:
        """The path of a copy of that key, saved again with `options`."""
        path = os.path.join(self.folder, f"{kind}-{name}")
        shutil.copy(self.make(kind), path)
        self.run("-q", "-p", "-P", "", "-N", passphrase, *options, "-f", path)
        return path

    def _certificate(self, kind: str) -> str:
        """The path of a user certificate for that key, signed by the Ed25519 one."""
        return self.certify(self.make(kind))

    def certify(self, path: str) -> str:
        authority = self.make("ed25519")
        self.run(
            "-q", "-s", authority, "-I", "an id", "-n", "me,you", "-z", "77",
            "-V", "20200101000000Z:20400101000000Z", path + ".pub",
        )  # fmt: skip
        return path + "-cert.pub"


@pytest.fixture(scope="session")
def keygen(tmp_path_factory: pytest.TempPathFactory) -> Keygen:
    if not shutil.which("ssh-keygen"):
        pytest.skip("ssh-keygen is not installed")
    return Keygen(str(tmp_path_factory.mktemp("keys")))


@pytest.fixture(params=TYPES)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind that ssh-keygen makes, in turn."""
    return str(request.param)


def _ecdsa(bits: int) -> PrivateKey:
    curve: Any = {256: ec.SECP256R1, 384: ec.SECP384R1, 521: ec.SECP521R1}[bits]
    secret = (1 << bits - 8) + 12345
    key = ec.derive_private_key(secret, curve())
    return PrivateKey(f"ecdsa-sha2-nistp{bits}", (b"nistp%d" % bits, _point(key), secret))


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


@pytest.fixture(scope="session")
def security_keys() -> dict[str, Any]:
    """The private halves that a real security key would keep to itself."""
    return {
        "sk-ssh-ed25519@openssh.com": ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))),
        "sk-ecdsa-sha2-nistp256@openssh.com": ec.derive_private_key(7**20, ec.SECP256R1()),
    }


@pytest.fixture(scope="session")
def private_keys(security_keys: dict[str, Any]) -> dict[str, PrivateKey]:
    """A key of every type, made without ssh-keygen."""
    ed = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().public_bytes_raw()
    goldilocks = ed448.Ed448PrivateKey.from_private_bytes(bytes(range(57))).public_key().public_bytes_raw()
    old = rsa.generate_private_key(65537, 1024).private_numbers()
    older = dsa.generate_private_key(1024).private_numbers()
    shared = older.public_numbers.parameter_numbers
    tail = (b"ssh:", 1, b"handle", b"")
    return {
        key.type: key
        for key in (
            PrivateKey("ssh-ed25519", (ed, bytes(range(32)) + ed)),
            PrivateKey("ssh-ed448", (goldilocks, bytes(range(57)) + goldilocks)),
            PrivateKey("ssh-rsa", (old.public_numbers.n, 65537, old.d, old.iqmp, old.p, old.q)),
            PrivateKey("ssh-dss", (shared.p, shared.q, shared.g, older.public_numbers.y, older.x)),
            *map(_ecdsa, (256, 384, 521)),
            PrivateKey(
                "sk-ssh-ed25519@openssh.com",
                (security_keys["sk-ssh-ed25519@openssh.com"].public_key().public_bytes_raw(), *tail),
            ),
            PrivateKey(
                "sk-ecdsa-sha2-nistp256@openssh.com",
                (b"nistp256", _point(security_keys["sk-ecdsa-sha2-nistp256@openssh.com"]), *tail),
            ),
        )
    }


KEY_TYPES = (
    "ssh-ed25519", "ssh-ed448", "ssh-rsa", "ssh-dss", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
)  # fmt: skip


@pytest.fixture(params=KEY_TYPES)
def private(request: pytest.FixtureRequest, private_keys: dict[str, PrivateKey]) -> PrivateKey:
    """A key of each type, in turn."""
    return private_keys[request.param]


@pytest.fixture(scope="session")
def certify() -> Callable[[PublicKey], PublicKey]:
    """Makes a certificate for a plain key by OpenSSH's PROTOCOL.certkeys; its signature means nothing."""

    def make(key: PublicKey) -> PublicKey:
        name = {plain: certified for certified, plain in CERTIFIED.items()}[key.type]
        reader = Reader(key.blob)
        reader.string()
        writer = Writer().text(name).string(b"nonce").raw(reader.rest()).uint64(77).uint32(1).text("an id")
        writer.string(bytes(Writer().text("me").text("you"))).uint64(5).uint64(2**64 - 1)
        writer.string(b"").string(b"").string(b"").string(b"authority").string(b"signature")
        return PublicKey(bytes(writer))

    return make
