"""A live version, then a bad one: what its user reads, that no pod hears of it, and how a good one follows."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from builders.operator_stage import Object, Stage
from builders.releases import SAMPLES, Releases
from cluster.kubectl import Kubectl
from cluster.s3 import Versitygw
from modelparams.digest import Digest
from modelparams.manifest import BlobEntry, ModelId, sign
from modelparams.names import ModelName
from modelparams.reasons import Reason
from modelparams.trust import SigningKey

pytestmark = pytest.mark.integration

PODS = ("web-0", "web-1")
GOOD, BAD, NEXT = "1.0.0", "1.1.0", "1.2.0"
SAMPLE = {GOOD: "v1.0.0", BAD: "v1.1.0", NEXT: "v1.0.0"}
PLAIN = SAMPLES / "v1.1.0" / "model.safetensors"


@pytest.fixture
def releases(tmp_path: Path, s3: Versitygw, namespace: str) -> Releases:
    """A store for one test alone, and an operator that asks for two signatures."""
    return Releases(tmp_path, s3, s3.bucket(f"bad-{namespace}"), signatures=2)


# How each version is made bad. Given: all three are published. Returns what its object pins, if that is another digest.

Harm = Callable[[Releases], Digest | None]


def own_blob(releases: Releases, version: str = BAD) -> BlobEntry:
    """The largest blob that no other version has: a layer's."""
    others = {blob.sha256 for other in {GOOD, BAD, NEXT} - {version} for blob in releases.manifest(other).blobs}
    blobs = releases.manifest(version).tensor_blobs
    return max((blob for blob in blobs if blob.sha256 not in others), key=lambda blob: blob.size)


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def with_blob(change: Callable[[bytes], bytes]) -> Harm:
    """Change a stored blob."""

    def harm(releases: Releases) -> None:
        file = releases.blob_file(own_blob(releases))
        file.write_bytes(change(file.read_bytes()))

    return harm


def without_blob(releases: Releases) -> None:
    releases.blob_file(own_blob(releases)).unlink()


def with_swapped_blobs(releases: Releases) -> None:
    """Two layers of equal size, each where the other was."""
    one, other = (releases.blob_file(own_blob(releases, version)) for version in (BAD, GOOD))
    one_bytes, other_bytes = one.read_bytes(), other.read_bytes()
    assert len(one_bytes) == len(other_bytes)
    one.write_bytes(other_bytes)
    other.write_bytes(one_bytes)


def with_changed_manifest(releases: Releases) -> None:
    file = releases.manifest_file(BAD)
    file.write_bytes(flipped(file.read_bytes()))


def with_bad_signature(releases: Releases) -> Digest:
    """One of its two."""
    envelope = json.loads(releases.manifest_file(BAD).read_bytes())
    signature = envelope["signatures"][0]
    signature["sig"] = base64.b64encode(flipped(base64.b64decode(signature["sig"]))).decode()
    return releases.put_manifest(json.dumps(envelope).encode())


def signed_by(signers: Callable[[Releases], list[SigningKey]]) -> Harm:
    return lambda releases: releases.put_manifest(sign(releases.manifest(BAD), signers(releases)))


def of_another_model(releases: Releases) -> Digest:
    """Rightly signed, as that model's version."""
    manifest = releases.manifest(BAD)
    other = ModelId(uid=manifest.model.uid, name=ModelName("other-model"))
    return releases.put_manifest(sign(manifest.model_copy(update={"model": other}), releases.signers))


def unharmed(releases: Releases) -> None:
    """What is bad is when it was published."""


@dataclass(frozen=True)
class Case:
    """A bad version, and what is said of it: `what` happened to which thing, and what to `do`.

    In `what`, {blob} is the store's name of the harmed blob, {size} its signed size, {pinned} the object's digest.
    """

    harm: Harm
    reason: Reason
    what: str
    do: str
    verified: str = "False"
    beside: str = "Stalled"
    published: tuple[str, ...] = (GOOD, BAD, NEXT)


_AGAIN = (
    "Publish the directory under a new number with --no-reuse, which seals every blob anew; or restore the blob, then "
    "delete the refused ModelParamVersion and apply it again, or where pods refused it set another retryToken; "
    "nothing was applied."
)
_SIZE, _DIGEST = Reason.BLOB_SIZE_MISMATCH, Reason.BLOB_DIGEST_MISMATCH
_SHA256 = "sha256:[0-9a-f]{{64}}"

