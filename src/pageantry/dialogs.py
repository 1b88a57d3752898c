"""Asking with windows of our own on Windows' desktop, which need neither a console nor another program.

A question is a window over all others. It takes the keyboard only where Windows gives it, so that what is being typed
elsewhere answers nothing; and neither Enter nor Space allow anything before a button was chosen for that.
"""

from __future__ import annotations

import sys
from queue import SimpleQueue
from threading import Thread

from . import _dialogs
from .errors import Refused

assert sys.platform == "win32", "Windows only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

visible = _dialogs.visible

_WARNING: Final = 32515  # IDI_WARNING


class Dialogs:
    """Windows' desktop as a way to ask; see `prompts.Way`. Each question is shown in the thread that asks it.

    A locked screen is no reason not to ask: the question is there for whoever unlocks it in time.
    """

    def confirm(self, question: str, check: Callable[[], object]) -> None:
        """Return when the person chooses "Allow".

        Raises `Refused` for anything else, the end of their session among it, `NobodyToAsk` where there is no desktop
        that anybody sees, what `check` raises.
        """
        buttons = (_dialogs.ALLOW, "Allow"), (_dialogs.CANCEL, "Refuse")
        with _dialogs.Dialog(question, buttons, icon=_WARNING) as dialog:
            if dialog.run(check) != _dialogs.ALLOW:
                raise Refused("the person said no", "choose Allow, when you are asked once more")

    def secret(self, question: str, check: Callable[[], object]) -> bytes:
        """What the person types, unseen, of up to 4096 characters. Raises as `confirm` does.

        It is overwritten where Windows and we had it on the way here; what is returned is for the caller to forget.
        """
        with _dialogs.Dialog(question, ((_dialogs.OK, "OK"), (_dialogs.CANCEL, "Cancel")), field=True) as dialog:
            if dialog.run(check) != _dialogs.OK:
                raise Refused("the person entered nothing", "enter it, when you are asked once more")
            return dialog.typed()

    def notify(self, text: str) -> Callable[[], object]:
        """Show the text until what is returned is called, or the person puts it away. Raises `NobodyToAsk`."""
        shown: SimpleQueue[int | Exception] = SimpleQueue()
        thread = Thread(target=_notice, args=(text, shown), name="pageantry notice", daemon=True)
        thread.start()
        window = shown.get()
        if isinstance(window, Exception):
            thread.join()
            raise window

        def end() -> None:
            _dialogs.end(window)
            thread.join()

        return end


def _notice(text: str, shown: SimpleQueue[int | Exception]) -> None:
    try:
        with _dialogs.Dialog(text) as dialog:
            assert dialog.window
            shown.put(dialog.window)
            dialog.run(lambda: None)
    except Exception as error:  # noqa: BLE001 - it is raised where that is waited for
        shown.put(error)
