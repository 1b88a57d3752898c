"""One question after the other, by the first way that there is, and only as long as somebody waits for the answer."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry.askpass import Askpass
from pageantry.errors import DeadlineExceeded, Disconnected, NobodyToAsk, Refused
from pageantry.prompts import MAX_WAITING, Person, printable, ways


class Desk:
    """What a person has on their desktop: a program that asks, and whose questions the test answers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._script = directory / "askpass"
        self._script.write_text(f"""#!/bin/sh
cd '{directory}'
number=$$
printf %s "$1" > $number.tmp && mv $number.tmp $number.question
while [ ! -e $number.answer ]; do sleep 0.02; done
rm $number.question
cat $number.answer
[ -s $number.answer ]
""")
        self._script.chmod(0o700)
        self.way = Askpass(str(self._script), os.environ)

    def open(self) -> dict[str, str]:
        """The questions that are there now, by the numbers of their programs."""
        found = {}
        for path in self.directory.glob("*.question"):
            try:
                found[path.stem] = path.read_text()
            except FileNotFoundError:  # it has just ended
                continue
        return found

    def answer(self, question: str, answer: str) -> None:
        """Wait until exactly this is asked, and answer. An empty answer is no."""
        wait_for(lambda: bool(self.open()))
        ((number, asked),) = self.open().items()
        assert asked == question
        (self.directory / "answer").write_text(answer)
        (self.directory / "answer").rename(self.directory / f"{number}.answer")
        wait_for(lambda: number not in self.open())

    def is_quiet(self) -> bool:
        """Whether none of its programs runs any more."""
        for path in self.directory.glob("*.question"):
            try:
                os.kill(int(path.stem), 0)
            except ProcessLookupError:
                continue
            return False
        return True


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    if os.name == "nt":
        pytest.skip("a script of sh")
    return Desk(tmp_path)