CASES = {
    "manifest digest mismatch": Case(
        with_changed_manifest,
        Reason.MANIFEST_DIGEST_MISMATCH,
        f"the manifest hashes to {_SHA256}, not to the pinned {{pinned}}",
        "Take manifestDigest from what 'modelparams publish' printed; if it is right, the store was changed: restore "
        "the manifest; either way delete the ModelParamVersion and apply it again.",
    ),
    "bad signature": Case(
        with_bad_signature,
        Reason.SIGNATURE_INVALID,
        "the signature of key [0-9a-f]{{12}}… does not verify",
        "Sign the manifest again with a trusted key; if it was right before, the store was changed.",
    ),
    "unknown key": Case(
        signed_by(lambda _: [SigningKey.generate(), SigningKey.generate()]),
        Reason.SIGNER_UNKNOWN,
        "the manifest is signed by keys [0-9a-f]{{12}}…, [0-9a-f]{{12}}…, "
        "trusted: keys [0-9a-f]{{12}}…, [0-9a-f]{{12}}…",
        "Sign with a trusted key, or add the signer to the trust policy.",
    ),
    "too few signatures": Case(
        signed_by(lambda releases: [releases.signers[0], SigningKey.generate()]),
        Reason.TOO_FEW_SIGNATURES,
        "the manifest is signed by 1 of the 2 trusted keys that it needs",
        "Publish with one --sign for each of the required keys.",
    ),
    "wrong model": Case(
        of_another_model,
        Reason.WRONG_MODEL,
        "the manifest is for model other-model, not tiny-llama",
        "Correct spec.modelName or spec.manifestDigest.",
    ),
    "lower sequence": Case(
        unharmed,
        Reason.SEQUENCE_TOO_LOW,
        "its sequence 1 is below 2",
        "publish it again to give it a higher one",
        verified="True",
        published=(BAD, GOOD, NEXT),
    ),
    "a blob missing": Case(
        without_blob,
        Reason.OBJECT_MISSING,
        "{blob} in s3:.* is not there",
        "Check bucket and prefix; restore it from the bucket's versions, or publish anew; it is tried again.",
        verified="Unknown",
        beside="Reconciling",
    ),
    "a blob cut": Case(with_blob(lambda data: data[:-1]), _SIZE, "{blob} .* at least {size} are expected", _AGAIN),
    "a blob longer": Case(with_blob(lambda data: data + b"\0"), _SIZE, "{blob} has [0-9]+ bytes, {size} are", _AGAIN),
    "a blob flipped": Case(with_blob(flipped), _DIGEST, f"{{blob}} hashes to {_SHA256}", _AGAIN),
    "a blob swapped with another": Case(with_swapped_blobs, _DIGEST, f"{{blob}} hashes to {_SHA256}", _AGAIN),
    "a blob replaced by plain safetensors": Case(
        with_blob(lambda _: PLAIN.read_bytes()), _SIZE, "{blob} has [0-9]+ bytes, {size} are", _AGAIN
    ),
    "a blob replaced by plain safetensors of its size": Case(
        with_blob(lambda data: PLAIN.read_bytes()[: len(data)]), _DIGEST, f"{{blob}} hashes to {_SHA256}", _AGAIN
    ),
}


def orders(stage: Stage) -> dict[str, Any]:
    """What each pod was told."""
    found = {name: stage.agents.order(name) for name in PODS}
    return {name: order and order["spec"] for name, order in found.items()}


def ready(subject: Object) -> str:
    """What its condition Ready says."""
    return str(next(c["message"] for c in subject["status"]["conditions"] if c["type"] == "Ready"))


def wait_for_warning(stage: Stage, name: str, reason: Reason) -> None:
    stage.wait(lambda: ("Warning", reason) in stage.events(name), f"the event {reason} of {name}")


