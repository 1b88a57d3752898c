import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from pageantry.keys.private import PrivateKey
from pageantry.keys.rfc6979 import nonces, sign
from pageantry.keys.signatures import sign as sign_for_ssh
from pageantry.wire import Writer

# RFC 6979, appendix A.2.1
P = int(
    "86F5CA03DCFEB225063FF830A0C769B9DD9D6153AD91D7CE27F787C43278B447"
    "E6533B86B18BED6E8A48B784A14C252C5BE0DBF60B86D6385BD2F12FB763ED88"
    "73ABFD3F5BA2E0A8C0A59082EAC056935E529DAF7C610467899C77ADEDFC846C"
    "881870B7B19B2B58F9BE0521A17002E3BDD6B86685EE90B3D9A1B02B782B1779",
    16,
)
Q = 0x996F967F6C8E388D9E28D01E205FBA957A5698B1
G = int(
    "07B0F92546150B62514BB771E2A0C0CE387F03BDA6C56B505209FF25FD3C133D"
    "89BBCD97E904E09114D9A7DEFDEADFC9078EA544D2E401AEECC40BB9FBBF78FD"
    "87995A10A1C27CB7789B594BA7EFB5C4326A9FE59A070E136DB77175464ADCA4"
    "17BE5DCE2F40D10A46A3A3943F26AB7FD9C0398FF8C76EE0A56826A8A88F1DBD",
    16,
)
X = 0x411602CB19A6CCC34494D79D98EF1E7ED5AF25F7
Y = int(
    "5DF5E01DED31D0297E274E1691C192FE5868FEF9E19A84776454B100CF16F653"
    "92195A38B90523E2542EE61871C0440CB87C322FC4B4D2EC5E1E7EC766E1BE8D"
    "4CE935437DC11C3C8FD426338933EBFE739CB3465F4D3668C5E473508253B1E6"
    "82F65CBDC4FAE93C2EA212390E54905A86E2223170B44EAA7DA5DD9FFCFB7F3B",
    16,
)
VECTORS = [  # hash, data, k, r, s
    (
        "sha1",
        b"sample",
        0x7BDB6B0FF756E1BB5D53583EF979082F9AD5BD5B,
        0x2E1A0C2562B2912CAAF89186FB0F42001585DA55,
        0x29EFB6B0AFF2D7A68EB70CA313022253B9A88DF5,
    ),
    (
        "sha224",
        b"sample",
        0x562097C06782D60C3037BA7BE104774344687649,
        0x4BC3B686AEA70145856814A6F1BB53346F02101E,
        0x410697B92295D994D21EDD2F4ADA85566F6F94C1,
    ),
    (
        "sha256",
        b"sample",
        0x519BA0546D0C39202A7D34D7DFA5E760B318BCFB,
        0x81F2F5850BE5BC123C43F71A3033E9384611C545,
        0x4CDD914B65EB6C66A8AAAD27299BEE6B035F5E89,
    ),
    (
        "sha384",
        b"sample",
        0x95897CD7BBB944AA932DBC579C1C09EB6FCFC595,
        0x07F2108557EE0E3921BC1774F1CA9B410B4CE65A,
        0x54DF70456C86FAC10FAB47C1949AB83F2C6F7595,
    ),
    (
        "sha512",
        b"sample",
        0x09ECE7CA27D0F5A4DD4E556C9DF1D21D28104F8B,
        0x16C3491F9B8C3FBBDD5E7A7B667057F0D8EE8E1B,
        0x02C36A127A7B89EDBB72E4FFBC71DABC7D4FC69C,
    ),
    (
        "sha1",
        b"test",
        0x5C842DF4F9E344EE09F056838B42C7A17F4A6433,
        0x42AB2052FD43E123F0607F115052A67DCD9C5C77,
        0x183916B0230D45B9931491D4C6B0BD2FB4AAF088,
    ),
    (
        "sha256",
        b"test",
        0x5A67592E8128E03A417B0484410FB72C0B630E1A,
        0x22518C127299B0F6FDC9872B282B9E70D0790812,
        0x6837EC18F150D55DE95B5E29BE7AF5D01E4FE160,
    ),
]


@pytest.mark.parametrize(("digest", "data", "k", "r", "s"), VECTORS)
def test_the_signatures_are_those_of_the_rfc(digest: str, data: bytes, k: int, r: int, s: int) -> None:
    assert next(nonces(Q, X, hashlib.new(digest, data).digest(), digest)) == k
    assert sign(P, Q, G, X, data, digest) == (r, s)


def test_an_order_of_odd_length_is_cut_to_its_bits() -> None:
    order, secret = 0x4000000000000000000020108A2E0CC0D99F8A5EF, 0x09A4D6792295A7F730FC3F2B49CBC0F62E862272F  # A.1
    first = next(nonces(order, secret, hashlib.sha256(b"sample").digest(), "sha256"))
    assert first == 0x23AF4074C90A02B3FE61D286D5C87F425E6BDD81B


def test_ssh_s_signatures_are_these_with_sha1() -> None:
    signature = sign_for_ssh(PrivateKey("ssh-dss", (P, Q, G, Y, X)), b"sample")
    r, s = VECTORS[0][3:]
    assert signature == bytes(Writer().text("ssh-dss").string(r.to_bytes(20, "big") + s.to_bytes(20, "big")))


@given(st.integers(1, Q - 1), st.binary(max_size=100))
def test_every_signature_verifies_and_comes_again(x: int, data: bytes) -> None:
    r, s = sign(P, Q, G, x, data)
    assert (r, s) == sign(P, Q, G, x, data)
    public = dsa.DSAPublicNumbers(pow(G, x, P), dsa.DSAParameterNumbers(P, Q, G)).public_key()
    public.verify(encode_dss_signature(r, s), data, hashes.SHA1())


@given(st.integers(3, 2**30), st.binary(min_size=32, max_size=32), st.data())
def test_numbers_to_try_lie_within_the_order_and_differ(order: int, hashed: bytes, data: st.DataObject) -> None:
    some = nonces(order, data.draw(st.integers(1, order - 1)), hashed, "sha256")
    tried = [next(some) for _ in range(5)]
    assert all(0 < k < order for k in tried)
    assert len(set(tried)) > 1 or order < 2**20


def test_numbers_that_are_no_key_end_in_an_error() -> None:
    with pytest.raises(ValueError, match="signs nothing"):
        sign(Q, Q, Q, X, b"data")  # every r is 0
