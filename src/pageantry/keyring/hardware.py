"""Keys that a security key (FIDO) holds: OpenSSH's helper reaches it, a person has to touch it."""

from __future__ import annotations

import sys

from ..errors import NobodyToAsk, Refused, UnsupportedKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from ..constraints import SecurityKeyProvider
    from ..forwarding import Path
    from ..keys.private import PrivateKey
    from ..keys.public import PublicKey
    from ..prompts import Person

    class SecurityKey(Protocol):
        """What is needed of a `securitykeys.SecurityKey`, which there is on UNIX alone."""

        @property
        def needs_touch(self) -> bool:
            """Whether a person must touch it."""

        @property
        def needs_pin(self) -> bool:
            """Whether it wants its PIN."""

        def sign(self, data: bytes, flags: int, *, pin: str | None, gone: Callable[[], bool]) -> bytes:
            """The signature, in SSH's form."""


if sys.platform == "win32":

    def reached(key: PrivateKey, provider: SecurityKeyProvider | None, allowed: str | None, path: Path) -> SecurityKey:
        """Raises `UnsupportedKey`: OpenSSH's helper is another one here."""
        raise UnsupportedKey("security keys cannot be used here", "add the key to OpenSSH's agent instead")

    def check(key: PublicKey, data: bytes, applications: str) -> None:
        """Nothing."""

    def signature(
        private: SecurityKey,
        label: str,
        data: bytes,
        flags: int,
        person: Person | None,
        gone: Callable[[], bool],
        asker: object,
    ) -> bytes:
        """Never called."""
        raise AssertionError

else:
    from .. import securitykeys

    def reached(key: PrivateKey, provider: SecurityKeyProvider | None, allowed: str | None, path: Path) -> SecurityKey:
        """What signs with `key`, through the library that its constraint names, if that is one of the `allowed`.

        Raises `Refused`, `UnsupportedKey`. From another computer nobody may name a library (CVE-2023-38408).
        """
        name = provider.provider if provider else "internal"
        if path.attempted and name != "internal":
            raise Refused("a library for security keys can be named on this computer alone", "add the key here")
        return securitykeys.SecurityKey(key, name, allowed or securitykeys.DEFAULT_ALLOWED)

    def check(key: PublicKey, data: bytes, applications: str) -> None:
        """Raise `Refused` where a web site's key is to sign what is no business of SSH's."""
        if not securitykeys.web_safe(key, data, applications):
            raise Refused("the key is one for web sites, which may sign for SSH alone")

    def signature(
        private: SecurityKey,
        label: str,
        data: bytes,
        flags: int,
        person: Person | None,
        gone: Callable[[], bool],
        asker: object,
    ) -> bytes:
        """A signature that the person may have to touch the device for; the PIN is asked for where it is wanted."""
        pin = _pin(person, label, gone, asker) if private.needs_pin else None
        try:
            return _touched(private, label, data, flags, pin, person, gone)
        except securitykeys.PinWanted:
            if pin is not None:
                raise
        return _touched(private, label, data, flags, _pin(person, label, gone, asker), person, gone)

    def _pin(person: Person | None, label: str, gone: Callable[[], bool], asker: object) -> str:
        if person is None:
            raise NobodyToAsk("there is nobody to ask for the PIN")
        return person.secret(f"PIN of the security key for {label}: ", gone, asker)

    def _touched(
        private: SecurityKey,
        label: str,
        data: bytes,
        flags: int,
        pin: str | None,
        person: Person | None,
        gone: Callable[[], bool],
    ) -> bytes:
        if person is None or not private.needs_touch:
            return private.sign(data, flags, pin=pin, gone=gone)
        with person.notify(f"Touch the security key for {label}"):
            return private.sign(data, flags, pin=pin, gone=gone)