def pinned_to(version: str) -> Object:
    """A rollout's versionPolicy."""
    return {"type": "Pinned", "versionName": f"{Releases.model}-{version}"}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_bad_version_is_told_to_its_user_and_to_no_pod(stage: Stage, kubectl: Kubectl, case: Case) -> None:
    releases, name = stage.releases, f"{Releases.model}-{BAD}"
    for version in case.published:
        releases.publish(version, sample=SAMPLE[version])
    blob = own_blob(releases)
    pinned = releases.published[BAD].manifest_digest
    stage.pods(*PODS)
    stage.apply(GOOD)
    with stage.operator():
        stage.wait_until_all_live(GOOD)
        stage.wait_for_rollout(Ready=f"True/{Reason.PROMOTED}")
        told = orders(stage)

        pinned = case.harm(releases) or pinned
        stage.apply(BAD, manifestDigest=pinned)

        reason, what = case.reason, case.what.format(blob=blob.object_key, size=blob.size, pinned=pinned)
        stage.wait_for_version(BAD, Ready=f"False/{reason}", **{case.beside: f"True/{reason}"})
        wait_for_warning(stage, name, reason)
        message = f"{what}.*{re.escape(case.do)}"
        assert re.search(message, ready(stage.version(BAD)))
        shown = kubectl("get", "mpv", name, "--no-headers", "-o", "wide")
        assert shown.split()[:6] == [name, Releases.model, BAD, "False", reason, case.verified]
        assert re.search(message, shown)
        assert re.search(rf"\n +Warning +{reason} .*{message}", kubectl("describe", "mpv", name))

        stage.wait_for_rollout(Ready=f"True/{Reason.PROMOTED}", Available=f"True/{Reason.PODS_SERVING}")
        assert stage.agents.live() == dict.fromkeys(PODS, GOOD)
        assert orders(stage) == told

        stage.delete(BAD)
        stage.apply(NEXT)
        stage.wait_until_all_live(NEXT)
        stage.wait_for_rollout(Ready=f"True/{Reason.PROMOTED}")
        assert [pod.served for pod in stage.agents.all()] == [[GOOD, NEXT]] * len(PODS)


def test_two_rollouts_that_claim_one_pod_are_told_so_and_the_second_gets_none(stage: Stage, kubectl: Kubectl) -> None:
    for version in (GOOD, BAD):
        stage.releases.publish(version, sample=SAMPLE[version])
    stage.pods(*PODS)
    stage.apply(GOOD, BAD)
    stage.apply_rollout("mine", versionPolicy=pinned_to(GOOD))
    with stage.operator():
        stage.wait_until_all_live(GOOD)
        stage.wait_for_rollout("mine", Ready=f"True/{Reason.PROMOTED}")
        told, twice = orders(stage), Reason.PODS_CLAIMED_TWICE

        stage.apply_rollout("theirs", versionPolicy=pinned_to(BAD))

        for name, other in (("mine", "theirs"), ("theirs", "mine")):
            stage.wait_for_rollout(name, Ready=f"False/{twice}", Stalled=f"True/{twice}")
            wait_for_warning(stage, name, twice)
            assert kubectl("get", "mpr", name, "--no-headers").split()[-3:-1] == ["False", twice]
            claim = f"pods web-0 and 1 more are selected by rollout {other} too"
            message = f"{claim}; make the selectors exclude each other, or delete one of the two"
            assert message in ready(stage.rollout(name))
            assert re.search(rf"\n +Warning +{twice} .*{message}", kubectl("describe", "mpr", name))
        assert stage.agents.live() == dict.fromkeys(PODS, GOOD)
        assert orders(stage) == told

        stage.pods("web-2")  # nobody's yet, so neither may take it
        stage.wait(lambda: " and 2 more " in ready(stage.rollout("mine")), "mine to see the third")
        stage.wait(lambda: " and 2 more " in ready(stage.rollout("theirs")), "theirs to see the third")
        assert stage.rollout("mine")["status"]["pods"]["total"] == len(PODS)
        assert stage.agents.order("web-2") is None

        stage.api.delete(stage.path("modelparamrollouts", "theirs"))
        stage.wait_until_live(web_0=GOOD, web_1=GOOD, web_2=GOOD)
        stage.wait_for_rollout("mine", Ready=f"True/{Reason.PROMOTED}")
        assert [pod.served for pod in stage.agents.all()] == [[GOOD]] * 3
