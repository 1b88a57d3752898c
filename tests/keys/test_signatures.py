import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

import pageantry
from pageantry.agent import SignFlags
from pageantry.errors import BadReply, UnsupportedKey
from pageantry.keys.private import PrivateKey
from pageantry.keys.public import PublicKey
from pageantry.keys.signatures import (
    RSA_SHA2_256,
    RSA_SHA2_512,
    Signer,
    _rsa_private_key,
    algorithm,
    check_algorithm,
    sign,
    verify,
)
from pageantry.wire import Reader, Writer

DATA = b"what is to be signed"
FLAGS = [0, 2, 4, 6, 1, 8]
SIZES = {"ssh-ed25519": 64, "ssh-ed448": 114, "ssh-dss": 40, "ssh-rsa": 128}


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def security_key_signature(key: PrivateKey, private: Any, data: bytes) -> bytes:
    """What a security key that was touched would answer, by OpenSSH's PROTOCOL.u2f."""
    signed = hashlib.sha256(b"ssh:").digest() + b"\x01\0\0\0\x2a" + hashlib.sha256(data).digest()
    if key.type.startswith("sk-ecdsa"):
        r, s = decode_dss_signature(private.sign(signed, ec.ECDSA(hashes.SHA256())))
        blob = bytes(Writer().mpint(r).mpint(s))
    else:
        blob = private.sign(signed)
    return string(key.type.encode()) + string(blob) + b"\x01\0\0\0\x2a"


@pytest.fixture(scope="session")
def signed(private_keys: dict[str, PrivateKey], security_keys: dict[str, Any]) -> dict[str, bytes]:
    """A signature of DATA by each key."""
    return {
        name: security_key_signature(key, security_keys[name], DATA) if name in security_keys else sign(key, DATA)
        for name, key in private_keys.items()
    }


@pytest.mark.parametrize(
    ("flags", "name"),
    [(0, "ssh-rsa"), (2, "rsa-sha2-256"), (4, "rsa-sha2-512"), (6, "rsa-sha2-256"), (1, "ssh-rsa"), (8, "ssh-rsa")],
)
def test_flags_choose_the_algorithm_of_rsa_keys_and_of_no_others(
    flags: int, name: str, private_keys: dict[str, PrivateKey], certify: Callable[[PublicKey], PublicKey]
) -> None:
    for kind, key in private_keys.items():
        assert algorithm(key.public, flags) == (name if kind == "ssh-rsa" else kind)
    assert algorithm(certify(private_keys["ssh-rsa"].public), flags) == name
    assert algorithm(PublicKey(string(b"ssh-new")), flags) is None


def test_the_flags_are_those_of_the_agent() -> None:
    assert (RSA_SHA2_256, RSA_SHA2_512) == (SignFlags.RSA_SHA2_256, SignFlags.RSA_SHA2_512)


@pytest.mark.parametrize("flags", FLAGS)
def test_what_we_sign_is_what_was_asked_for_and_verifies(private: PrivateKey, flags: int) -> None:
    if private.public.hardware:
        with pytest.raises(UnsupportedKey, match="security key"):
            sign(private, DATA, flags)
        return
    signature = sign(private, DATA, flags)
    check_algorithm(private.public, flags, signature)
    verify(private.public, signature, DATA)
    reader = Reader(signature)
    assert reader.text() == algorithm(private.public, flags)
    if private.type in SIZES:
        assert len(reader.string()) == SIZES[private.type]


def test_a_certificate_s_signature_is_its_plain_key_s(
    private: PrivateKey, signed: dict[str, bytes], certify: Callable[[PublicKey], PublicKey]
) -> None:
    if private.type == "ssh-ed448":
        return  # OpenSSH has no certificates for it
    certificate = certify(private.public)
    check_algorithm(certificate, 0, signed[private.type])
    verify(certificate, signed[private.type], DATA)
    if not private.public.hardware:
        verify(private.public, sign(private.certified(certificate), DATA), DATA)


