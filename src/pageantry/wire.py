"""SSH's data types (RFC 4251, section 5) between bytes and values, without any I/O.

`Reader` takes values off the front of some bytes and believes no length before it has checked it; `Writer` puts
them together. A `Struct` is a frozen value whose annotations, in order, are its layout on the wire:

    class SignRequest(Struct):
        key: bytes
        data: bytes
        flags: int

    SignRequest(b"…", b"…", 2).encode()
    SignRequest.decode(Reader(...))

Dataclasses would do the same, but importing them costs a client more time than all the rest of it.
"""

from __future__ import annotations

from .errors import WireError

TYPE_CHECKING = False  # mypy takes this name for typing's; importing typing costs a client 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, ClassVar, Self, TypeAlias, dataclass_transform

    #: A `bytes` field that `repr` does not show.
    Secret: TypeAlias = bytes
    #: A `bytes` field without a length, up to the end of the message; and one that `repr` does not show.
    Rest: TypeAlias = bytes
    SecretRest: TypeAlias = bytes
    #: An `int` field of one byte.
    Byte: TypeAlias = int
else:

    def dataclass_transform(**_: object):
        """Stand in, at run time, for the declaration that type checkers read."""
        return lambda cls: cls


class Reader:
    """Takes values off the front of `data`; every method raises `WireError` where the bytes do not suffice."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def __len__(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._position

    def take(self, size: int) -> bytes:
        """The next `size` bytes as they are."""
        start = self._position
        end = start + size
        if end > len(self._data):
            raise WireError(f"{size} bytes announced at offset {start}, {len(self)} there")
        self._position = end
        return self._data[start:end]

    def byte(self) -> int:
        """One byte, 0 to 255."""
        return self.take(1)[0]

    def boolean(self) -> bool:
        """One byte; anything but 0 is true."""
        return self.take(1) != b"\0"

    def uint32(self) -> int:
        """Four bytes, big-endian."""
        return int.from_bytes(self.take(4), "big")

    def uint64(self) -> int:
        """Eight bytes, big-endian."""
        return int.from_bytes(self.take(8), "big")

    def string(self) -> bytes:
        """A uint32 length and so many bytes."""
        return self.take(int.from_bytes(self.take(4), "big"))

    def text(self) -> str:
        """A string as text. Bytes that are not UTF-8 survive as surrogates, so that encoding gives them back."""
        return self.string().decode("utf-8", "surrogateescape")

    def mpint(self) -> int:
        """A non-negative integer; negative ones have no place in keys and are refused."""
        data = self.string()
        if data and data[0] & 0x80:
            raise WireError(f"negative integer before offset {self._position}")
        return int.from_bytes(data, "big")

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self))

    def strings(self) -> Iterator[bytes]:
        """Strings up to the end."""
        while self:
            yield self.string()

    def end(self) -> None:
        """Raise unless everything has been read."""
        if self:
            raise WireError(f"{len(self)} bytes more than expected, at offset {self._position}")


class Writer:
    """Puts values together; `bytes(writer)` is the result. Methods return the writer, so they can be chained."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def __bytes__(self) -> bytes:
        return b"".join(self._parts)

    def raw(self, data: bytes) -> Self:
        """`data` as it is."""
        self._parts.append(data)
        return self

    def byte(self, value: int) -> Self:
        """One byte; ValueError unless 0 to 255."""
        return self.raw(bytes((value,)))

    def boolean(self, value: bool) -> Self:
        """One byte, 1 or 0."""
        return self.raw(b"\1" if value else b"\0")

    def uint32(self, value: int) -> Self:
        """Four bytes, big-endian; OverflowError outside 0 to 2³² - 1."""
        return self.raw(value.to_bytes(4, "big"))

    def uint64(self, value: int) -> Self:
        """Eight bytes, big-endian; OverflowError outside 0 to 2⁶⁴ - 1."""
        return self.raw(value.to_bytes(8, "big"))

    def string(self, data: bytes) -> Self:
        """A uint32 length and the bytes."""
        self._parts += (len(data).to_bytes(4, "big"), data)
        return self

    def text(self, text: str) -> Self:
        """Text as a string of UTF-8, the inverse of `Reader.text`."""
        return self.string(text.encode("utf-8", "surrogateescape"))

    def mpint(self, value: int) -> Self:
        """A non-negative integer in its shortest form, with a leading zero byte where the top bit is set."""
        return self.string(value.to_bytes(value.bit_length() // 8 + 1, "big") if value else b"")


#: How an annotation reads and writes itself. A Struct with fields of its own kinds extends this in `codecs`.
CODECS: dict[str, tuple[Callable[[Reader], Any], Callable[[Writer, Any], object]]] = {
    "bytes": (Reader.string, Writer.string),
    "Secret": (Reader.string, Writer.string),
    "Rest": (Reader.rest, Writer.raw),
    "SecretRest": (Reader.rest, Writer.raw),
    "str": (Reader.text, Writer.text),
    "int": (Reader.uint32, Writer.uint32),
    "Byte": (Reader.byte, Writer.byte),
    "bool": (Reader.boolean, Writer.boolean),
}


@dataclass_transform(frozen_default=True)
class Struct:
    """A frozen value whose annotations, in order, are its layout on the wire.

    They are read as text, so a module that defines one has `from __future__ import annotations`.
    Compares, hashes and prints by its fields (those that are `Secret` are not printed). Assigning to a field raises
    AttributeError. Leaving one without a default out, or naming one that is not there, raises TypeError.
    """

    codecs: ClassVar[dict[str, tuple[Callable[[Reader], Any], Callable[[Writer, Any], object]]]] = CODECS
    _layout: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls) -> None:
        own = {name: kind for name, kind in cls.__annotations__.items() if not kind.startswith("ClassVar")}
        cls._layout = cls._layout | own

    def __init__(self, *values: Any, **named: Any) -> None:
        fields = dict(zip(self._layout, values, strict=False))
        if len(values) > len(self._layout) or fields.keys() & named.keys() or named.keys() - self._layout.keys():
            raise TypeError(f"{type(self).__name__} takes the fields {', '.join(self._layout) or '(none)'}, each once")
        fields |= named
        for name in self._layout.keys() - fields.keys():
            if not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} needs {name}")
        self.__dict__.update(fields)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self._layout)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        shown = ("…" if kind.startswith("Secret") else repr(getattr(self, name)) for name, kind in self._layout.items())
        return f"{type(self).__name__}({', '.join(map('{}={}'.format, self._layout, shown))})"

    def write(self, writer: Writer) -> Writer:
        """Append the fields to `writer`, which is returned."""
        for name, kind in self._layout.items():
            self.codecs[kind][1](writer, getattr(self, name))
        return writer

    def encode(self) -> bytes:
        """The fields as bytes."""
        return bytes(self.write(Writer()))

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Take the fields off `reader`; raises `WireError`."""
        return cls(**{name: cls.codecs[kind][0](reader) for name, kind in cls._layout.items()})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The value that `data` holds, all of it; raises `WireError`."""
        reader = Reader(data)
        value = cls.read(reader)
        reader.end()
        return value
