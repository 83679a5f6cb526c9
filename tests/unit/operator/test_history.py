"""What `modelparams history` shows of a rollout's past."""

from __future__ import annotations

import io
import json

from rich.console import Console

from builders.rollouts import NOW, digest, revision, status
from modelparams.api.rollout import RolloutStatus
from modelparams_operator.status import history

PAST = (
    revision("1.2.0", "Failed"),
    revision("1.1.0").model_copy(update={"approved_by": ("alice@example.com", "bob"), "expedited": True}),
)


def shown(memory: RolloutStatus) -> str:
    said = io.StringIO()
    Console(file=said, width=200).print(history.table(memory))
    return said.getvalue()


def test_each_version_is_told_with_its_outcome_its_times_and_who_approved_it() -> None:
    failed, promoted = history.rows(status("1.1.0", history=PAST))
    at = "2026-11-24 12:00:00Z"
    assert failed == ("chat-1.2.0", "Failed", at, at, "", digest("1.2.0").short)
    assert promoted[1:] == ("Promoted, expedited", at, at, "alice@example.com, bob", digest("1.1.0").short)


def test_what_is_under_way_comes_first() -> None:
    under_way, *_ = history.rows(status("1.1.0", "1.3.0", started_at=NOW, step="1/3", history=PAST))
    assert under_way[:4] == ("chat-1.3.0", "step 1/3", "2026-11-24 12:00:00Z", "")


def test_a_rollout_without_a_past_says_so() -> None:
    assert shown(status()) == "nothing was rolled out yet\n"


def test_names_of_people_steer_no_terminal() -> None:
    by = ("eve\x1b]0;owned\x07", "[red]mallory")
    said = shown(status("1.1.0", history=(PAST[1].model_copy(update={"approved_by": by}),)))
    assert "\x1b" not in said
    assert "[red]mallory" in said


def test_json_has_the_fields_of_the_status() -> None:
    newest, _ = json.loads(json.dumps(history.wire(status("1.1.0", history=PAST))))
    assert (newest["versionName"], newest["outcome"]) == ("chat-1.2.0", "Failed")
    assert newest["manifestDigest"] == digest("1.2.0")