def test_other_data_or_another_key_is_noticed(private: PrivateKey, signed: dict[str, bytes]) -> None:
    signature = signed[private.type]
    verify(private.public, signature, DATA)
    with pytest.raises(BadReply, match="does not match"):
        verify(private.public, signature, DATA + b"!")
    for at in range(len(signature) - 1, len(signature) - 12, -3):
        broken = signature[:at] + bytes((signature[at] ^ 1,)) + signature[at + 1 :]
        with pytest.raises(BadReply):
            verify(private.public, broken, DATA)


def test_a_security_key_s_signature_holds_for_its_application_only(
    private_keys: dict[str, PrivateKey], signed: dict[str, bytes]
) -> None:
    for name in ("sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"):
        blob = private_keys[name].public.blob
        other = PublicKey(blob[: -len(string(b"ssh:"))] + string(b"ssh:other"))
        with pytest.raises(BadReply, match="does not match"):
            verify(other, signed[name], DATA)


def test_another_algorithm_than_asked_for_is_refused(private_keys: dict[str, PrivateKey]) -> None:
    key = private_keys["ssh-rsa"]
    for wanted in (0, 2, 4):
        for got in {0, 2, 4} - {wanted}:
            with pytest.raises(BadReply, match=r"asked for a signature of type .*, got one of type") as caught:
                check_algorithm(key.public, wanted, sign(key, DATA, got))
            assert caught.value.hint
    ed25519 = private_keys["ssh-ed25519"]
    with pytest.raises(BadReply, match="ssh-rsa"):
        check_algorithm(ed25519.public, 0, sign(key, DATA))
    with pytest.raises(BadReply, match="ssh-ed25519"):
        verify(key.public, sign(ed25519, DATA), DATA)
    with pytest.raises(BadReply):
        verify(ed25519.public, sign(key, DATA), DATA)


def test_a_malformed_signature_is_refused(private: PrivateKey, signed: dict[str, bytes]) -> None:
    signature = signed[private.type]
    for broken in (
        b"",
        signature[:3],
        signature[:-1],
        signature + b"\0",
        b"\xff" * 4 + signature,
        bytes(4) + signature,
    ):
        with pytest.raises(BadReply):
            check_algorithm(private.public, 0, broken)
        with pytest.raises(BadReply):
            verify(private.public, broken, DATA)


def test_a_security_key_s_counter_is_not_for_others(private_keys: dict[str, PrivateKey]) -> None:
    signature = sign(private_keys["ssh-ed25519"], DATA) + b"\x01\0\0\0\x2a"
    with pytest.raises(BadReply, match="malformed"):
        check_algorithm(private_keys["ssh-ed25519"].public, 0, signature)


@given(st.binary(max_size=120), st.data())
def test_any_bytes_are_refused(
    private_keys: dict[str, PrivateKey], signed: dict[str, bytes], junk: bytes, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(private_keys)))
    key = private_keys[name].public
    for broken in (junk, string(name.encode()) + junk, string(name.encode()) + string(junk) + b"\1\0\0\0\1"):
        with pytest.raises(BadReply):
            verify(key, broken, DATA)


def test_a_signature_by_an_unknown_type_is_let_through_but_not_verified() -> None:
    key = PublicKey(string(b"ssh-new") + b"x")
    check_algorithm(key, 0, string(b"anything") + b"at all")
    with pytest.raises(BadReply):
        check_algorithm(key, 0, b"\0\0\0\5any")
    with pytest.raises(UnsupportedKey, match="ssh-new"):
        verify(key, string(b"anything"), DATA)


def test_a_leading_zero_that_an_agent_left_out_is_forgiven(private_keys: dict[str, PrivateKey]) -> None:
    key = private_keys["ssh-rsa"]
    for counter in range(20_000):
        blob = Reader(sign(key, b"%d" % counter)[11:]).string()
        if blob[0] == 0:
            break
    short = string(b"ssh-rsa") + string(blob.lstrip(b"\0"))
    verify(key.public, short, b"%d" % counter)
    with pytest.raises(BadReply):
        verify(key.public, string(b"ssh-rsa") + string(b"\0" + blob), b"%d" % counter)


def test_the_same_data_is_signed_the_same_way(private: PrivateKey) -> None:
    if private.public.hardware:
        return
    if private.type.startswith("ecdsa") and not backend.ecdsa_deterministic_supported():
        pytest.skip("this OpenSSL has no RFC 6979")
    assert sign(private, DATA) == sign(private, DATA)


