"""`modelparams audit`: logs as files, whatever is in them."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.audit_log import Log
from builders.objects import rollout, version
from modelparams.errors import UsageError
from modelparams_operator.audit.events import read
from modelparams_operator.audit.gaps import Gap, Kind
from modelparams_operator.audit.gathering import gather
from modelparams_operator.audit.reading import LINE_MAX, entries
from modelparams_operator.audit.shelf import Shelf


@pytest.fixture
def log() -> Log:
    made = Log()
    for number in ("1.0.0", "1.1.0", "1.2.0"):
        made.put("carol", version(number))
    return made


def gathered(*files: Path) -> tuple[int, list[Gap]]:
    """How many events, and what could not be read."""
    with Shelf() as shelf:
        gaps = gather([str(file) for file in files], shelf)
        return shelf.count, gaps


def test_a_zipped_log_is_known_by_its_bytes_whatever_its_name(log: Log, tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    file.write_bytes(gzip.compress(log.text().encode()))
    assert gathered(file) == (4, [])


def test_a_last_line_that_is_being_written_is_no_gap(log: Log, tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    file.write_text(log.text()[:-20])
    assert gathered(file) == (3, [])


def test_a_last_line_without_an_end_is_read_if_it_is_whole(log: Log, tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    file.write_text(log.text()[:-1])
    assert gathered(file) == (4, [])


def test_a_line_that_was_cut_in_the_middle_is_a_gap_between_its_neighbours(log: Log, tmp_path: Path) -> None:
    lines = log.text().splitlines(keepends=True)
    file = tmp_path / "audit.log"
    file.write_text(lines[0] + lines[1][:50] + lines[2] + lines[3])  # as by a disk that was full for a moment
    count, (gap,) = gathered(file)
    assert (count, gap.kind) == (2, Kind.UNREADABLE)
    assert gap.message == f"{file}, line 2: is no JSON"
    assert gap.since is not None
    assert gap.until is not None
    assert (gap.until - gap.since).total_seconds() == 3


def test_a_zipped_log_that_was_cut_is_a_gap(log: Log, tmp_path: Path) -> None:
    file = tmp_path / "audit.log.gz"
    file.write_bytes(gzip.compress(log.text().encode())[:-30])
    _, (gap,) = gathered(file)
    assert gap.message.endswith("cannot be unzipped: the file is damaged or cut short")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("what is this", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ('{"a": ' + "9" * 5000 + "}", "is no JSON"),
        ("[]", "is no audit event"),
        ('"text"', "is no audit event"),
        ('{"kind": "Event", "apiVersion": "v1"}', "is no event of audit.k8s.io"),
        ('{"kind": "Event", "apiVersion": "audit.k8s.io/v1", "verb": "get"}', "says no time"),
        ('{"kind": "Event", "apiVersion": "audit.k8s.io/v1", "stageTimestamp": "2026-11-28T06:00:00"}', "says no time"),
        (
            '{"kind": "Event", "apiVersion": "audit.k8s.io/v1", "stageTimestamp": "0001-01-01T00:00:00+14:00"}',
            "no time",
        ),
    ],
)
def test_a_line_that_is_no_event_is_a_gap_that_says_why(log: Log, tmp_path: Path, line: str, fault: str) -> None:
    file = tmp_path / "audit.log"
    file.write_text(log.text() + line + "\n" + log.text() + line + "\n")
    _, (gap,) = gathered(file)
    assert gap.message.endswith(fault)
    assert "line 5 and 1 more" in gap.message


@pytest.mark.parametrize(
    "change",
    [
        {"user": "root"},
        {"user": {"username": "\ud800"}},
        {"stage": 7},
        {"responseStatus": {"code": "x"}},
        {"responseObject": {"metadata": {"generation": "x"}}},
        {"requestReceivedTimestamp": "yesterday"},
    ],
    ids=str,
)
def test_an_event_about_us_that_no_api_server_writes_is_a_gap(log: Log, tmp_path: Path, change: object) -> None:
    log.events[1] |= change  # type: ignore[operator]  # dictionaries, each
    _, (gap,) = gathered(log.write(tmp_path / "audit.log"))
    assert "is no event that an API server writes" in gap.message


def test_a_line_of_50_mb_is_passed_over_and_never_held(log: Log) -> None:
    class Endless(io.RawIOBase):
        """50 MB without a line's end, then a log."""

        def __init__(self) -> None:
            self._left, self._rest = 50 << 20, io.BytesIO(b"\n" + log.text().encode())

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            if not self._left:
                return self._rest.readinto(buffer)
            size = min(len(buffer), self._left)
            buffer[:size] = b"x" * size
            self._left -= size
            return size

    tracemalloc.start()
    try:
        found = list(entries(io.BufferedReader(Endless())))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [entry.fault for entry in found] == ["is longer than 16 MiB", "", "", "", ""]
    assert most < 3 * LINE_MAX


def test_a_list_of_events_as_a_webhook_gets_them_is_read(log: Log, tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    bare = [{k: v for k, v in event.items() if k not in ("kind", "apiVersion")} for event in log.events]
    file.write_text(json.dumps({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": bare}) + "\n\n")
    assert gathered(file) == (4, [])


def test_logs_of_several_servers_are_one(tmp_path: Path) -> None:
    log = Log()
    log.put("dave", rollout())
    for paused in (True, None, True):
        log.put("dave", rollout(), paused=paused)
    parts = [Log(), Log()]
    parts[0].events, parts[1].events = log.events[::2], log.events[1::2] + log.events[:2]
    files = [part.write(tmp_path / f"{index}.log") for index, part in enumerate(parts)]
    with Shelf() as shelf:
        assert gather([str(file) for file in files], shelf) == []
        assert len(list(shelf.stored())) == 4


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing.log cannot be read \(No such file"):
        gathered(tmp_path / "missing.log")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = ("user", "objectRef", "responseStatus", "requestObject", "responseObject", "annotations", "requestURI", "stage")


@given(st.dictionaries(st.sampled_from(KEYS), JSON), JSON)
def test_whatever_stands_in_an_event_it_is_read_or_refused(changes: dict[str, object], other: object) -> None:
    log = Log()
    event = log.put("dave", rollout())
    for document in ({**event, **changes}, other):
        try:
            with Shelf() as shelf:
                shelf.put(read(document))
        except ValueError:
            pass
