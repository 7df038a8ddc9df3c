"""The one error that is the user's to mend."""

from __future__ import annotations


class UserError(Exception):
    """A setting, a file or an argument is wrong.

    The message is one sentence that names the setting, its value and what is allowed. The command line prints it
    without a traceback and ends with exit code 2.
    """