def test_ecdsa_signatures_are_those_of_rfc_6979() -> None:
    if not backend.ecdsa_deterministic_supported():
        pytest.skip("this OpenSSL has no RFC 6979")
    secret = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721  # appendix A.2.5, message "sample"
    x = "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6"
    y = "7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299"
    key = PrivateKey("ecdsa-sha2-nistp256", (b"nistp256", bytes.fromhex("04" + x + y), secret))
    r = bytes.fromhex("00EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716")
    s = bytes.fromhex("00F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8")
    assert sign(key, b"sample") == string(b"ecdsa-sha2-nistp256") + string(string(r) + string(s))


def test_ed25519_signatures_are_those_of_rfc_8032() -> None:
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")  # section 7.1, test 2
    point = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert sign(PrivateKey("ssh-ed25519", (point, seed + point)), b"r") == string(b"ssh-ed25519") + string(signature)


def changed(key: PrivateKey, at: int, value: bytes | int) -> PrivateKey:
    return PrivateKey(key.type, (*key.fields[:at], value, *key.fields[at + 1 :]))


def test_a_private_key_that_does_not_fit_its_public_half_does_not_sign(private_keys: dict[str, PrivateKey]) -> None:
    rsa, ecdsa, dsa = (private_keys[name] for name in ("ssh-rsa", "ecdsa-sha2-nistp256", "ssh-dss"))
    wrong = [changed(rsa, at, value) for at in range(6) for value in (1, 2, 3, 2**1024 + 1)]
    wrong += [changed(rsa, at, as_number(rsa, at) + as_number(rsa, 0)) for at in (2, 3)]
    for bits in (256, 384, 521):
        key = private_keys[f"ecdsa-sha2-nistp{bits}"]
        wrong += [changed(key, 2, value) for value in (0, 1, as_number(key, 2) + 1, 2**bits, 2**600)]
    wrong.append(changed(ecdsa, 1, b"\4" + bytes(64)))
    q, x = as_number(dsa, 1), as_number(dsa, 4)
    wrong += [changed(dsa, 4, value) for value in (1, x + 1, x + q, q, q - x, 2**200)]
    wrong += [changed(dsa, at, value) for at in range(4) for value in (1, as_number(dsa, at) + 1, 2**2000 + 1)]
    for name in ("ssh-ed25519", "ssh-ed448"):
        point, secret = private_keys[name].fields
        assert isinstance(point, bytes)
        assert isinstance(secret, bytes)
        wrong.append(PrivateKey(name, (point, bytes(len(point)) + point)))
    for key in wrong:
        with pytest.raises(UnsupportedKey):
            Signer(key)


def as_number(key: PrivateKey, at: int) -> int:
    value = key.fields[at]
    assert isinstance(value, int)
    return value


def test_a_signer_signs_again_and_again_from_several_threads(private: PrivateKey) -> None:
    if private.public.hardware:
        with pytest.raises(UnsupportedKey, match="security key"):
            Signer(private)
        return
    signer, data = Signer(private), [b"%d" % number for number in range(200)]
    assert signer.public == private.public
    with ThreadPoolExecutor(8) as pool:
        signatures = list(pool.map(signer.sign, data, [2, 4] * 100))
    for one, flags, signature in zip(data, [2, 4] * 100, signatures, strict=True):
        check_algorithm(private.public, flags, signature)
        verify(private.public, signature, one)


def test_nothing_secret_is_shown_by_a_signer(private: PrivateKey) -> None:
    if not private.public.hardware:
        signer = Signer(private)
        assert repr(signer) == f"<Signer {private.type} {private.public.fingerprint()}>"
        assert not hasattr(signer, "__dict__")


def test_an_rsa_key_too_small_for_a_hash_signs_with_the_others() -> None:
    p, q, e = 2**255 - 19, 2**256 - 189, 65537
    d, iqmp = pow(e, -1, (p - 1) * (q - 1)), pow(q, -1, p)
    signer = Signer(PrivateKey("ssh-rsa", (p * q, e, d, iqmp, p, q)))
    verify(signer.public, signer.sign(DATA, RSA_SHA2_256), DATA)
    with pytest.raises(UnsupportedKey, match="ssh-rsa key that cannot be used"):
        signer.sign(DATA, RSA_SHA2_512)


