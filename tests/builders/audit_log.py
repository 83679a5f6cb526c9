"""The audit log of an API server that is played: it counts resourceVersions and generations as a real one does.

log = Log(); log.put("carol", version("1.1.0")); log.put("alice", rollout(), approvals=[…]); log.text()
"""

from __future__ import annotations

import copy
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from builders import objects
from builders.objects import OPERATOR, Object, approval, assignment, digest, pod, release, rollout, version
from modelparams.cli.harmless import HarmlessConsole
from modelparams_operator.audit.events import read
from modelparams_operator.audit.shelf import Shelf
from modelparams_operator.audit.story import Story, tell
from modelparams_operator.audit.tables import render

BEGIN = datetime(2026, 11, 28, 6, 0, 0, tzinfo=UTC)
AGENT = "system:serviceaccount:serving:modelparams-agent"
COLLECTOR = "system:serviceaccount:kube-system:generic-garbage-collector"
ORDERS, ROLLOUTS, VERSIONS = "modelparamassignments", "modelparamrollouts", "modelparamversions"
APPROVED = [approval("1.1.0", "alice")]
NAMESPACE = "serving"


def clock(second: float) -> str:
    return (BEGIN + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Log:
    """Every second one request."""

    def __init__(self) -> None:
        self.events: list[Object] = []
        self.now = 0.0
        self._numbers = 100
        self._objects: dict[tuple[str, str], Object] = {}
        self.note()

    def note(self, **more: Any) -> Object:
        """Something that is not about us."""
        ref = {"resource": "pods", "namespace": "default", "name": "x", "apiVersion": "v1"}
        return self._log("kubelet", "get", "/api/v1/namespaces/default/pods/x", ref, 200, **more)

    def put(self, who: str, subject: Object, **spec: Any) -> Object:
        """Create an object, or change fields of its spec (None takes one away); gives it as stored."""
        plural = f"{subject['kind'].lower()}s"
        key = (plural, subject["metadata"]["name"])
        before = self._objects.get(key)
        after = copy.deepcopy(before or subject)
        after["spec"] = {k: v for k, v in {**after["spec"], **spec}.items() if v is not None}
        if before is None:
            after["metadata"] |= {"namespace": NAMESPACE, "uid": f"u{self._numbers}", "generation": 1}
            after["metadata"]["creationTimestamp"] = clock(int(self.now + 1))[:19] + "Z"
            after["status"] = {"observedGeneration": -1}
        elif after["spec"] != before["spec"]:
            after["metadata"]["generation"] += 1
        return self._store(who, key, after, 201 if before is None else 200, asked={"spec": spec})

    def report(
        self, who: str, plural: str, name: str, *, compare: bool = True, extra: Any = None, **status: Any
    ) -> Object:
        """Replace a status, as the operator (comparing the resourceVersion) and agents (without) do."""
        before = self._objects[plural, name]
        after = {**copy.deepcopy(before), "status": {"observedGeneration": before["metadata"]["generation"], **status}}
        path = {"op": "replace", "path": "/metadata/resourceVersion", "value": before["metadata"]["resourceVersion"]}
        asked = [path, {"op": "add", "path": "/status", "value": status}] if compare else {"status": status}
        return self._store(who, (plural, name), after, 200, asked=asked, subresource="status", extra=extra or {})

    def delete(self, who: str, plural: str, name: str) -> Object:
        gone = self._objects.pop((plural, name))
        details = {"name": name, "group": "modelparams.dev", "kind": plural, "uid": gone["metadata"]["uid"]}
        return self._request(who, "delete", plural, name, 200, given={"kind": "Status", "details": details})

    def refuse(self, who: str, plural: str, name: str, message: str, *, verb: str = "patch", **more: Any) -> Object:
        return self._request(who, verb, plural, name, more.pop("code", 403), message=message, **more)

    # What happens in a cluster, in words.

    def order(self, number: str, name: str = "web-0", uid: str = "p0") -> Object:
        """The operator tells a pod to serve a version."""
        body = assignment(pod(name, uid), releases=[release(number)])
        return self.put(OPERATOR, body, **{k: body["spec"][k] for k in ("releases", "activate", "podUID")})

    def live(self, number: str | None, name: str = "web-0", uid: str = "p0", **status: Any) -> Object:
        """The pod says what it serves."""
        token = {"authentication.kubernetes.io/pod-name": [name], "authentication.kubernetes.io/pod-uid": [uid]}
        held = {"live": held_release(number)} if number else {}
        extra = status.pop("extra", token)
        said = {"podUID": uid, **held, **status}
        return self.report(AGENT, "modelparamassignments", name, compare=False, extra=extra, **said)

    def beat(self, *, holder: str = "operator-0", term: int = 1, after: float = 2) -> Object:
        self.now += after - 1
        ref = {"resource": "leases", "namespace": "modelparams-system", "name": "modelparams-operator"}
        ref["apiGroup"] = "coordination.k8s.io"
        spec = {"holderIdentity": holder, "leaseTransitions": term, "leaseDurationSeconds": 15}
        uri = "/apis/coordination.k8s.io/v1/namespaces/modelparams-system/leases/modelparams-operator"
        more = {"requestObject": {"spec": spec}, "userAgent": "modelparams-operator"}
        return self._log(OPERATOR, "update", uri, ref, 200, **more)

    # As files and as stories.

    def text(self) -> str:
        return "".join(json.dumps(event) + "\n" for event in self.events)

    def write(self, path: Path) -> Path:
        path.write_text(self.text())
        return path

    def story(self) -> Story:
        return story_of(self.events)

    def _store(self, who: str, key: tuple[str, str], after: Object, code: int, *, asked: Any, **more: Any) -> Object:
        before = self._objects.get(key)
        if before is None or (after["spec"], after.get("status")) != (before["spec"], before.get("status")):
            self._numbers += 1
            after["metadata"]["resourceVersion"] = str(self._numbers)
        self._objects[key] = after
        given = copy.deepcopy(after)
        return self._request(who, "create" if code == 201 else "patch", *key, code, asked=asked, given=given, **more)

    def _request(
        self,
        who: str,
        verb: str,
        plural: str,
        name: str,
        code: int,
        *,
        query: str = "",
        asked: Any = None,
        given: Any = None,
        subresource: str = "",
        message: str = "",
        **more: Any,
    ) -> Object:
        ref = {"resource": plural, "namespace": NAMESPACE, "name": name, "apiGroup": "modelparams.dev"}
        ref |= {"subresource": subresource} if subresource else {}
        uri = objects.path(plural, NAMESPACE, name, subresource) + query
        bodies = {"requestObject": asked, "responseObject": given}
        more |= {key: body for key, body in bodies.items() if body is not None}
        return self._log(who, verb, uri, ref, code, message=message, **more)

    def _log(
        self,
        who: str,
        verb: str,
        uri: str,
        ref: Object,
        code: int,
        *,
        message: str = "",
        extra: Any = None,
        **more: Any,
    ) -> Object:
        self.now += 1
        event = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "RequestResponse",
            "auditID": f"id-{len(self.events)}",
            "stage": "ResponseComplete",
            "requestURI": uri,
            "verb": verb,
            "user": {"username": who, "extra": extra or {}},
            "objectRef": ref,
            "responseStatus": {"code": code, "message": message},
            "requestReceivedTimestamp": clock(self.now),
            "stageTimestamp": clock(self.now + 0.01),
            **more,
        }
        self.events.append(event)
        return event


