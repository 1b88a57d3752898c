"""A listener, against a kernel in which each order of events can be had."""

from __future__ import annotations

import contextlib
import errno
import threading
from typing import TYPE_CHECKING

import pytest

from pageantry.winpipe import BACKLOG, Listener, Pipe

if TYPE_CHECKING:
    from tests.winpipe.conftest import AtEachMoment, CallWithEvent, Clock, Kernel

FULL = OSError(errno.ENOMEM, "no more instances")
PATH = r"\\.\pipe\x"


def instances(kernel: Kernel) -> int:
    return sum(not handle.closed for handle in kernel.made)


def faults(kernel: Kernel) -> list[str]:
    return kernel.faults + [fault for handle in kernel.made for fault in handle.faults]


def interrupt() -> None:
    raise KeyboardInterrupt


def test_a_name_is_taken_once_and_several_clients_can_come(listener: Listener, kernel: Kernel) -> None:
    assert kernel.firsts == [True, False, False, False]
    assert BACKLOG == 4
    assert all(handle.reading.under_way for handle in kernel.made)


def test_a_client_is_accepted_at_once_or_when_it_comes(listener: Listener, kernel: Kernel, clock: Clock) -> None:
    first = kernel.arrive()
    with listener.accept() as pipe:
        first.reading.starts = [b"abc"]
        assert pipe.recv(10) == b"abc"
        assert (pipe.path, pipe.peer.sid) == (PATH, "S-1-5-18")
    assert clock.now == 1000
    kernel.at_wait = [None, None, kernel.arrive]
    listener.accept().close()
    assert [handle.closed for handle in kernel.made] == [True, True] + [False] * BACKLOG


def test_the_next_instance_is_there_before_a_client_is_handed_over(listener: Listener, kernel: Kernel) -> None:
    there: list[int] = []
    for _ in range(20):
        kernel.arrive()
        kernel.makes = [lambda: there.append(len(listener._instances))]
        listener.accept().close()
    assert there == [BACKLOG] * 20
    assert kernel.firsts == [True] + [False] * (BACKLOG - 1 + 20)


def test_clients_are_accepted_in_the_order_of_their_instances(listener: Listener, kernel: Kernel) -> None:
    order = [kernel.arrive(number) for number in (2, 0, 1)]
    pipes = [listener.accept() for _ in order]
    assert [pipe._handle for pipe in pipes] == [order[1], order[2], order[0]]
    for pipe in pipes:
        pipe.close()


@pytest.mark.parametrize(("timeout", "error"), [(0, BlockingIOError), (0.05, TimeoutError), (3, TimeoutError)])
def test_a_deadline_holds(
    listener: Listener, kernel: Kernel, clock: Clock, timeout: float, error: type[OSError]
) -> None:
    listener.settimeout(timeout)
    with pytest.raises(error):
        listener.accept()
    assert clock.now == pytest.approx(1000 + timeout)
    kernel.arrive()
    listener.accept().close()


def test_a_client_whose_wait_ended_with_its_thread_is_accepted(listener: Listener, kernel: Kernel) -> None:
    """Windows cancels what a thread has begun when that ends. Clients can connect nonetheless."""
    for handle in kernel.made:
        handle.reading.end(None)
    kernel.made[1].reading.starts = [0]  # there is one already, says the kernel
    with listener.accept() as pipe:
        assert pipe._handle is kernel.made[1]
    kernel.arrive(0)
    with listener.accept() as pipe:
        assert pipe._handle is kernel.made[0]
    assert len(kernel.made) == BACKLOG + 2


def test_no_client_is_lost_and_no_deadline_either_when_all_waits_ended(
    listener: Listener, kernel: Kernel, clock: Clock
) -> None:
    for handle in kernel.made:
        handle.reading.end(None)
    listener.settimeout(1)
    with pytest.raises(TimeoutError):
        listener.accept()
    assert clock.now == pytest.approx(1001)
    assert all(handle.reading.under_way for handle in kernel.made)


