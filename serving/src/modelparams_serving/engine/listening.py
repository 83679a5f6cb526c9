"""The port: taken first, since all that comes before its refusal was in vain, and listened on last."""

from __future__ import annotations

import socket

from modelparams.errors import UsageError
from modelparams_serving.engine.patience import leave_who_takes_nothing

_BACKLOG = 2048


def bound(host: str, port: int) -> socket.socket:
    """A socket that has the address, and on which nothing can come yet.

    Raises:
        UsageError: it is no address of this machine, or another has it.
    """
    try:
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise _refused(host, port, error) from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except (OSError, TypeError) as error:  # the latter is of a name that cannot be encoded
        made.close()
        raise _refused(host, port, error) from error
    return made


def listen(made: socket.socket, stalled_seconds: float) -> None:
    """Let clients come.

    Raises:
        UsageError: another that has the address too listens there already.
    """
    leave_who_takes_nothing(made, stalled_seconds)
    try:
        made.listen(_BACKLOG)
    except OSError as error:
        host, port = made.getsockname()[:2]
        raise _refused(host, port, error) from error
    made.setblocking(False)


def _refused(host: str, port: int, error: Exception) -> UsageError:
    why = error.strerror if isinstance(error, OSError) else "it is no name of a host"
    return UsageError(
        f"{host} port {port} cannot be listened on ({why})", hint="give another host or port, or end what listens there"
    )
