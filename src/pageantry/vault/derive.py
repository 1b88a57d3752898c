"""From a master phrase, a service's name and some settings to that service's passphrase, as vault(1) derives it.

Pure: no I/O, no state. The scheme: PBKDF2 stretches phrase and service to a queue of bits; numbers in any base are
drawn from it without bias, and pick first the order of the character sets, then a character from each.
"""

from __future__ import annotations

from ..errors import ImpossibleSettings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

#: What vault(1) mixes into every derivation, and what an SSH key signs to become a phrase.
UUID: Final = "e87eb0f4-34cb-46b9-93ad-766c5ab063e7"

#: What the length is when no setting says so.
DEFAULT_LENGTH: Final = 20

#: Longer passphrases are refused. No login takes as many characters, and the work grows with the square of the length.
MAX_LENGTH: Final = 4096

_LOWER = "abcdefghijklmnopqrstuvwxyz"
_UPPER = _LOWER.upper()
_NUMBER = "0123456789"
_DASH = "-_"
_SYMBOL = "!\"#$%&'()*+,./:;<=>?@[\\]^{|}~" + _DASH

#: The characters of each class. The order of the classes and that within them are part of the scheme.
CLASSES: Final = {"lower": _LOWER, "upper": _UPPER, "number": _NUMBER, "space": " ", "dash": _DASH, "symbol": _SYMBOL}

#: The names of all settings that shape a passphrase.
SETTINGS: Final = ("length", "repeat", *CLASSES)

#: Whose meaning of `repeat` holds: see `derive`.
COMPATS: Final = ("vault", "derivepassphrase")

_ALL = _LOWER + _UPPER + _NUMBER + " " + _SYMBOL


def derive(phrase: str | bytes, service: str, *, compat: str = "vault", **settings: int) -> str:
    """The passphrase for `service`: `length` (20) printable ASCII characters.

    `settings`: `length` at least 1; `repeat`, how often a character may follow upon itself, 0 for as often as it
    likes; and `lower`, `upper`, `number`, `space`, `dash`, `symbol`, the least count of characters of that class,
    where 0 forbids the class. Dashes are symbols: forbidding symbols forbids dashes too, unless `dash` asks for some.

    `compat="derivepassphrase"` reads `repeat` as that program does up to 0.6.1: from 2 on, as one less.

    `phrase` is taken as UTF-8, not normalised. Raises `ImpossibleSettings` where no passphrase can satisfy the
    settings, ValueError for a value that is out of range and for text that UTF-8 cannot hold, TypeError for a setting
    that is not known or not an int.
    """
    _check(settings, compat)
    repeat = min(settings.get("repeat", 0), MAX_LENGTH)  # which is as good as any larger one
    if compat == "derivepassphrase" and repeat > 1:
        repeat -= 1
    sets = _character_sets(settings)
    secret = phrase if isinstance(phrase, bytes) else _utf8(phrase, "the phrase")
    salt = _utf8(service, "the service's name") + UUID.encode()
    size = _queue_size(sets)
    while True:
        try:
            return _compose(_Queue(_stretch(secret, salt, size)), list(sets), repeat)
        except _Exhausted:  # vault(1) writes "undefined" into the passphrase here
            size *= 2


def _check(settings: Mapping[str, object], compat: str) -> None:
    """Raise TypeError or ValueError for settings that make no sense each by itself."""
    if compat not in COMPATS:
        raise ValueError(f"compat is one of {', '.join(COMPATS)}, not {compat!r}")
    for name, value in settings.items():
        if name not in SETTINGS:
            raise TypeError(f"no setting is called {name!r}; there are {', '.join(SETTINGS)}")
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} is a whole number, not {type(value).__name__}")
        if value < (name == "length"):
            raise ValueError(f"{name} is at least {int(name == 'length')}, not {value}")


def _character_sets(settings: dict[str, int]) -> list[str]:
    """The sets to take one character from each, in the scheme's order, before shuffling."""
    length = settings.get("length", DEFAULT_LENGTH)
    if length > MAX_LENGTH:
        raise ImpossibleSettings(
            f"a passphrase of more than {MAX_LENGTH} characters is not to be had", "ask for a smaller --length"
        )
    asked = {name: settings[name] for name in CLASSES if settings.get(name)}
    if sum(asked.values()) > length:
        clash = " + ".join(f"{name} {count}" for name, count in asked.items())
        raise ImpossibleSettings(
            f"{clash} is more than a length of {length} can hold", "raise --length, or ask for fewer of these"
        )
    allowed = _ALL
    sets: list[str] = []
    for name, chars in CLASSES.items():
        count = settings.get(name)
        if count == 0:
            allowed = "".join(char for char in allowed if char not in chars)
        elif count:
            sets += [chars] * count
    if not allowed:
        raise ImpossibleSettings(
            "lower, upper, number, space and symbol are all 0, so that no character is left",
            "allow at least one of these classes",
        )
    return sets + [allowed] * (length - len(sets))


def _utf8(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # which would show the phrase
        raise ValueError(f"{what} has characters that UTF-8 cannot hold") from None


def _queue_size(sets: list[str]) -> int:
    """How many bytes vault(1) stretches for these sets: in theory twice what is needed, in words of 32 bits."""
    bits = sum(index.bit_length() + (len(chars) - 1).bit_length() for index, chars in enumerate(sets))
    return 4 * -(-2 * bits // 32) or 32


def _stretch(secret: bytes, salt: bytes, size: int) -> bytes:
    from hashlib import pbkdf2_hmac

    return pbkdf2_hmac("sha1", secret, salt, 8, size)


def _compose(queue: _Queue, sets: list[str], repeat: int) -> str:
    """One character from each of `sets`, which are used up in an order that `queue` says."""
    word = ""
    while sets:
        chars = sets.pop(queue.below(len(sets)))
        if repeat and word and word.endswith(word[-1] * repeat):
            chars = chars.replace(word[-1], "")
            if not chars:
                raise ImpossibleSettings(
                    f"a repeat of {repeat} leaves no character to go on with after {repeat} equal ones",
                    "raise --repeat, or allow more classes of characters",
                )
        word += chars[queue.below(len(chars))]
    return word


class _Exhausted(Exception):
    """The queue of bits is empty."""


class _Queue:
    """Numbers of any size, evenly distributed, off a queue of bits.

    A number that came out too large is not thrown away: what it is above the limit is itself an even number of a
    smaller base, and joins a queue for that base.
    """

    def __init__(self, data: bytes) -> None:
        bits = bin(int.from_bytes(b"\1" + data, "big"))[3:]
        # The first digit comes last, because a list gives its end away for nothing.
        self._digits = {2: [int(bit) for bit in reversed(bits)]}

    def below(self, limit: int) -> int:
        """A number from 0 to `limit` - 1. Raises `_Exhausted`."""
        bases = [2]
        while bases:
            base = bases[-1]
            count, power = 0, 1
            while power < limit:
                count, power = count + 1, power * base
            queue = self._digits.get(base, [])
            if len(queue) < count:
                bases.pop()  # nothing to be had here: the queue it came from goes on
                continue
            value = 0
            for _ in range(count):
                value = value * base + queue.pop()
            if value < limit:
                return value
            if (spare := power - limit) > 1:
                self._digits.setdefault(spare, []).insert(0, value - limit)
                bases.append(spare)
        raise _Exhausted
