"""The trust policy as its file says now: a ConfigMap that is changed reaches a running operator.

It is read anew each time and compared: a ConfigMap's volume exchanges a symbolic link, which no time stamp betrays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from modelparams.errors import UsageError
from modelparams.trust import TrustPolicy
from modelparams_operator.shell.logs import logger


@dataclass
class TrustFile:
    """The policy of `path`; the one before stays while a new one cannot be used.

    Raises:
        UsageError: there is none to begin with.
    """

    path: Path
    policy: TrustPolicy = field(init=False)
    _problem: str = ""

    def __post_init__(self) -> None:
        self.policy = TrustPolicy.load(self.path)

    def refresh(self) -> bool:
        """Read it again; whether the policy is another one."""
        try:
            found = TrustPolicy.load(self.path)
        except UsageError as error:
            if str(error) != self._problem:
                logger.warning("Trust policy not taken: the one before holds", reason=error.reason, problem=str(error))
            self._problem = str(error)
            return False
        self._problem = ""
        if found == self.policy:
            return False
        self.policy = found
        logger.info("Trust policy taken", path=str(self.path), threshold=found.threshold, keys=sorted(found.keys))
        return True

    async def watch(self, every: float, changed: Callable[[], None]) -> NoReturn:
        """Read it every so many seconds, now first, and tell of another one."""
        while True:
            if self.refresh():
                changed()
            await asyncio.sleep(every)
