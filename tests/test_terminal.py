"""Questions at a real terminal: who is heard, what is shown, and that it is as before afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("terminals of UNIX", allow_module_level=True)

import pty

#: What each program starts with. `ask` says what came of a question, and `tell` is the last word.
BEGINNING = r"""
import json, os, select, signal, sys, termios, threading, time
from pageantry import terminal
from pageantry.errors import Error
from pageantry.prompts import Person, ways

def mode():
    return repr(termios.tcgetattr(0))

def hidden():
    return not termios.tcgetattr(0)[3] & termios.ECHO

def wait_for(condition):
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

def ask(what, *arguments):
    try:
        return what(*arguments)
    except (Error, KeyboardInterrupt) as error:
        return f"{type(error).__name__}: {error}"

def tell(*words):
    print("\nCAME" + json.dumps(words), flush=True)

person = Person(ways({}, terminal=True), timeout=30)
before = mode()
"""

Came = Callable[..., list[Any]]


@pytest.fixture
def came(at_terminal: Callable[..., tuple[int, str]]) -> Came:
    """What a program at a terminal, at which this is typed, tells at its end, and what was shown before."""

    def run(program: str, typed: dict[str, bytes] | None = None) -> list[Any]:
        status, shown = at_terminal(typed=typed or {}, program=BEGINNING + program)
        assert status == 0, shown
        shown, _, told = shown.replace("\r\n", "\n").partition("\nCAME")
        return [*json.loads(told), shown]

    return run


@pytest.mark.parametrize("typed", [b"y\n", b"Yes\n", b" YES \n", b"nx\x7f\x7fy\n"])
def test_yes_is_consent(came: Came, typed: bytes) -> None:
    program = r'tell(ask(person.confirm, "Allow it?\n  \x1b[2Jthis key"), mode() == before)'
    told, restored, shown = came(program, {"[y/N]": typed})
    assert told is None
    assert restored
    assert shown.startswith("Allow it?\n  \\x1b[2Jthis key [y/N] ")


@pytest.mark.parametrize("typed", [b"\n", b"n\n", b"yess\n", "ｙ\n".encode(), b"\x04", b"y\x04\x04"])
def test_everything_else_is_no_consent(came: Came, typed: bytes) -> None:
    told, restored, _ = came('tell(ask(person.confirm, "Allow it?"), mode() == before)', {"[y/N]": typed})
    assert told.startswith("Refused: ")
    assert restored


@pytest.mark.parametrize(
    ("typed", "secret"),
    [
        ("gehäimx\x7f two \n".encode(), "gehäim two "),
        (b"\n", ""),
        (b"\x04", "Refused: the person ended the input"),
        (b"gehei\xff\n", "Refused: what was typed is not utf-8"),
    ],
)
def test_a_secret_is_read_unseen(came: Came, typed: bytes, secret: str) -> None:
    program = 'tell(ask(person.secret, "Passphrase: "), mode() == before)'
    assert came(program, {"Passphrase:": typed}) == [secret, True, "Passphrase: \n"]


def test_a_notice_is_a_line(came: Came) -> None:
    program = r'with person.notify("Touch \x1b it"): tell(mode() == before)'
    assert came(program) == [True, "Touch \\x1b it\n"]


def test_what_was_typed_before_the_question_answers_nothing(came: Came) -> None:
    program = """
print("ready", flush=True)
assert select.select([0], [], [], 15)[0]
tell(ask(person.confirm, "Allow it?"))
"""
    told, _ = came(program, {"ready": b"y\ny\ny", "[y/N]": b"\n"})
    assert told == "Refused: the person said no"


def test_what_is_typed_while_the_question_cannot_be_shown_answers_nothing(came: Came) -> None:
    program = """
flush = termios.tcflush
def hold(*arguments):
    "Hold the output, as Ctrl-S does, from just before the question until something was typed."
    held, typed = termios.tcflush is hold_again, select.select([0], [], [], 0)[0]
    flush(*arguments)
    if not held:
        print("type now", flush=True)
        termios.tcflow(0, termios.TCOOFF)
        termios.tcflush = hold_again
    elif typed:
        termios.tcflow(0, termios.TCOON)
def hold_again(*arguments):
    hold(*arguments)
termios.tcflush = hold
tell(ask(person.confirm, "Allow it?"))
"""
    told, _ = came(program, {"type now": b"y\n", "[y/N]": b"\n"})
    assert told == "Refused: the person said no"


@pytest.mark.parametrize("what", ["confirm", "secret"])
@pytest.mark.parametrize(
    ("preparation", "answer"),
    [
        ("person = Person(ways({}, terminal=True), timeout=3)", "DeadlineExceeded: nobody answered within 3 s"),
        ("gone = received.is_set", "Disconnected: whoever wanted the answer has left"),
        ("threading.Thread(target=close).start()", "NobodyToAsk: nobody is asked any more, as the agent ends"),
    ],
    ids=["deadline", "gone", "closed"],
)
def test_of_a_question_that_is_over_nothing_remains_at_the_terminal(
    came: Came, what: str, preparation: str, answer: str
) -> None:
    program = f"""
