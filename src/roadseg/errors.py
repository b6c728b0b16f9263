"""What went wrong, said to the person who can fix it: one line, an exit code, no traceback unless it is asked for."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake in the user's input: data, settings, or what is missing from the machine. Exit code 2.

    The message is one line: what is wrong, where (file, key, class), the value, what to do.
    """


class StageFailure(Exception):
    """A stage that ran on good input and still missed its own bar: one line, exit code 1."""


def masked(text: str) -> str:
    """The text with every account in an address (http://NAME:PASSWORD@HOST) as ***."""
    return re.sub(r"://[^/@\s]+@", "://***@", text)


def one_line(error: BaseException) -> str:
    """The error as one line, without passwords: a message that was written for people, or the exception's kind and
    text."""
    text = masked(" ".join(str(error).split()))
    return text if isinstance(error, UserError | StageFailure) else f"{type(error).__name__}: {text}"


@contextmanager
def reported(command: str, *, resumes: bool = True) -> Iterator[None]:
    """Turns what escapes into one line on stderr and an exit code. ROADSEG_DEBUG=1 lets the traceback through.

    `resumes`: whether a command that was stopped goes on where it was.
    """
    try:
        yield
    except KeyboardInterrupt:
        after = "goes on from what is finished" if resumes else "begins anew"
        print(f"{command}: stopped; started again, it {after}", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if os.environ.get("ROADSEG_DEBUG"):
            raise
        hint = "" if isinstance(error, UserError | StageFailure) else " (ROADSEG_DEBUG=1 shows where)"
        print(f"{command}: {one_line(error)}{hint}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, UserError) else 1) from None
