"""Private keys in PEM, the forms that came before OpenSSH's own: PKCS#1, SEC 1, PKCS#8. `cryptography` reads them."""

from __future__ import annotations

from binascii import Error as _Base64Error
from binascii import a2b_base64

from ..errors import KeyFileError, UnsupportedKey, WrongPassphrase
from .keyfile import KeyFile
from .private import PrivateKey
from .signatures import MAX_RSA_BITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, Final

#: The most rounds of PBKDF2 that a file may ask for, where OpenSSL's default is 2048. So many take some seconds.
MAX_ITERATIONS: Final = 10_000_000

_HINT = "if ssh-keygen can read it, ssh-keygen -p -f FILE saves it in OpenSSH's format"  # PuTTY's ECDSA, for one


def parse(data: bytes, where: str) -> KeyFile:
    """The key file that `data` holds, from BEGIN to END; an encrypted one hides even its public key.

    Raises `KeyFileError`.
    """
    encrypted = data.startswith(b"-----BEGIN ENCRYPTED") or b"Proc-Type: 4,ENCRYPTED" in data
    sequences = list(_sequences(_body(data), inner=not encrypted))
    if encrypted and any(number > MAX_ITERATIONS for numbers in sequences for number in numbers):
        raise KeyFileError(
            f"{where} asks for more than {MAX_ITERATIONS} rounds of key derivation, which are not believed",
            "if the file is yours, have it written with fewer: ssh-keygen -p -f FILE",
        )
    if not encrypted and _is_too_large(sequences):  # what is encrypted shows its numbers to OpenSSL alone
        raise KeyFileError(f"{where} has larger numbers than an RSA key of {MAX_RSA_BITS} bits", "make a new key")

    def load(passphrase: bytes | None) -> tuple[PrivateKey, str]:
        from cryptography.exceptions import InternalError, UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            # its own check of RSA keys takes minutes for large ones; whoever signs with one looks at it (`Signer`)
            key = load_pem_private_key(data, passphrase, unsafe_skip_rsa_key_validation=True)
            return _from_cryptography(key), ""
        except UnsupportedKey as error:
            raise KeyFileError(f"{where} holds {error}", error.hint) from None
        except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:
            if encrypted and isinstance(error, ValueError):
                what = f"{where} is encrypted with another passphrase, or damaged"
                raise WrongPassphrase(what, f"try again; {_HINT}") from None
            raise KeyFileError(f"{where} cannot be read: {' '.join(str(error).split())}", _HINT) from None

    return KeyFile(where, encrypted=encrypted, public=None if encrypted else load(None)[0].public, load=load)


def _is_too_large(sequences: Iterable[list[int]]) -> bool:
    """Whether a number is longer than an RSA key's may be: a modulus, or one from the primes on (RFC 8017, A.1.2).

    OpenSSL looks whether the primes are some, which takes the longer the longer they are, and believes any length.
    """
    half = MAX_RSA_BITS // 2 + 64  # primes may differ a little in length
    return any(
        number.bit_length() > (MAX_RSA_BITS if at < 4 else half)
        for numbers in sequences
        for at, number in enumerate(numbers)
    )


def _body(data: bytes) -> bytes:
    """What the lines hold, but for headers such as Proc-Type."""
    try:
        return a2b_base64(b"".join(line for line in data.split(b"-----")[2].split(b"\n") if b":" not in line))
    except _Base64Error:
        return b""


def _sequences(der: bytes, *, inner: bool, depth: int = 0) -> Iterator[list[int]]:
    """The numbers of each sequence in some DER, with `inner` also in what PKCS#8 packs into octet strings.

    In an encrypted PKCS#8 file they are the costs of its derivation.
    """
    at = 0
    numbers = []
    while at + 2 <= len(der) and depth < 8:
        tag, size = der[at : at + 2]
        at += 2
        if size & 0x80:
            octets = size & 0x7F
            size = int.from_bytes(der[at : at + octets], "big")
            at += octets
        if tag == 0x30 or (inner and tag == 0x04):
            yield from _sequences(der[at : at + size], inner=inner, depth=depth + 1)
        elif tag == 0x02:
            numbers.append(int.from_bytes(der[at : at + size], "big"))
        at += size
    yield numbers


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
