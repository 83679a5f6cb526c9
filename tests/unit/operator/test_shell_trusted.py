"""The trust policy's file, changed while the operator runs as kubelet changes a ConfigMap's volume."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from builders.fake_api import running, until
from modelparams.errors import UsageError
from modelparams.trust import SigningKey, TrustPolicy
from modelparams_operator.shell.trusted import TrustFile

FIRST, SECOND = (TrustPolicy.of(SigningKey.generate()) for _ in range(2))


class Volume:
    """`trust.json` → `..data/trust.json`, where `..data` is exchanged as one act."""

    def __init__(self, home: Path) -> None:
        self.home, self.path, self._count = home, home / "trust.json", 0
        self.write(FIRST.to_json())
        self.path.symlink_to("..data/trust.json")

    def write(self, content: bytes | None) -> None:
        self._count += 1
        made = self.home / f"..{self._count}"
        made.mkdir()
        if content is not None:
            (made / "trust.json").write_bytes(content)
        (self.home / "..new").symlink_to(made.name)
        (self.home / "..new").replace(self.home / "..data")


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path)


def test_a_changed_policy_is_taken_once(volume: Volume) -> None:
    trust = TrustFile(volume.path)
    assert not trust.refresh()
    volume.write(SECOND.to_json())
    assert [trust.refresh(), trust.refresh()] == [True, False]
    assert trust.policy == SECOND


@pytest.mark.parametrize("content", [b"{", b'{"threshold": 2, "keys": {}}', None], ids=["torn", "no-keys", "missing"])
def test_a_policy_that_cannot_be_used_leaves_the_one_before(volume: Volume, content: bytes | None) -> None:
    trust = TrustFile(volume.path)
    volume.write(content)
    assert not trust.refresh()
    assert trust.policy == FIRST
    volume.write(SECOND.to_json())
    assert trust.refresh()


def test_there_is_no_start_without_a_policy(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        TrustFile(tmp_path / "trust.json")


def test_the_watch_reads_at_once_and_again_and_tells_of_each_change(volume: Volume) -> None:
    async def test() -> None:
        trust, told = TrustFile(volume.path), list[TrustPolicy]()
        volume.write(SECOND.to_json())
        watching = asyncio.create_task(trust.watch(0, lambda: told.append(trust.policy)))
        await until(lambda: told == [SECOND], "the first change")
        volume.write(FIRST.to_json())
        await until(lambda: told == [SECOND, FIRST], "the second change")
        watching.cancel()

    running(test)
