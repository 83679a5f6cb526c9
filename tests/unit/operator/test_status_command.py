"""`modelparams status`: what it makes of objects, what it prints, how it exits."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
from collections.abc import Iterable
from typing import Any

import pytest
from rich.console import Console

from builders import objects
from builders.objects import Object, digest
from modelparams.cli.output import console
from modelparams.errors import APIDenied, APIUnavailable
from modelparams_operator.cli import Output, screen_of
from modelparams_operator.status.follow import follow
from modelparams_operator.status.overview import Outcome, Overview, overview
from modelparams_operator.status.screens import JsonLines, LiveTables, Tables
from modelparams_operator.status.tables import render

NOW = "2026-11-24T12:00:00Z"


def reported(subject: Object, *told: tuple[str, str, str], generation: int = 1, **status: Any) -> Object:
    """The object as the API server has it, with conditions (type, status, reason)."""
    conditions = [
        {"type": kind, "status": value, "reason": reason, "message": f"about {reason}", "lastTransitionTime": NOW}
        for kind, value, reason in told
    ]
    metadata = subject["metadata"] | {"namespace": "serving", "generation": generation}
    return subject | {"metadata": metadata, "status": {"observedGeneration": 1, "conditions": conditions, **status}}


def rollout(*told: tuple[str, str, str], live: str = "1.0.0", target: str = "1.0.0", **more: Any) -> Object:
    pods = {"total": 4, "updated": 1, "summary": "1/4"}
    releases = {"live": objects.release(live), "target": objects.release(target)}
    return reported(objects.rollout(), *told, **{"pods": pods, "step": "1/3", **releases, **more})


def version(number: str, *told: tuple[str, str, str], **more: Any) -> Object:
    return reported(objects.version(number), *told, **more)


def pod(name: str, state: str, *, uid: str = "u", **status: Any) -> Object:
    spec = {"rolloutName": "smollm2", "podUID": uid}
    answer = {"observedGeneration": 1, "podUID": "u", "state": state, **status}
    return {"metadata": {"name": name, "namespace": "serving"}, "spec": spec, "status": answer}


READY, LIVE = ("Ready", "True", "Promoted"), ("Ready", "True", "Live")
SWAPPING = [("Ready", "Unknown", "Swapping"), ("Reconciling", "True", "Swapping")]
STALLED = [("Ready", "False", "SealBroken"), ("Stalled", "True", "SealBroken")]
RETRIED = [("Ready", "False", "SourceUnavailable"), ("Reconciling", "True", "SourceUnavailable")]


@pytest.mark.parametrize(
    ("rollouts", "versions", "outcome"),
    [
        ([], [], Outcome.READY),
        ([rollout(READY)], [version("1.0.0", LIVE)], Outcome.READY),
        ([rollout(*SWAPPING)], [version("1.0.0", LIVE)], Outcome.MOVING),
        ([rollout(*RETRIED)], [], Outcome.MOVING),
        ([rollout(*STALLED)], [], Outcome.FAILED),
        ([rollout(*SWAPPING), rollout(*STALLED)], [], Outcome.FAILED),
        ([rollout(("Ready", "False", "PinnedVersionMissing"))], [], Outcome.FAILED),
        ([rollout(("Ready", "Unknown", "Suspended"))], [], Outcome.MOVING),
        ([rollout(READY, generation=2)], [], Outcome.MOVING),
        ([rollout(READY)], [objects.version("1.1.0") | {"status": {"observedGeneration": -1}}], Outcome.MOVING),
        ([], [version("1.0.0", *SWAPPING)], Outcome.MOVING),
        ([rollout(READY, live="1.0.0")], [version("1.1.0", *STALLED)], Outcome.FAILED),
        ([rollout(READY, live="1.1.0")], [version("1.0.0", *STALLED)], Outcome.READY),
        ([], [version("1.0.0", *STALLED)], Outcome.FAILED),
        ([rollout(*SWAPPING, live="1.0.0", target="1.2.0")], [version("1.1.0", *STALLED)], Outcome.MOVING),
    ],
    ids=[
        "nothing there",
        "all serve it",
        "pods swap",
        "trouble that is tried again",
        "a person is needed",
        "the worst of two counts",
        "nothing to wait for and not ready",
        "frozen",
        "an edit that the operator has not seen",
        "a version that the operator has not seen",
        "a version on its way before its rollout is",
        "a failed version above what is live",
        "a failed version below what is live is history",
        "a failed first version",
        "a failed version below what is on its way",
    ],
)
def test_the_outcome_is_what_a_pipeline_needs(rollouts: list[Object], versions: list[Object], outcome: Outcome) -> None:
    assert overview(rollouts, versions, []).outcome is outcome


def test_exit_codes_are_fixed() -> None:
    assert {outcome.name: outcome.value for outcome in Outcome} == {"READY": 0, "MOVING": 10, "FAILED": 11}


def test_one_model_is_shown_without_the_others_pods() -> None:
    other = objects.rollout("other", model="llama") | {"status": {}}
    stray = {**pod("stray", "Live"), "spec": {"rolloutName": "other", "podUID": "u"}}
    found = overview(
        [rollout(READY), other], [objects.version(model="llama")], [pod("web-0", "Live"), stray], "smollm2"
    )
    assert [row.name for row in found.rollouts] == ["smollm2"]
    assert found.versions == ()
    assert [row.name for row in found.pods] == ["web-0"]


def test_versions_are_in_the_order_of_their_numbers() -> None:
    found = overview([], [version(n) for n in ("1.10.0", "1.9.0", "1.10.0-rc.1")], [])
    assert [row.version for row in found.versions] == ["1.9.0", "1.10.0-rc.1", "1.10.0"]


def test_an_answer_of_a_namesake_of_the_pod_is_none() -> None:
    (row,) = overview([rollout(READY)], [], [pod("web-0", "Live", uid="another")]).pods
    assert str(row.state) == "Waiting"


@pytest.mark.parametrize("time", ["0000-01-01T00:00:00Z", "2030-01-01T00:00:00+99:99", "9999-12-31T23:59:59-23:00"])
def test_an_answer_that_cannot_be_used_is_told_of_and_hides_no_other(time: str) -> None:
    found = overview([rollout(READY)], [], [pod("web-0", "Live", swappedAt=time), pod("web-1", "Live")])
    assert [str(row.state) for row in found.pods] == ["Waiting", "Live"]
    assert "web-0: its answer cannot be used: AssignmentStatus is invalid: swappedAt" in printed(found)


def test_a_pod_that_holds_the_next_version_already_shows_it() -> None:
    live, following = (
        {"versionName": f"smollm2-{number}", "version": number, "manifestDigest": digest(f"smollm2-{number}")}
        for number in ("1.1.0", "1.2.0")
    )
    found = overview([rollout(READY)], [], [pod("web-0", "Live", live=live, staged=[live, following])])
    assert found.pods[0].beside == ("1.2.0",)
    (line,) = (line for line in printed(found).splitlines() if line.startswith("web-0"))
    assert line.split() == ["web-0", "1.1.0", "1.2.0", "Live"]


def scene() -> Overview:
    held = {"versionName": "smollm2-1.1.0", "version": "1.1.0", "manifestDigest": digest("smollm2-1.1.0")}
    failure = {**held, "reason": "SealBroken", "message": "[red]blob 3[/red] is bad", "time": NOW}
    answers = [
        pod("web-0", "Live", live=held, pauseMicroseconds=41),
        pod("web-1", "Staging", progress="61%"),
        pod("web-2", "Failed", lastFailure=failure),
    ]
    return overview([rollout(*SWAPPING, target="1.1.0")], [version("1.1.0", *SWAPPING)], answers)


def printed(found: Overview, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(render(found, **{"namespaces": False, "pods": 20, **options}))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_tables_show_what_moves_and_what_failed() -> None:
    text = printed(scene())
    for words in ("1.0.0", "1.1.0", "1/3", "1/4", "Swapping", "Staging 61%", "41", "SealBroken"):
        assert words in text


def test_words_of_others_are_printed_as_they_are() -> None:
    assert "[red]blob 3[/red] is bad" in printed(scene())


def test_words_of_others_move_no_cursor_and_hide_nothing() -> None:
    hostile = "bad\x1b[2J\x1b]0;title\x07\r\nline\u202edne\x9b1A"
    failure = {"versionName": "a-1.0.0", "manifestDigest": digest("a"), "reason": "SealBroken", "time": NOW}
    answer = pod("web-0", "Failed", progress="\x1b[A", lastFailure={**failure, "message": hostile})
    text = printed(overview([rollout(READY)], [], [answer]))
    assert r"bad\u001b[2J\u001b]0;title\u0007 line\u202edne\u009b1A" in text
    assert [c for c in text if not c.isprintable() and c != "\n"] == []


def test_failed_pods_come_first_and_the_rest_is_counted() -> None:
    text = printed(scene(), pods=1)
    assert "web-2" in text
    assert "web-0" not in text
    assert "… and 2 more pods" in text


def test_the_namespace_is_shown_where_there_are_several() -> None:
    assert "serving" not in printed(scene())
    assert "serving" in printed(scene(), namespaces=True)


@pytest.mark.parametrize(("reason", "is_said"), [("NoPods", True), ("Promoted", False)])
def test_a_rollout_that_is_ready_of_no_pod_says_what_comes_next(reason: str, is_said: bool) -> None:
    text = printed(overview([rollout(("Ready", "True", reason))], [], []))
    assert (f"smollm2: about {reason}" in text) is is_said


def test_nothing_is_said_in_words() -> None:
    assert printed(overview([], [], [])).strip() == "no rollout and no version here"


def test_json_names_its_fields_as_kubernetes_would() -> None:
    found = json.loads(json.dumps(scene().wire()))
    assert found["outcome"] == "Moving"
    assert found["rollouts"][0]["pods"]["total"] == 4
    assert found["rollouts"][0]["outcome"] == "Moving"
    assert found["versions"][0]["verified"] is False
    assert found["pods"][0] == {
        "namespace": "serving",
        "name": "web-0",
        "rollout": "smollm2",
        "live": "1.1.0",
        "beside": [],
        "state": "Live",
        "progress": "",
        "pauseMicroseconds": 41,
        "failure": "",
        "message": "",
    }


class Answers:
    """A server that gives these answers, one a call; an error is raised."""

    def __init__(self, answers: Iterable[Overview | Exception]) -> None:
        self._answers = iter(answers)

    async def __call__(self) -> Overview:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


MOVING = overview([rollout(*SWAPPING)], [], [])
DONE = overview([rollout(READY)], [], [])


def watched(*answers: Overview | Exception, **options: Any) -> Overview:
    return asyncio.run(follow(Answers(answers), JsonLines(), every=0, **options))


def test_watching_ends_when_all_is_ready_and_prints_each_change_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert watched(MOVING, MOVING, MOVING, DONE) is DONE
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["outcome"] for line in lines] == ["Moving", "Ready"]


def test_watching_outlives_an_api_server_that_is_away_for_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    assert watched(MOVING, APIUnavailable("no answer"), DONE) is DONE
    told = capsys.readouterr()
    assert "no answer" in told.err
    assert "no answer" not in told.out


def test_watching_does_not_outlive_a_refusal() -> None:
    with pytest.raises(APIDenied):
        watched(MOVING, APIDenied("not yours"), DONE)


def test_watching_gives_up_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert watched(MOVING, MOVING, timeout=1e-6) is MOVING
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_without_watching_one_look_is_all(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(follow(Answers([MOVING]), Tables(pods=20, namespaces=False), watch=False))
    assert "Swapping" in capsys.readouterr().out


def test_a_message_keeps_its_words_whole_on_a_narrow_terminal() -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(render(scene(), namespaces=True, pods=20))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert "  smollm2: about Swapping" in [line.rstrip() for line in lines]
    assert "  web-2: [red]blob 3[/red] is bad" in [line.rstrip() for line in lines]


def drawn(width: int) -> list[str]:
    """The rows of a rollout with a long name."""
    moving = rollout(*SWAPPING, target="1.1.0-rc.10")
    moving["metadata"]["name"] = "a-rollout-with-a-long-name"
    console = Console(file=io.StringIO(), width=width)
    console.print(render(overview([moving], [], []), namespaces=False, pods=20))
    assert isinstance(console.file, io.StringIO)
    return [line for line in console.file.getvalue().splitlines()[2:] if not line.startswith("  ")]


@pytest.mark.parametrize("width", [80, 60])
def test_a_narrow_terminal_breaks_names_over_lines(width: int) -> None:
    rows = drawn(width)
    assert "".join(row.split("  ")[0].strip() for row in rows) == "a-rollout-with-a-long-name"
    assert " 1.1.0-rc.10 " in rows[0]


def test_of_what_a_very_narrow_terminal_cuts_one_sees_that_it_is() -> None:
    assert re.search(r" 1\.1\.0[^ ]*… ", drawn(40)[0])


def test_a_bar_says_how_far_it_is_without_colour() -> None:
    assert "━━········ 1/4" in printed(scene())


@pytest.mark.parametrize(("term", "kind"), [("xterm", LiveTables), ("dumb", Tables)])
def test_only_a_terminal_that_can_is_drawn_over(term: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stdout", terminal := io.StringIO())
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    assert type(screen_of(Output.TABLE, watch=True, pods=20, namespaces=False)) is kind


def test_what_is_no_terminal_is_not_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert console().width > 200
