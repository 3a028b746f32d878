"""The one exception for faults that a user can mend, and the exit codes of every command."""

OK = 0
BUG = 1
USAGE = 2
BAD_CHECKPOINT = 3
BAD_DATA = 4
DIVERGED = 5
CANNOT_WRITE = 6
LOCKED = 7
INTERRUPTED = 130
TERMINATED = 143
PIPE_CLOSED = 141


class UserError(Exception):
    """A fault with a remedy: ends a command with one `error:` and one `hint:` line, never a traceback.

    Args:
        message: what went wrong, with the path or value concerned.
        hint: what to do about it.
        code: the command's exit status, one of the constants of this module.
    """

    def __init__(self, message: str, hint: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code