class Asking:
    """Asks a person several things at the same time, each in a thread, in this order."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.pool = ThreadPoolExecutor(32)

    def secret(self, question: str, gone: Callable[[], bool] = lambda: False) -> Future[str]:
        waiting = len(self.person._queue)
        future = self.pool.submit(self.person.secret, question, gone)
        wait_for(lambda: len(self.person._queue) > waiting or future.done())
        return future


def test_questions_are_asked_one_after_the_other_in_their_order(desk: Desk) -> None:
    asking = Asking(Person([desk.way]))
    first, second = asking.secret("one"), asking.secret("two")
    third = asking.pool.submit(asking.person.confirm, "three")
    desk.answer("one", "1\n")
    desk.answer("two", "2\n")
    desk.answer("three", "yes\n")
    assert (first.result(15), second.result(15), third.result(15)) == ("1", "2", None)


def test_a_refusal_concerns_one_question_and_is_asked_no_other_way(desk: Desk) -> None:
    asking = Asking(Person([desk.way, desk.way]))
    first, second = asking.secret("one"), asking.secret("two")
    desk.answer("one", "")
    desk.answer("two", "2\n")
    with pytest.raises(Refused) as caught:
        first.result(15)
    assert caught.value.hint
    assert second.result(15) == "2"


def test_more_questions_than_can_be_answered_are_refused_at_once(desk: Desk) -> None:
    asking = Asking(Person([desk.way]))
    waiting = [asking.secret(str(number)) for number in range(1 + MAX_WAITING)]
    with pytest.raises(Refused, match="wait for an answer already"):
        asking.person.confirm("one more")
    desk.answer("0", "zero\n")
    assert waiting.pop(0).result(15) == "zero"
    last = asking.secret("last")
    asking.person.close()
    for future in (*waiting, last):
        with pytest.raises(NobodyToAsk):
            future.result(15)


def test_the_time_for_an_answer_includes_that_of_waiting_for_others(desk: Desk) -> None:
    asking = Asking(Person([desk.way]))
    first = asking.secret("one")
    asking.person._timeout = 1
    with pytest.raises(DeadlineExceeded, match="within 1 s"):
        asking.person.confirm("two")
    desk.answer("one", "1\n")
    assert first.result(15) == "1"


def test_a_question_that_nobody_answers_in_time_disappears(desk: Desk) -> None:
    with pytest.raises(DeadlineExceeded, match="within 3 s"):
        Person([desk.way], timeout=3).secret("one")
    assert list(desk.open().values()) == ["one"]
    assert desk.is_quiet()


def test_what_a_client_asked_for_ends_when_it_leaves(desk: Desk) -> None:
    asking = Asking(Person([desk.way]))
    leave_first, leave_second = threading.Event(), threading.Event()
    first, second = asking.secret("one", leave_first.is_set), asking.secret("two", leave_second.is_set)
    third = asking.secret("three")
    wait_for(lambda: list(desk.open().values()) == ["one"])
    for event, future in ((leave_second, second), (leave_first, first)):
        event.set()
        with pytest.raises(Disconnected):
            future.result(15)
    wait_for(lambda: "three" in desk.open().values())
    (desk.directory / next(f"{n}.question" for n, asked in desk.open().items() if asked == "one")).unlink()
    desk.answer("three", "3\n")
    assert third.result(15) == "3"


def test_nothing_is_asked_any_more_when_closing_is_done(desk: Desk) -> None:
    asking = Asking(Person([desk.way]))
    futures = [asking.secret("one"), asking.secret("two")]
    wait_for(lambda: bool(desk.open()))
    asking.person.close()
    assert desk.is_quiet()
    asking.person.close()
    with pytest.raises(NobodyToAsk, match="agent ends"):
        asking.person.confirm("three")
    for future in futures:
        with pytest.raises(NobodyToAsk):
            future.result(15)
    with asking.person.notify("Touch it"):
        assert list(desk.open().values()) == ["one"]


def test_a_way_that_cannot_be_used_is_passed_over(desk: Desk) -> None:
    missing = Askpass(str(desk.directory / "missing"), os.environ)
    asking = Asking(Person([missing, desk.way]))
    secret = asking.secret("one")
    desk.answer("one", "1\n")
    assert secret.result(15) == "1"
    with pytest.raises(NobodyToAsk) as caught:
        Person([missing, missing]).confirm("Allow it?")
    assert str(caught.value).count("missing cannot be run") == 2
    assert caught.value.hint


def test_with_no_way_there_is_nobody_to_ask() -> None:
    person = Person([])
    with pytest.raises(NobodyToAsk):
        person.confirm("Allow it?")
    with pytest.raises(NobodyToAsk):
        person.secret("Passphrase: ")
    with person.notify("Touch it"):
        pass


def test_a_secret_that_is_no_text_is_not_shown(desk: Desk) -> None:
    path = desk.directory / "latin"
    path.write_text("#!/bin/sh\nprintf 'gehei\\344'\n")
    path.chmod(0o700)
    with pytest.raises(Refused) as caught:
        Person([Askpass(str(path), os.environ)]).secret("Passphrase: ")
    assert "gehei" not in f"{caught.value}{caught.value.hint}"


def test_a_notice_waits_for_no_question_and_ends_with_its_block(desk: Desk) -> None:
    missing = Askpass(str(desk.directory / "missing"), os.environ)
    asking = Asking(Person([missing, desk.way]))
    secret = asking.secret("one")
    wait_for(lambda: bool(desk.open()))
    number = ""
    try:
        with asking.person.notify("Touch \x1b it"):
            wait_for(lambda: sorted(desk.open().values()) == ["Touch \\x1b it", "one"])
            number = next(number for number, shown in desk.open().items() if shown != "one")
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    with pytest.raises(ProcessLookupError):
        os.kill(int(number), 0)
    (desk.directory / f"{number}.question").unlink()
    desk.answer("one", "1\n")
    assert secret.result(15) == "1"


def test_a_notice_is_over_when_closing_is_done(desk: Desk) -> None:
    person = Person([desk.way])
    with person.notify("Touch it"):
        wait_for(lambda: bool(desk.open()))
        person.close()
        assert desk.is_quiet()


@pytest.mark.parametrize("closed", ["before", "while it is begun", "within", "after"])
def test_a_notice_is_ended_once_whenever_closing_comes(closed: str) -> None:
    ends: list[str] = []

    class Slow(Askpass):
        """Is closed at a moment that a real one cannot be made to wait for."""

        def notify(self, text: str) -> Callable[[], object]:
            if closed == "while it is begun":
                person.close()
            return lambda: ends.append(text)

    person = Person([Slow("", {})])
    if closed == "before":
        person.close()
    with person.notify("Touch it"):
        if closed == "within":
            person.close()
    person.close()
    assert ends == ([] if closed == "before" else ["Touch it"])


def test_questions_leave_nothing(desk: Desk, leaves_nothing: Callable[..., None]) -> None:
    def ask_and_close() -> None:
        asking = Asking(Person([desk.way]))
        futures = [asking.secret("one"), asking.secret("two")]
        with asking.person.notify("Touch it"):
            wait_for(lambda: len(desk.open()) == 2)
            asking.person.close()
        for future in futures:
            with pytest.raises(NobodyToAsk):
                future.result(15)
        asking.pool.shutdown()
        for path in desk.directory.glob("*.question"):
            path.unlink()

    leaves_nothing(ask_and_close, 3)


def test_a_program_is_seen_from_everywhere_so_it_is_asked_before_the_terminal() -> None:
    display = {"DISPLAY": ":0", "SSH_ASKPASS": os.path.abspath("askpass")}
    if sys.platform != "win32":  # where there is the desktop: see test_dialogs.py
        assert ways({}, terminal=False) == []
    assert isinstance(ways(display, terminal=False)[0], Askpass)
    kinds = [type(way).__name__ for way in ways(display, terminal=True)]
    assert kinds[0] == "Askpass"
    if sys.platform != "win32":
        assert kinds[1:] == ["Terminal"]
        assert len(ways({**display, "SSH_ASKPASS_REQUIRE": "never"}, terminal=True)) == 1


@given(st.text())
def test_whatever_is_shown_has_its_lines_and_nothing_that_is_no_character(text: str) -> None:
    lines = printable(text).split("\n")
    assert all(line.isprintable() for line in lines)
    assert len(lines) == 1 + text.count("\n")
    os.fsencode(printable(text))


@given(st.text().filter(lambda text: all(char.isprintable() or char == "\n" for char in text)))
def test_what_is_printable_is_shown_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_a_command_s_prompt_moves_no_cursor(at_terminal: Callable[..., tuple[int, str]]) -> None:
    program = r'from pageantry import prompts; print("came", prompts.secret("Passphrase for \x1b[2Ja: "))'
    status, shown = at_terminal(typed={"a:": b"geheim\n"}, program=program)
    assert status == 0
    assert "Passphrase for \\x1b[2Ja:" in shown
    assert "came geheim" in shown
