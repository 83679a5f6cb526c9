"""The chapters of the demo, in order. Each ends only when what it tells has really happened."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from demo.report import Report
from demo.scene import MODEL, NotReached, Scene, eventually
from deployed.model import Model, condition
from deployed.serving import Start
from models import smollm2
from traffic.latency import percentile
from traffic.openloop import Answer, OpenLoop, ask
from traffic.rescore import Rescorer

_PROMPTS = (smollm2.PROMPT, "What is the capital of Germany?", "How many days are in a week?", "Who wrote Hamlet?")
_TOKENS, _RATE, _SHARE = 12, 3.0, 0.7
"""Of the load: tokens of an answer, requests a second over all pods at most, and how busy it may keep one processor. A
slow machine that is asked for more only shows its queue."""
_QUIET_SECONDS = 20.0
_LIVE_SECONDS, _VERDICT_SECONDS = 90.0, 60.0
_STEPS = [{"pods": 1, "pause": {"durationSeconds": 5}}, {"pods": "50%", "pause": {"durationSeconds": 3}}]

_Window = tuple[float, float]
"""Seconds of `time.monotonic`: answers that were due in it are its own."""


@dataclass
class Load:
    """The open-loop load in a thread of its own."""

    loop: OpenLoop
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=lambda: asyncio.run(self.loop.run()), name="load")
        self.thread.start()

    def end(self) -> list[Answer]:
        """Stop sending, wait for what is under way, and give all answers."""
        self.loop.stop()
        self.thread.join()
        return self.loop.answers


@dataclass
class Story:
    """Plays on a scene, tells on a console, and fills the report."""

    scene: Scene
    console: Console
    report: Report
    versions: dict[str, Path]
    _starts: dict[str, Start] = field(default_factory=dict)
    """Of the pods' containers, once the first version was live."""

    def play(self) -> None:
        """All chapters.

        Raises:
            NotReached: one did not come to its end.
        """
        self._first_version()
        load = Load(OpenLoop(self.scene.ready, _PROMPTS, self._rate(), _TOKENS))
        try:
            quiet = self._quiet(load)
            swapped = self._second_version()
            self._is_met(load, "1.1.0", swapped[0])
            self._tampered_version()
            back = self._way_back(load)
        finally:
            answers = load.end()
        self._judge(answers, quiet, swapped, back)

    # Chapters

    def _first_version(self) -> None:
        self._chapter("1.0.0 is applied, and live on all pods")
        self._apply("1.0.0")
        self.report.tier, self._starts = self.scene.tier, dict(self.scene.starts())
        self._show_objects()
        self._ask("1.0.0")

    def _quiet(self, load: Load) -> _Window:
        """At least so long, and until each pod may have answered: a slow machine has something to compare with too."""
        self._chapter(f"an open-loop load of streaming requests begins; {_QUIET_SECONDS:.0f} s without a swap")
        start = time.monotonic()
        time.sleep(_QUIET_SECONDS)
        self._is_met(load, "1.0.0", start)
        return start, time.monotonic()

    def _second_version(self) -> _Window:
        self._chapter("1.1.0, a fine-tune of the last two layers, rolls out pod by pod under the load")
        patch = json.dumps({"spec": {"strategy": {"steps": _STEPS}}})
        self._say_typed(f"patch mpr {MODEL}-default --type=merge -p '{patch}'")
        self.scene.kubectl("patch", "mpr", f"{MODEL}-default", "--type=merge", "-p", patch)
        start = time.monotonic()
        self._apply("1.1.0")
        end = time.monotonic()
        self._ask("1.1.0")
        self._show_objects()
        for name, order in self._model.orders().items():
            status = order["status"]
            self.report.pause_ms[name] = status["pauseMicroseconds"] / 1000
            self.report.bytes_moved[name] = status["fetchedBytes"]
        return start, end

    def _is_met(self, load: Load, version: str, since: float) -> None:
        """Until the load has an answer of it for each pod: the rest may be over before a slow load's next request."""
        eventually(
            f"answers of the load that name {version}",
            lambda: sum(a.version == version and a.due >= since for a in load.loop.answers) >= self.report.pods,
            seconds=_LIVE_SECONDS,
        )

    def _tampered_version(self) -> None:
        self._chapter("1.2.0 is tampered with in the bucket: it is refused before any pod is touched")
        self.scene.tamper()
        self._type_apply("1.2.0")
        eventually(
            "the refusal of 1.2.0", lambda: self._condition("1.2.0", "Stalled")[0] == "True", seconds=_VERDICT_SECONDS
        )
        self._show("get", "mpv")
        self._say_typed(f"describe mpv {MODEL}-1.2.0")
        self.console.print(self._conditions_as_described("1.2.0"))
        digest = self._model.version("1.2.0")["spec"]["manifestDigest"]
        if any(digest in str(order) for order in self._model.orders().values()):
            raise NotReached("a pod was given the tampered version")
        self.report.refused_reason = self._condition("1.2.0", "Ready")[1]

    def _way_back(self, load: Load) -> _Window:
        self._chapter("1.1.0 is deleted, as a Git revert would: all pods go back to 1.0.0")
        start = time.monotonic()
        self._say_typed(f"delete mpv {MODEL}-1.1.0")
        self._model.delete("1.1.0")
        self._wait_live("1.0.0")
        self.report.rollback_s = time.monotonic() - start
        self._ask("1.0.0")
        self._is_met(load, "1.0.0", start)
        end, starts = time.monotonic(), self.scene.starts()
        self.report.restarts = sum(count for count, _ in starts.values())
        self.report.same_containers = starts == self._starts
        return start, end

    def _judge(self, answers: list[Answer], quiet: _Window, swapped: _Window, back: _Window) -> None:
        self._chapter("every answer is rescored, token by token, by the version that it names, alone")
        good = [answer for answer in answers if not answer.error]
        self.console.print(f"{len(good)} answers are computed again, which takes some seconds")
        self.report.sent, self.report.failed = len(answers), len(answers) - len(good)
        self.report.answers_of = dict(Counter(answer.version for answer in good))
        for answer in answers:
            if answer.error:
                self.console.print(f"failed on {answer.pod}: {answer.error}")
        served = {version: path for version, path in self.versions.items() if version in self.report.apply_to_live_s}
        torn = Rescorer(served).torn(good)
        self.report.torn = len(torn)
        for answer in torn:
            self.console.print(f"torn: {answer}")
        before, during = _latencies_ms(good, quiet), _latencies_ms(good, swapped)
        self.report.worst_ms = max((1000 * answer.latency for answer in good), default=None)
        self.report.worst_ms_without_swap = max(before, default=None)
        self.report.worst_ms_with_swap = max(during, default=None)
        self.report.worst_ms_going_back = max(_latencies_ms(good, back), default=None)
        self.report.p99_ms_without_swap, self.report.answers_without_swap = _p99(before), len(before)
        self.report.p99_ms_with_swap, self.report.answers_with_swap = _p99(during), len(during)

    # What the chapters do again and again

    def _chapter(self, text: str) -> None:
        self.console.rule(f"[bold]{text}", align="left")

    def _apply(self, version: str) -> None:
        start = time.monotonic()
        self._type_apply(version)
        self._wait_live(version)
        self.report.apply_to_live_s[version] = time.monotonic() - start
        self.report.bytes_sealed[version] = self._model.version(version)["status"]["verified"]["sizeBytes"]

    def _wait_live(self, version: str) -> None:
        """Until all pods serve `version`; each change of a pod is told, with the step."""
        told: set[str] = set()

        def all_live() -> bool:
            lines = self._progress()
            for line in lines:
                if line not in told:
                    self.console.print(f"step {self._model.step() or '-':4} {line}")
            told.clear()
            told.update(lines)
            return list(self._model.live().values()) == [version] * self.report.pods and self._model.is_at_rest()

        eventually(f"{version} live on all pods", all_live, seconds=_LIVE_SECONDS, every=0.2)

    def _progress(self) -> list[str]:
        """Each pod's state, version, digest and last pause."""
        orders = self._model.orders().values()
        return [_pod_line(order, swaps=bool(self.report.apply_to_live_s)) for order in orders]

    def _rate(self) -> float:
        """Requests a second that this machine answers with time to spare, by how long one takes alone."""
        start = time.monotonic()
        self._answers(self.scene.ready()[:1], _TOKENS)
        seconds = time.monotonic() - start
        rate = min(_RATE, _SHARE / seconds)
        self.console.print(f"one answer takes {seconds:.1f} s, so the load is {rate:.2f} a second")
        return rate

    def _ask(self, version: str) -> None:
        """Ask every pod the same; all must answer with `version`, and alike."""
        pods = self.scene.ready()
        answers = self._answers(pods)
        for (name, _), answer in zip(pods, answers, strict=True):
            told = f"[bold]{smollm2.PROMPT}[/] → [green]{answer.text}[/]"
            self.console.print(f"{name}: {told} (says {answer.version})")
            if answer.version != version:
                raise NotReached(f"{name} answers with {answer.version}, not {version}")
        if len(pods) != self.report.pods:
            raise NotReached(f"{len(pods)} of {self.report.pods} pods are ready to be asked")
        self.report.answers[version] = answers[0].text

    @staticmethod
    def _answers(pods: Sequence[tuple[str, str]], tokens: int = 24) -> list[Answer]:
        async def all_at_once() -> list[Answer]:
            async with httpx.AsyncClient(timeout=60) as client:
                return await asyncio.gather(*(ask(client, url, smollm2.PROMPT, max_tokens=tokens) for _, url in pods))

        return asyncio.run(all_at_once())

    # Reading objects

    @cached_property
    def _model(self) -> Model:
        return Model(self.scene.kubectl, MODEL)

    def _show_objects(self) -> None:
        self._show("get", "pods,mpv,mpr,mpa")

    def _show(self, *words: str) -> None:
        self._say_typed(" ".join(words))
        self.console.print(self.scene.kubectl(*words))

    def _type_apply(self, version: str) -> None:
        file = self.scene.object_file(version)
        self._say_typed(f"apply -f {file.name}")
        self._model.apply(file)

    def _say_typed(self, words: str) -> None:
        self.console.print(f"$ kubectl {words}", style="bold", highlight=False)

    def _condition(self, version: str, kind: str) -> tuple[str, str, str]:
        return condition(self._model.version(version), kind)

    def _conditions_as_described(self, version: str) -> str:
        described = self.scene.kubectl("describe", "mpv", f"{MODEL}-{version}")
        return described[described.index("Status:") :]


def _pod_line(assignment: dict[str, Any], *, swaps: bool) -> str:
    status = assignment.get("status", {})
    live = status.get("live")
    serving = f"{live['version']} {live['manifestDigest'][7:15]}" if live else "nothing yet"
    pause = f" paused {status['pauseMicroseconds']} µs" if swaps and "pauseMicroseconds" in status else ""
    busy = f" ({status['state']} {status.get('progress', '')})".replace(" )", ")") if status.get("state") else ""
    return f"{assignment['metadata']['name']}: {serving}{busy}{pause}"


def _latencies_ms(answers: list[Answer], window: _Window) -> list[float]:
    return [1000 * answer.latency for answer in answers if window[0] <= answer.due <= window[1]]


def _p99(latencies: list[float]) -> float | None:
    return percentile(latencies, 0.99) if latencies else None
