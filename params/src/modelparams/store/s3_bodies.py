"""Bodies of S3's answers: read to an exact length, within a time, their connections given back."""

from __future__ import annotations

import time
from typing import Any

from modelparams.errors import StoreUnavailable
from modelparams.store.s3_deadline import expect_within, rest

# A stream slower than this is as good as broken: 8 MiB may take half a minute and two minutes more.
_GRACE_SECONDS, _SLOWEST_BYTES_PER_SECOND = 30.0, 64 << 10


def read_exactly(body: Any, into: memoryview, what: object) -> None:
    """Fill `into` from a response's body; `what`, for people, is made text only when it fails.

    Raises:
        StoreUnavailable: it ended early, or came too slowly to be of use.
        OSError, HTTPException: the connection broke.
    """
    # The stream below urllib3's reads into our buffer without a copy; it tells a cut only by ending early.
    stream = getattr(body._raw_stream, "_fp", body._raw_stream)
    connection = body._raw_stream.connection
    until = expect_within(connection, _GRACE_SECONDS + len(into) / _SLOWEST_BYTES_PER_SECOND)
    done = 0
    try:
        while done < len(into):
            if not (n := stream.readinto(into[done:])):
                raise StoreUnavailable(f"{what} was cut after {done} of {len(into)} bytes")
            done += n
    except (OSError, StoreUnavailable) as error:
        if time.monotonic() >= until:
            raise StoreUnavailable(f"{what} comes too slowly: {done} of {len(into)} bytes") from error
        raise
    finally:
        rest(connection)


def keep_connection(body: Any) -> None:
    """All that is wanted was read: let the connection serve the next request, if there is no more to come."""
    body._raw_stream.release_conn() if body._raw_stream.isclosed() else body.close()


def length_of(answer: dict[str, Any], what: str) -> int:
    """How many bytes the body of `answer` has.

    Raises:
        StoreUnavailable: it does not say.
    """
    if (length := int(answer.get("ContentLength", -1))) < 0:
        raise StoreUnavailable(f"the answer for {what} does not say how long it is")
    return length