@pytest.mark.parametrize(
    "blob",
    [
        string(b"ssh-rsa") + string(b"\3") + string(b"\7" + b"\xff" * 2500),  # too long
        string(b"ssh-rsa") + string(b"\4") + string(b"\0" + b"\xff" * 256),  # even exponent
        string(b"ssh-rsa") + string(b"\1") + string(b"\5"),
        string(b"ssh-dss") + 4 * string(b"\7"),
        string(b"ecdsa-sha2-nistp256") + string(b"nistp256") + string(b"\4" + bytes(64)),  # not on the curve
    ],
)  # fmt: skip
def test_a_public_key_that_is_none_mathematically_is_refused(blob: bytes) -> None:
    key = PublicKey(blob)
    with pytest.raises(UnsupportedKey, match=key.type):
        verify(key, string(key.type.encode()) + string(bytes(40)), DATA)


def test_a_public_point_of_no_order_verifies_nothing() -> None:
    key = PublicKey(string(b"ssh-ed25519") + string(b"\xff" * 32))
    with pytest.raises((BadReply, UnsupportedKey)):
        verify(key, string(b"ssh-ed25519") + string(bytes(64)), DATA)


def test_dsa_with_another_q_than_ssh_has_is_refused() -> None:
    key = PublicKey(bytes(Writer().text("ssh-dss").mpint((1 << 2047) + 1).mpint((1 << 255) + 1).mpint(2).mpint(4)))
    with pytest.raises(UnsupportedKey, match="160 bits"):
        verify(key, string(b"ssh-dss") + string(bytes(64)), DATA)


def test_huge_numbers_cost_no_time() -> None:
    huge = (1 << 2_000_000) + 1
    start = time.perf_counter()
    with pytest.raises(UnsupportedKey, match="more than 16384 bits"):
        sign(PrivateKey("ssh-rsa", (huge, 65537, huge, huge, huge, huge)), DATA)
    with pytest.raises(UnsupportedKey, match="more than 16384 bits"):
        verify(PublicKey(bytes(Writer().text("ssh-rsa").mpint(3).mpint(huge))), string(b"ssh-rsa") + bytes(4), DATA)
    assert time.perf_counter() - start < 1


class Untouched(int):
    """A number that may be compared, and that nobody may compute with."""

    def _fail(self, *_: object) -> Any:
        raise AssertionError("it was computed with")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __mod__ = __rmod__ = _fail
    __floordiv__ = __rfloordiv__ = __divmod__ = __rdivmod__ = __pow__ = __rpow__ = _fail


@pytest.mark.parametrize("at", range(1, 6), ids=["e", "d", "iqmp", "p", "q"])
@pytest.mark.parametrize("bits", [1024, 1_000_000])
def test_no_number_greater_than_the_modulus_is_computed_with(
    private_keys: dict[str, PrivateKey], at: int, bits: int
) -> None:
    fields = [Untouched(as_number(private_keys["ssh-rsa"], place)) for place in range(6)]
    with pytest.raises(AssertionError, match="computed with"):  # the key itself is
        _rsa_private_key(*fields)
    fields[at] = Untouched((1 << bits) + 1)
    assert fields[at] > fields[0]
    with pytest.raises(ValueError, match="a number that is larger than the modulus"):
        _rsa_private_key(*fields)
    key = changed(private_keys["ssh-rsa"], at, int(fields[at]))
    with pytest.raises(UnsupportedKey, match="ssh-rsa key that cannot be used: a number that is larger than"):
        Signer(key)


def test_checking_names_and_shapes_needs_no_cryptography() -> None:
    code = (
        "import sys; from pageantry.keys import public, signatures;"
        "signatures.check_algorithm(public.PublicKey(b'\\0\\0\\0\\1x'), 0, b'\\0\\0\\0\\1y');"
        "print([name for name in sys.modules if name in ('cryptography', 'hashlib', 'typing')])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(pageantry.__file__))},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]"