received = threading.Event()  # Ctrl-C shows here that all that was typed before it has come
signal.signal(signal.SIGINT, lambda *_: received.set())
attributes = termios.tcgetattr(0)
attributes[3] |= termios.NOFLSH  # otherwise Ctrl-C would forget that
termios.tcsetattr(0, termios.TCSANOW, attributes)
before = mode()
restored_when_closed = True
gone = lambda: False
def close():
    global restored_when_closed
    received.wait()
    person.close()
    restored_when_closed = mode() == before
{preparation}
answer = ask(person.{what}, "Well?", gone)
wait_for(received.is_set)
restored = mode() == before
print("after", flush=True)
tell(answer, restored, restored_when_closed, sys.stdin.readline())
"""
    told, restored, restored_when_closed, rest, shown = came(program, {"Well?": b"half\x03", "after": b"\n"})
    assert told == answer
    assert restored
    assert restored_when_closed
    assert rest == "\n"  # which half an answer would stand before
    assert shown.partition("after")[0].endswith("\n")
    assert ("half" in shown) == (what == "confirm")


def test_ctrl_c_interrupts_the_process_and_the_terminal_is_as_before(came: Came) -> None:
    program = 'tell(ask(person.secret, "Passphrase: "), mode() == before)'
    assert came(program, {"Passphrase:": b"\x03"})[:2] == ["KeyboardInterrupt: ", True]


def test_in_the_background_nothing_is_done_to_the_terminal(came: Came) -> None:
    program = """
attributes = termios.tcgetattr(0)
attributes[3] |= termios.TOSTOP  # whoever writes is stopped, too
termios.tcsetattr(0, termios.TCSANOW, attributes)
before = mode()
output, input_ = os.pipe()
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    answers = [ask(person.confirm, "Allow it?"), ask(person.secret, "Passphrase: ")]
    with person.notify("Touch it"):
        pass
    os.write(input_, json.dumps(answers).encode())
    os._exit(0)
assert os.waitpid(child, os.WUNTRACED) == (child, 0)  # it was not stopped
tell(*json.loads(os.read(output, 10_000)), mode() == before)
"""
    nobody = "NobodyToAsk: another program has the terminal now"
    assert came(program) == [nobody, nobody, True, ""]


#: A child that asks, and a parent that takes the terminal away from it meanwhile, as a shell does at Ctrl-Z.
TAKEN = """
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
output, input_ = os.pipe()
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    wait_for(lambda: os.tcgetpgrp(0) == os.getpgrp())
    {preparation}
    os.write(input_, ask(person.secret, "Passphrase: ").encode())
    os._exit(0)
os.setpgid(child, child)
attributes = termios.tcgetattr(0)
os.tcsetpgrp(0, child)
wait_for(hidden)
os.tcsetpgrp(0, os.getpgrp())
attributes[3] |= termios.NOFLSH
termios.tcsetattr(0, termios.TCSANOW, attributes)
wanted = mode()
assert os.waitpid(child, os.WUNTRACED) == (child, 0)
tell(os.read(output, 10_000).decode(), mode() == wanted)
"""


@pytest.mark.parametrize(
    ("preparation", "answer"),
    [
        ("pass", "NobodyToAsk: another program has the terminal now"),
        ("terminal._is_ours = lambda _: True", "NobodyToAsk: the terminal cannot be used: Input/output error"),
    ],
    ids=["", "just before it is read from"],
)
def test_who_loses_the_terminal_leaves_it_to_its_new_owner(came: Came, preparation: str, answer: str) -> None:
    signals = "signal.signal(signal.SIGTTOU, signal.SIG_DFL)"
    told, as_the_owner_wants_it, shown = came(TAKEN.replace("{preparation}", f"{signals}; {preparation}"))
    assert told == answer
    if preparation == "pass":
        assert as_the_owner_wants_it
        assert shown == "Passphrase: "


def test_a_secret_stays_unseen_when_a_shell_has_shown_what_is_typed_in_between(came: Came) -> None:
    program = """
attributes = termios.tcgetattr(0)
hidden_again = threading.Event()
def show():
    wait_for(hidden)
    termios.tcsetattr(0, termios.TCSANOW, attributes)
    wait_for(hidden)
    hidden_again.set()
threading.Thread(target=show).start()
tell(ask(person.secret, "Passphrase: ", hidden_again.is_set), mode() == before)
"""
    assert came(program)[:2] == ["Disconnected: whoever wanted the answer has left", True]


NO_TERMINAL = BEGINNING.replace("before = mode()", "") + 'print(ask(person.secret, "Passphrase: "))'


def test_without_a_terminal_nobody_is_asked() -> None:
    command = [sys.executable, "-c", NO_TERMINAL]
    done = subprocess.run(command, start_new_session=True, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "NobodyToAsk: there is no terminal to ask at\n"


def test_a_terminal_that_is_hung_up_answers_nothing(tmp_path: Path) -> None:
    program = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
open(sys.argv[1], "w").write(ask(person.confirm, "Allow it?"))
"""
    process, terminal = pty.fork()
    if process == 0:
        try:
            os.execv(sys.executable, [sys.executable, "-c", BEGINNING + program, str(tmp_path / "came")])
        finally:
            os._exit(1)
    shown = b""
    while b"[y/N]" not in shown:
        shown += os.read(terminal, 1000)
    os.close(terminal)
    assert os.waitpid(process, 0)[1] == 0
    assert (tmp_path / "came").read_text().startswith(("NobodyToAsk: ", "Refused: "))
