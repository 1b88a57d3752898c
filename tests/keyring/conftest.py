"""A keyring, and a person who answers as the test says."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest

from pageantry import PublicKey
from pageantry.errors import Error, Refused
from pageantry.keyring import Keyring
from pageantry.prompts import Person


class Scripted(Person):
    """Gives the answers that it is told, in order, and keeps the questions."""

    def __init__(self) -> None:
        self.questions: list[str] = []
        self.answers: list[str | Error | Callable[[], str]] = []
        self.shown: list[str] = []
        self.closed = False
        self._gate = threading.Lock()

    def secret(self, question: str, gone: Callable[[], bool] = lambda: False, asker: object = None) -> str:
        with self._gate:
            self.questions.append(question)
            answer = self.answers.pop(0) if self.answers else Refused("nobody answers")
        if isinstance(answer, Error):
            raise answer
        return answer if isinstance(answer, str) else answer()

    def confirm(self, question: str, gone: Callable[[], bool] = lambda: False, asker: object = None) -> None:
        if self.secret(question, gone) != "yes":
            raise Refused("the person said no")

    @contextlib.contextmanager
    def notify(self, text: str) -> Iterator[None]:
        self.shown.append(text)
        yield

    def close(self) -> None:
        self.closed = True


class Process:
    """Who is at the other end of a connection."""

    account = "me"

    def __init__(self, pid: int | None = 4123, program: str = "/usr/bin/ssh") -> None:
        self.pid = pid
        self.program = program


@pytest.fixture
def person() -> Scripted:
    return Scripted()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def keyring(person: Scripted, said: list[str]) -> Iterator[Keyring]:
    with Keyring(person, say=said.append) as keyring:
        yield keyring


def held(keyring: Keyring) -> list[PublicKey]:
    return [identity.key for identity in keyring.identities()]
