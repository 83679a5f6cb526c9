"""The memory that long bodies may take together: of 256 requests at once that could be half a gigabyte."""

from __future__ import annotations

from starlette.requests import Request

LITTLE = 1 << 16
"""A body of so many bytes counts for nothing: of as many as may be under way at once that is little too."""


class Budget:
    """What is left of it, and what each request has taken."""

    def __init__(self, most: int) -> None:
        self.left, self._taken = most, dict[Request, int]()

    def take(self, request: Request, size: int) -> bool:
        """Count `size` bytes for the request in all. False: there is no room for them, and no more is counted."""
        more = size - self.taken_by(request)
        if size <= LITTLE or more <= 0:
            return True
        if more > self.left:
            return False
        self.left, self._taken[request] = self.left - more, size
        return True

    def taken_by(self, request: Request) -> int:
        """Bytes that count for it."""
        return self._taken.get(request, 0)

    def give_back(self, request: Request) -> None:
        """What it took, if anything."""
        self.left += self._taken.pop(request, 0)
