"""The one error that is the user's to mend, and how every command ends."""

from __future__ import annotations

import errno
import functools
import gc
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Concatenate, NoReturn, ParamSpec

from sdar.output.leaving import leave_soon
from sdar.output.printable import printable
from sdar.output.streams import outlive_readers

USER_ERROR = 2
"""Exit code of a mistake of the user."""
FAILED = 1
"""Exit code of a run that could not go on."""
INTERRUPTED = 130
"""Exit code after Ctrl-C."""

_LONGEST = 499
_LONG_WORD = re.compile(r"(\S{100})\S{100,}(\S{50})")

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP)
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.ESTALE)

P = ParamSpec("P")


class UserError(Exception):
    """A setting, a file or an argument is wrong.

    The message is one sentence that names the setting, what it must be and what it got. The command line prints it
    without a traceback and ends with exit code 2. What is too long for a sentence, such as a value of 100,000 letters,
    is cut in the middle.
    """

    def __init__(self, *parts: object) -> None:
        super().__init__(*(_brief(part) if isinstance(part, str) else part for part in parts))


def _brief(text: str) -> str:
    text = _LONG_WORD.sub(r"\1...\2", " ".join(printable(text).split("\n")))
    return text if len(text) < _LONGEST else f"{text[: _LONGEST - 200]} ... {text[-180:]}"


class RunFailed(Exception):  # noqa: N818 - what has happened, not a kind of mistake
    """A run cannot go on, and no setting was wrong: a full disk, a server that is gone, numbers that are not finite.

    The message is one sentence that says what was saved and how to go on. The command line prints it without a
    traceback and ends with exit code 1.
    """


class NothingToDo(Exception):  # noqa: N818 - no mistake at all
    """What a command was asked for has been done before.

    The message is one sentence that says where it is; empty: another process of the run says it. The command line
    prints it and ends with exit code 0.
    """


class Stopped(BaseException):
    """A signal asked this process to end. No Exception: what guards against errors must not take it for one.

    ``number``  of the signal; the exit code is 128 plus it
    The message is one sentence; empty: another process of the run says it.
    """

    def __init__(self, number: int, message: str | None = None) -> None:
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name} before anything was saved" if message is None else message)
        self.number = number
        self.code = 128 + number


INTERRUPTS = (KeyboardInterrupt, Stopped)
"""What is no fault of somebody's code, though it may come out of it."""


def is_interrupt(error: BaseException) -> bool:
    """Whether somebody asked the process to end. Signals reach the main thread: others raise such errors themselves."""
    return isinstance(error, INTERRUPTS) and threading.current_thread() is threading.main_thread()


def told(error: BaseException) -> str:
    """An error's type and text; the type alone where the text cannot be had."""
    text = words_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def words_of(error: BaseException) -> str:
    """An error's text; empty where its own ``__str__`` fails, whatever that raises."""
    try:
        return str(error)
    except INTERRUPTS:
        raise
    except BaseException:
        return ""


def system_reason(error: BaseException) -> str | None:
    """What the operating system says behind an error that may be wrapped in others; None: it says nothing."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError):
            return seen.strerror or str(seen)
        seen = seen.__cause__ or seen.__context__
    return None


def command(main: Callable[Concatenate[Sequence[str], P], int]) -> Callable[Concatenate[Sequence[str], P], int]:
    """Make of a command's ``main(arguments) -> exit code`` one that tells the user's mistakes in one sentence."""

    @functools.wraps(main)
    def ending(arguments: Sequence[str], /, *args: P.args, **options: P.kwargs) -> int:
        try:
            return main(arguments, *args, **options)
        except UserError as error:
            _tell(error)
            return USER_ERROR
        except RunFailed as error:
            _tell(error)
            return FAILED
        except NothingToDo as done:
            _tell(done, "")
            return 0
        except Stopped as stopped:
            _tell(stopped, "")
            return stopped.code
        except OSError as error:
            if error.errno in _NO_PATH and error.filename:
                _tell(UserError(f"{error.filename} must be the name of a file ({error.strerror})"))
                return USER_ERROR
            if error.errno in _NO_ACCESS and error.filename:
                _tell(RunFailed(f"{error.filename} cannot be used ({error.strerror})"))
                return FAILED
            if error.errno not in _NO_ROOM:
                raise
            where = error.filename or "a file"
            print(
                f"error: {where} cannot be written ({error.strerror}); what was saved before is whole", file=sys.stderr
            )
            return FAILED
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return INTERRUPTED

    return ending


def _tell(error: BaseException, prefix: str = "error: ") -> None:
    """On standard error; nothing for an error without words, which another process of the run has."""
    if str(error):
        print(f"{prefix}{printable(str(error))}", file=sys.stderr, flush=True)


def run_command(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run a command with the arguments of this process, and end the process with its exit code."""
    outlive_readers()
    code = main(sys.argv[1:])
    if code == USER_ERROR:
        gc.freeze()  # a fifth of the time of a refusal would go into looking for garbage once more
    leave_soon(code)
    sys.exit(code)
