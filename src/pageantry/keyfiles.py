"""Private key files as an agent, in this very process: `keys:PATH`, for machines where no agent runs.

Nothing is decrypted before it is needed: an encrypted file is listed by its public half, and asks for its passphrase
when it signs for the first time.
"""

from __future__ import annotations

import os

from .agent import Agent, Identity, SignFlags
from .errors import KeyFileError, NoSuchKey, Unsupported, WrongPassphrase

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final

    from .constraints import Constraint
    from .keys.files import KeyFile
    from .keys.private import PrivateKey
    from .keys.public import PublicKey

#: How often a passphrase is asked for before giving up, as ssh-add does.
ATTEMPTS: Final = 3


class KeyFiles(Agent):
    """The keys of `paths`, in their order, as an agent that can list and sign.

    `ask` is called with a prompt when a passphrase is needed. Raises `KeyFileError` for a file that is no private key.
    """

    def __init__(self, paths: Iterable[str], ask: Callable[[str], str] | None = None) -> None:
        from .keys.files import read

        self._ask = ask
        self._files: dict[PublicKey, KeyFile] = {}
        self._open: dict[PublicKey, PrivateKey] = {}
        self._comments: dict[PublicKey, str] = {}
        paths = list(paths)
        self.address = "keys:" + os.pathsep.join(paths)
        for path in paths:
            file = read(path)
            public = file.public or self._decrypt(file).public
            self._files[public.plain] = file
            self._comments[public] = os.path.basename(path)

    def identities(self) -> list[Identity]:
        """The public halves, with the files' names for comments: the real ones may be encrypted."""
        return [Identity(key, comment) for key, comment in self._comments.items()]

    def sign(self, key: PublicKey, data: bytes, flags: SignFlags = SignFlags.NONE, *, verify: bool = False) -> bytes:
        """See `Agent.sign`; a certificate's signature is that of its key."""
        from .keys import signatures

        plain = key.plain
        if plain not in self._files:
            raise NoSuchKey(f"none of the key files holds {key.fingerprint()}", "name its file: keys:PATH")
        private = self._open.get(plain) or self._decrypt(self._files[plain])
        signature = signatures.sign(private, data, flags)
        if verify:
            signatures.verify(key, signature, data)
        return signature

    def decrypt(self) -> None:
        """Ask for every passphrase now, before a time at which nobody can be asked."""
        for public, file in self._files.items():
            if file.encrypted and public not in self._open:
                self._decrypt(file)

    def _decrypt(self, file: KeyFile) -> PrivateKey:
        """The private key, asking for the passphrase where there is one; it stays open as long as this agent."""
        private = self._unlock(file) if file.encrypted else file.decrypt(None)[0]
        if file.public is not None and private.public.plain != file.public.plain:
            raise KeyFileError(f"{file.where}: its private key is not that of its public half", "the file is damaged")
        self._open[private.public.plain] = private
        return private

    def _unlock(self, file: KeyFile) -> PrivateKey:
        from . import prompts

        ask = self._ask or prompts.secret
        for attempt in range(ATTEMPTS):
            again = "Wrong passphrase, again: " if attempt else ""
            try:
                return file.decrypt(ask(f"{again}Passphrase for {file.where}: ").encode())[0]
            except WrongPassphrase:
                continue
        raise WrongPassphrase(
            f"{file.where}: wrong passphrase, {ATTEMPTS} times", "try it with the program that made the file"
        )

    def _cannot(self, what: str) -> Unsupported:
        return Unsupported(f"key files cannot {what}", "start an agent for that, or name one with its address")

    def add(self, key: PrivateKey, comment: str = "", constraints: Iterable[Constraint] = ()) -> None:
        """`Unsupported`: files are what they are."""
        raise self._cannot("take keys in")

    def remove(self, key: PublicKey) -> None:
        """`Unsupported`."""
        raise self._cannot("be emptied")

    def remove_all(self) -> None:
        """`Unsupported`."""
        raise self._cannot("be emptied")

    def lock(self, passphrase: bytes) -> None:
        """`Unsupported`."""
        raise self._cannot("be locked")

    def unlock(self, passphrase: bytes) -> None:
        """`Unsupported`."""
        raise self._cannot("be unlocked")

    def extension(self, name: str, data: bytes = b"") -> bytes:
        """`Unsupported`."""
        raise self._cannot(f"do {name}")

    def query(self) -> list[str]:
        """None."""
        return []
