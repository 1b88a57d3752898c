"""A private key file, of whatever format: what its reader makes of it (`openssh`, `pem`, `ppk`)."""

from __future__ import annotations

from ..errors import WrongPassphrase

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, TypeAlias

    from .private import PrivateKey
    from .public import PublicKey

    #: From the passphrase, if any, to the key and its comment.
    Loader: TypeAlias = Callable[[bytes | None], tuple[PrivateKey, str]]

#: What to do about a file that is not whole.
DAMAGED_HINT: Final = "the file is damaged or cut off; use a copy of it"


class KeyFile:
    """One private key file, as far as it can be read without its passphrase."""

    __slots__ = ("_load", "comment", "encrypted", "public", "where")

    #: the name to speak of it by, such as its path
    where: str
    encrypted: bool
    #: the public key, in PuTTY's files perhaps a certificate; None where the format hides it (encrypted PEM)
    public: PublicKey | None
    #: the comment where the format never hides it (PuTTY's), otherwise empty: `decrypt` tells it then
    comment: str

    def __init__(
        self, where: str, *, encrypted: bool, public: PublicKey | None, load: Loader, comment: str = ""
    ) -> None:
        self.where = where
        self.encrypted = encrypted
        self.public = public
        self.comment = comment
        self._load = load

    def decrypt(self, passphrase: bytes | None = None) -> tuple[PrivateKey, str]:
        """The key and its comment, which is empty in PEM files; a file that is not encrypted needs no passphrase.

        Raises `WrongPassphrase`, also when one is needed and none given, and `KeyFileError`.
        """
        if not self.encrypted:
            return self._load(None)
        if not passphrase:
            raise WrongPassphrase(f"{self.where} is encrypted and no passphrase was given", "give its passphrase")
        return self._load(passphrase)

    def __repr__(self) -> str:
        return f"<KeyFile {self.where!r}{' encrypted' if self.encrypted else ''}>"