@pytest.mark.parametrize("again", [True, False])
def test_an_instance_that_fails_is_replaced(listener: Listener, kernel: Kernel, again: bool) -> None:
    """Whether its wait fails or cannot be begun again."""
    broken = kernel.made[0]
    broken.reading.end(None if again else FULL)
    broken.reading.starts = [FULL] if again else []
    kernel.arrive(1)
    with listener.accept() as pipe:
        assert pipe._handle is kernel.made[1]
    assert broken.closed
    assert instances(kernel) == BACKLOG


def test_without_further_instances_a_listener_lives_on_what_it_has(listener: Listener, kernel: Kernel) -> None:
    kernel.makes = [FULL] * (BACKLOG + 2)
    pipes = []
    for _ in range(BACKLOG - 1):
        kernel.arrive()
        pipes.append(listener.accept())
    last = kernel.arrive()
    for _ in range(3):  # the last one is not given away, as the name would go with it
        with pytest.raises(OSError, match="no more instances"):
            listener.accept()
        assert not last.closed
    with listener.accept() as pipe:
        assert pipe._handle is last
    assert set(kernel.firsts[BACKLOG:]) == {False}
    assert instances(kernel) == BACKLOG + BACKLOG - 1
    for pipe in pipes:
        pipe.close()


@pytest.mark.parametrize("number", range(BACKLOG))
def test_a_listener_that_cannot_be_made_leaves_nothing_behind(kernel: Kernel, number: int) -> None:
    kernel.makes = [*(None,) * number, FileExistsError(errno.EEXIST, "taken")]
    with pytest.raises(FileExistsError, match="taken"):
        Listener(kernel, PATH)
    assert len(kernel.made) == number
    assert instances(kernel) == 0


@pytest.mark.parametrize("number", range(BACKLOG))
def test_an_interrupt_as_it_is_made_leaves_nothing_behind(kernel: Kernel, number: int) -> None:
    kernel.at_connect = [*(None,) * number, interrupt]
    with pytest.raises(KeyboardInterrupt):
        Listener(kernel, PATH)
    assert len(kernel.made) == number + 1
    assert instances(kernel) == 0


def test_an_interrupt_as_one_waits_loses_nothing(listener: Listener, kernel: Kernel) -> None:
    def interrupt_as_one_arrives() -> None:
        kernel.arrive()
        raise KeyboardInterrupt

    kernel.at_wait = [interrupt_as_one_arrives]
    with pytest.raises(KeyboardInterrupt):
        listener.accept()
    with listener.accept() as pipe:
        assert pipe._handle is kernel.made[0]


def test_a_client_of_whom_nothing_can_be_learnt_waits_for_the_next_accept(listener: Listener, kernel: Kernel) -> None:
    def fail() -> None:
        raise SystemError("this thread acts as somebody else")

    kernel.arrive()
    kernel.at_peer = [fail]
    with pytest.raises(SystemError):
        listener.accept()
    with listener.accept() as pipe:
        assert pipe._handle is kernel.made[0]


def test_an_accept_can_be_stopped_without_loss(listener: Listener, kernel: Kernel) -> None:
    def stop_as_one_arrives() -> None:
        kernel.arrive()
        listener._stop_accepting(True)

    kernel.at_wait = [stop_as_one_arrives]
    for _ in range(2):  # this one, and those that come before it is taken back
        with pytest.raises(TimeoutError):
            listener.accept()
    listener._stop_accepting(False)
    with listener.accept() as pipe:
        assert pipe._handle is kernel.made[0]
    listener.close()
    listener._stop_accepting(True)


# --- closing


def closed(listener: Listener) -> None:
    with pytest.raises(OSError, match="closed") as caught:
        listener.accept()
    assert caught.value.errno == errno.EBADF


def test_who_was_accepted_stays_connected_and_who_was_not_is_hung_up_on(listener: Listener, kernel: Kernel) -> None:
    accepted, waiting = kernel.arrive(), kernel.arrive()
    with listener.accept() as pipe:
        listener.close()
        assert waiting.closed
        assert not accepted.closed
        assert kernel.closed
        accepted.reading.starts = [b"abc"]
        assert pipe.recv(10) == b"abc"
    listener.close()
    closed(listener)


@pytest.mark.parametrize("fate", [0, OSError(errno.EIO, "broken")])
def test_a_client_that_comes_as_a_listener_is_closed_is_hung_up_on(
    listener: Listener, kernel: Kernel, fate: int | OSError
) -> None:
    kernel.made[1].reading.cancels = [fate]
    listener.close()
    assert instances(kernel) == 0


