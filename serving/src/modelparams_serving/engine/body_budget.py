"""The memory that long bodies and answers may take together: of 256 requests at once that could be gigabytes."""

from __future__ import annotations

LITTLE = 1 << 16
"""A body of so many bytes counts for nothing: of as many as may be under way at once that is little too."""


class Budget:
    """What is left of it, and what each owner, a request or an answer, has taken."""

    def __init__(self, most: int) -> None:
        self.most, self.left, self._taken = most, most, dict[object, int]()

    def take(self, owner: object, size: int) -> bool:
        """Count `size` bytes for the owner in all. False: there is no room for them, and no more is counted."""
        more = size - self.taken_by(owner)
        if size <= LITTLE or more <= 0:
            return True
        if more > self.left:
            return False
        self.left, self._taken[owner] = self.left - more, size
        return True

    def taken_by(self, owner: object) -> int:
        """Bytes that count for it."""
        return self._taken.get(owner, 0)

    def give_back(self, owner: object) -> None:
        """What it took, if anything."""
        self.left += self._taken.pop(owner, 0)
