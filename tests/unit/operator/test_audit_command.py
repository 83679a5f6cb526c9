"""`modelparams audit`: what it prints, what it leaves out, how it exits."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from builders.audit_log import OPERATOR, Log
from builders.objects import digest, rollout, version
from modelparams.cli.exits import TABLE
from modelparams.errors import UsageError
from modelparams_operator.audit.commands import Outcome, audit
from modelparams_operator.audit.moments import moment

ROLLOUTS = "modelparamrollouts"
APP = typer.Typer()
APP.command()(audit)


@pytest.fixture
def log() -> Log:
    """Two models; the pod of one of them; somebody who was denied."""
    made = Log()
    made.beat()
    made.put("carol", version("1.0.0"))
    made.put("dave", rollout())
    made.put("mo", version("1.0.0", model="other"))
    made.put("mo", rollout("other", model="other"))
    made.order("1.0.0")
    made.live("1.0.0")
    made.refuse("mallory", ROLLOUTS, "smollm2", "policy denied request: no right\x1b[2J")
    made.refuse("eve", ROLLOUTS, "other", "no right at all")
    made.refuse("eve", "modelparamversions", "other-1.0.0", "no right at all", verb="delete")
    made.beat()
    return made


@pytest.fixture
def file(log: Log, tmp_path: Path) -> str:
    return str(log.write(tmp_path / "audit.log"))


def asked(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(APP, [*arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def told(*arguments: str) -> Any:
    return json.loads(asked(*arguments, "-o", "json")[1])


def test_a_table_says_who_let_a_pod_serve_what(file: str) -> None:
    code, text = asked(file)
    assert code == Outcome.WHOLE
    for words in ("web-0", "smollm2-1.0.0", digest("smollm2-1.0.0"), "carol", "dave", "the log's end", "mallory"):
        assert words in text
    assert "12 events from 2026-11-28 06:00:01Z to 2026-11-28 06:00:14Z; no gap was found" in text


def test_what_stands_in_a_log_steers_no_terminal(file: str) -> None:
    assert "\x1b" not in asked(file)[1]
    assert r"no right\u001b[2J" in asked(file, "--denied")[1]


def test_json_has_all_of_it(file: str) -> None:
    found = told(file)
    assert set(found) == {"log", "served", "acts", "denied", "gaps", "notes"}
    (served,) = found["served"]
    assert (served["pod"], served["podUID"], served["digest"]) == ("web-0", "p0", digest("smollm2-1.0.0"))
    assert (served["since"], served["sinceIsKnown"], served["until"]) == ("2026-11-28T06:00:09Z", True, None)
    assert served["order"] == {"at": "2026-11-28T06:00:08Z", "by": {"name": OPERATOR}, "term": 1}
    assert (served["published"]["who"]["name"], served["released"]["who"]["name"]) == ("carol", "dave")
    assert found["log"]["events"] == 12


def test_a_gap_is_told_and_a_pipeline_sees_it(log: Log, tmp_path: Path) -> None:
    for paused in (True, None, True):
        log.put("dave", rollout(), paused=paused)
    del log.events[-2]
    code, text = asked(str(log.write(tmp_path / "audit.log")))
    assert code == Outcome.GAP == 12
    assert "1 write to its spec is not in the log" in text
    assert "1 gap: what is told may not be all" in text
    assert "12 audit's: the log has a gap" in TABLE


def test_only_what_was_denied(file: str) -> None:
    found = told(file, "--denied")
    assert set(found) == {"log", "denied", "gaps", "notes"}
    assert [one["who"]["name"] for one in found["denied"]] == ["mallory", "eve", "eve"]
    assert "carol" not in asked(file, "--denied")[1]


@pytest.mark.parametrize(
    ("options", "pods", "actors", "denied"),
    [
        ((), ["web-0"], ["carol", "dave", "mo"], ["mallory", "eve", "eve"]),
        (("--namespace", "serving"), ["web-0"], ["carol", "dave", "mo"], ["mallory", "eve", "eve"]),
        (("-n", "elsewhere"), [], [], []),
        (("--model", "smollm2"), ["web-0"], ["carol", "dave"], ["mallory", "eve"]),
        (("-m", "other"), [], ["mo"], ["mallory", "eve", "eve"]),
        (("--rollout", "smollm2"), ["web-0"], ["carol", "dave"], ["mallory"]),
        (("--pod", "web-0"), ["web-0"], ["carol", "dave"], ["mallory"]),
        (("--pod", "web-1"), [], [], []),
        (("--until", "2026-11-28T06:00:05Z"), [], ["carol", "dave"], []),
        (("--since", "2026-11-28T06:00:11Z"), ["web-0"], [], ["eve", "eve"]),
    ],
    ids=str,
)
def test_the_part_that_was_asked_for(
    file: str, options: tuple[str, ...], pods: list[str], actors: list[str], denied: list[str]
) -> None:
    """A refused request that has no body names no model: it is left out only where its name tells."""
    found = told(file, *options)
    assert [one["pod"] for one in found["served"]] == pods
    assert sorted({one["who"]["name"] for one in found["acts"]}) == actors
    assert [one["who"]["name"] for one in found["denied"]] == denied


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--since", "2026-11-27"), "the log begins later than asked for"),
        (("--since", "9999w"), "the log begins later than asked for"),
        (("--until", "2026-11-28T06:30:00Z"), "the log ends earlier than asked for"),
    ],
)
def test_a_time_that_the_log_does_not_cover_is_a_gap(file: str, option: tuple[str, str], message: str) -> None:
    code, _ = asked(file, *option)
    assert code == Outcome.GAP
    assert message in [gap["message"] for gap in told(file, *option)["gaps"]]


def test_what_is_still_to_come_is_no_gap(file: str) -> None:
    assert asked(file, "--since", "2026-11-28T06:00:00Z")[0] == Outcome.WHOLE


NOW = datetime(2026, 11, 28, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("90m", "2026-11-28T04:30:00+00:00"),
        ("7d", "2026-11-21T06:00:00+00:00"),
        ("2026-11-28", "2026-11-28T00:00:00+00:00"),
        ("2026-11-28T07:00:00+02:00", "2026-11-28T05:00:00+00:00"),
    ],
)
def test_a_moment_is_read_as_people_write_it(text: str, found: str) -> None:
    assert moment(text, NOW, "--since") == datetime.fromisoformat(found)


@pytest.mark.parametrize("text", ["yesterday", "-5m", "999999999w", "5", "2026-13-01"])
def test_what_is_no_moment_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="is no time") as refused:
        moment(text, NOW, "--since")
    assert "24h" in refused.value.next_step


@pytest.mark.parametrize("text", ["", '{"level": "info"}\n'])
def test_a_file_without_any_event_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "audit.log"
    file.write_text(text)
    with pytest.raises(UsageError, match="there is no audit event in"):
        asked(str(file))


def test_a_pipe_is_read(log: Log) -> None:
    run = "import typer; from modelparams_operator.audit.commands import audit; typer.run(audit)"
    command = [sys.executable, "-c", run, "-", "--output", "json"]
    done = subprocess.run(command, input=log.text(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["log"]["events"] == 12