def test_a_handler_may_close_what_waits(listener: Listener, kernel: Kernel) -> None:
    kernel.at_wait = [listener.close]
    closed(listener)
    assert instances(kernel) == 0


def test_a_handler_may_close_a_listener_that_makes_an_instance(listener: Listener, kernel: Kernel) -> None:
    kernel.arrive()
    kernel.makes = [listener.close]
    closed(listener)
    assert instances(kernel) == 0


def test_a_handler_may_close_a_listener_that_looks_at_its_client(listener: Listener, kernel: Kernel) -> None:
    kernel.arrive()
    kernel.at_peer = [listener.close]
    closed(listener)
    assert instances(kernel) == 0


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("timeout", [None, 30])
def test_closing_wakes_all_who_wait(slow_kernel: Kernel, number: int, timeout: float | None) -> None:
    listener = Listener(slow_kernel, PATH)
    listener.settimeout(timeout)
    threads = [threading.Thread(target=closed, args=(listener,)) for _ in range(number)]
    for thread in threads:
        thread.start()
    assert slow_kernel.waiting.wait(10)
    assert instances(slow_kernel) == BACKLOG
    listener.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert instances(slow_kernel) == 0


def test_several_may_accept_and_each_client_is_accepted_once(slow_kernel: Kernel) -> None:
    listener = Listener(slow_kernel, PATH)
    accepted: list[Pipe] = []

    def accept() -> None:
        accepted.extend(listener.accept() for _ in range(5))

    threads = [threading.Thread(target=accept) for _ in range(4)]
    for thread in threads:
        thread.start()
    arrived = [slow_kernel.arrive() for _ in range(20)]
    for thread in threads:
        thread.join(10)
    assert {id(pipe._handle) for pipe in accepted} == {id(handle) for handle in arrived}
    for pipe in accepted:
        pipe.close()
    listener.close()


@pytest.mark.filterwarnings("default::ResourceWarning")
def test_a_listener_that_was_forgotten_is_closed_with_a_warning(kernel: Kernel) -> None:
    with pytest.warns(ResourceWarning, match=r"unclosed <Listener .*x>"):
        Listener(kernel, PATH)
    assert instances(kernel) == 0


# --- at each moment


@pytest.mark.parametrize("arrived", [True, False])
def test_a_handler_may_close_it_at_any_moment(
    kernel: Kernel, clock: Clock, at_each_moment: AtEachMoment, arrived: bool
) -> None:
    def run(call_with_event: CallWithEvent) -> None:
        fresh, listener = prepared(kernel, clock, arrived)
        try:
            pipe = call_with_event(listener.accept, listener.close)
        except OSError as error:
            assert error.errno in (errno.EBADF, None if arrived else errno.ETIMEDOUT)  # noqa: PT017 - or else a pipe
        else:
            assert isinstance(pipe, Pipe)
            pipe.close()
        listener.close()
        assert fresh.closed
        assert instances(fresh) == 0
        assert faults(fresh) == []

    assert at_each_moment(run) > 20
    kernel.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("arrived", [True, False])
def test_an_interrupt_at_any_moment_leaves_a_listener_that_works(
    kernel: Kernel, clock: Clock, at_each_moment: AtEachMoment, arrived: bool
) -> None:
    def run(call_with_event: CallWithEvent) -> None:
        fresh, listener = prepared(kernel, clock, arrived)
        with contextlib.suppress(KeyboardInterrupt, OSError):
            call_with_event(listener.accept, interrupt)
        fresh.arrive()
        listener.accept().close()
        assert instances(fresh) >= BACKLOG
        listener.close()
        assert instances(fresh) == 0
        assert faults(fresh) == []

    assert at_each_moment(run) > 20
    kernel.close()


def prepared(kernel: Kernel, clock: Clock, arrived: bool) -> tuple[Kernel, Listener]:
    """A listener on a kernel of the same kind, with a client or a deadline."""
    fresh = type(kernel)(clock)
    listener = Listener(fresh, PATH)
    if arrived:
        fresh.arrive()
    else:
        listener.settimeout(0.3)
    return fresh, listener