def held_release(number: str, **more: Any) -> Object:
    whole = release(number)
    return {"versionName": whole["versionName"], "version": number, "manifestDigest": whole["manifestDigest"], **more}


def story_of(events: list[Object]) -> Story:
    with Shelf() as shelf:
        for event in events:
            shelf.put(read(event))
        return tell(shelf)


def target(number: str) -> Object:
    return version(number)["spec"] | {"versionName": f"smollm2-{number}"}


def released(log: Log) -> None:
    """1.0.0 is live on a pod."""
    log.put("carol", version("1.0.0"))
    log.put("dave", rollout())
    log.report(OPERATOR, ROLLOUTS, "smollm2", target=target("1.0.0"))
    log.order("1.0.0")
    log.live("1.0.0")


def followed_by(log: Log, number: str = "1.1.0") -> None:
    """Another version comes, is approved, and goes live."""
    log.put("carol", version(number))
    log.report(OPERATOR, ROLLOUTS, "smollm2", target=target(number))
    log.put("alice", rollout(), approvals=APPROVED)
    log.order(number)
    log.live(number)


def played() -> Log:
    """What docs/audit.md shows: two versions, somebody who was denied, and the pod's end."""
    log = Log()
    log.beat()
    released(log)
    log.beat()
    tried = f"mallory approves smollm2-1.1.0 {digest('smollm2-1.1.0')} through step 1"
    notes = {"modelparams-people-let-versions-pass/approved": tried}
    words = "denied request: approvedBy must be your own user name: write mallory"
    log.refuse("mallory", ROLLOUTS, "smollm2", words, annotations=notes)
    followed_by(log)
    log.delete(COLLECTOR, ORDERS, "web-0")
    log.beat()
    return log


def shown(story: Story) -> str:
    """As a terminal of 140 columns has it."""
    where = HarmlessConsole(file=io.StringIO(), width=140, emoji=False, highlight=False)
    where.print(render(story))
    return "\n".join(line.rstrip() for line in where.file.getvalue().splitlines())  # type: ignore[attr-defined]
