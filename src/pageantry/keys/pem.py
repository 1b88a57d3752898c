"""Private keys in PEM, the forms that came before OpenSSH's own: PKCS#1, SEC 1, PKCS#8. `cryptography` reads them."""

from __future__ import annotations

from binascii import Error as _Base64Error
from binascii import a2b_base64

from ..errors import KeyFileError, UnsupportedKey, WrongPassphrase
from .keyfile import KeyFile
from .private import PrivateKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

#: The most rounds of PBKDF2 that a file may ask for, where OpenSSL's default is 2048. So many take some seconds.
MAX_ITERATIONS: Final = 10_000_000

_HINT = "if ssh-keygen can read it, ssh-keygen -p -f FILE saves it in OpenSSH's format"  # PuTTY's ECDSA, for one


def parse(data: bytes, where: str) -> KeyFile:
    """The key file that `data` holds, from BEGIN to END; an encrypted one hides even its public key.

    Raises `KeyFileError`.
    """
    encrypted = data.startswith(b"-----BEGIN ENCRYPTED") or b"Proc-Type: 4,ENCRYPTED" in data
    if max(_integers(_body(data)), default=0) > MAX_ITERATIONS and encrypted:
        raise KeyFileError(
            f"{where} asks for more than {MAX_ITERATIONS} rounds of key derivation, which are not believed",
            "if the file is yours, have it written with fewer: ssh-keygen -p -f FILE",
        )

    def load(passphrase: bytes | None) -> tuple[PrivateKey, str]:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            return _from_cryptography(load_pem_private_key(data, passphrase)), ""
        except UnsupportedKey as error:
            raise KeyFileError(f"{where} holds {error}", error.hint) from None
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            if encrypted and isinstance(error, ValueError):
                what = f"{where} is encrypted with another passphrase, or damaged"
                raise WrongPassphrase(what, f"try again; {_HINT}") from None
            raise KeyFileError(f"{where} cannot be read: {' '.join(str(error).split())}", _HINT) from None

    return KeyFile(where, encrypted=encrypted, public=None if encrypted else load(None)[0].public, load=load)


def _body(data: bytes) -> bytes:
    try:
        return a2b_base64(b"".join(data.split(b"-----")[2].split()))
    except _Base64Error:
        return b""


def _integers(der: bytes, depth: int = 0) -> Iterator[int]:
    """The numbers in the sequences of some DER, which in an encrypted PKCS#8 file are the costs of its derivation."""
    at = 0
    while at + 2 <= len(der) and depth < 8:
        tag, size = der[at : at + 2]
        at += 2
        if size & 0x80:
            octets = size & 0x7F
            size = int.from_bytes(der[at : at + octets], "big")
            at += octets
        if tag == 0x30:
            yield from _integers(der[at : at + size], depth + 1)
        elif tag == 0x02:
            yield int.from_bytes(der[at : at + size], "big")
        at += size


def _from_cryptography(key: Any) -> PrivateKey:
    """A key object of `cryptography` as SSH's fields."""
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if isinstance(key, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)):
        point = key.public_key().public_bytes_raw()
        name = "ssh-ed25519" if isinstance(key, ed25519.Ed25519PrivateKey) else "ssh-ed448"
        return PrivateKey(name, (point, key.private_bytes_raw() + point))
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        public = numbers.public_numbers
        return PrivateKey("ssh-rsa", (public.n, public.e, numbers.d, numbers.iqmp, numbers.p, numbers.q))
    if isinstance(key, dsa.DSAPrivateKey):
        secret = key.private_numbers()
        shared = secret.public_numbers.parameter_numbers
        return PrivateKey("ssh-dss", (shared.p, shared.q, shared.g, secret.public_numbers.y, secret.x))
    curve = getattr(getattr(key, "curve", None), "name", "")
    if isinstance(key, ec.EllipticCurvePrivateKey) and curve in ("secp256r1", "secp384r1", "secp521r1"):
        nist = curve.replace("secp", "nistp").removesuffix("r1")
        point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return PrivateKey(f"ecdsa-sha2-{nist}", (nist.encode(), point, key.private_numbers().private_value))
    raise UnsupportedKey("a kind of key that SSH does not use", "make a new key with ssh-keygen")
