"""What the chart makes of values: refusals are sentences, and what is rendered the API server would take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from builders.chart import TRUST, Object, find, policy, render
from cluster.api import Api
from cluster.helm import HelmFailed
from cluster.kubectl import Kubectl

pytestmark = pytest.mark.integration
DEPLOY = Path(__file__).parents[3] / "operator" / "deploy"
PROMETHEUS = [
    argument
    for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule")
    for argument in ("--api-versions", f"monitoring.coreos.com/v1/{kind}")
]


def refused(*arguments: str, **given: Any) -> str:
    with pytest.raises(HelmFailed) as refusal:
        render(*arguments, **given)
    return str(refusal.value)


MODELS, OTHERS = {"name": "models"}, {"name": "others"}
DIGEST = "sha256:" + "0" * 64

REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "nobody who signs": ({"trust_policy": ""}, "trust.policy is empty, so that no version could ever be trusted: make"),
    "two policies": ({"trust_existingConfigMap": "mine"}, "are both given: leave one of them out"),
    "a policy that is none": ({"trust_policy": "release.pem"}, "trust.policy is no trust policy, which is"),
    "a policy without keys": ({"trust_policy": '{"threshold": 1}'}, "trust.policy is no trust policy, which is"),
    "a threshold too high": (
        {"trust_policy": json.dumps({**json.loads(TRUST), "threshold": 2})},
        "wants 2 signatures and names 1 keys, so that no version could ever be trusted: lower the threshold or add",
    ),
    "a lease that two could hold": ({"lease_renewDeadline": 15}, "does not hold: two operators could act at once"),
    "tag and digest": ({"image_tag": "1", "image_digest": DIGEST}, "image.tag and image.digest are both given"),
    "a digest that is none": ({"agent_image_digest": "abc"}, "agent.image.digest is abc, which is no digest: write"),
    "no memory": ({"agent_memory": "lots"}, "agent.memory is lots, which is no quantity of memory: write twice"),
    "an endpoint": ({"allowedEndpoints": ["s3.example.com"]}, "allowedEndpoints has s3.example.com, which is neither"),
    "a namespace twice": ({"serving_namespaces": [MODELS, MODELS]}, "names models twice: join the two entries"),
    "an unwatched one": (
        {"serving_namespaces": [MODELS, OTHERS], "watch_namespaces": ["models"]},
        "serving.namespaces names others, which the operator does not watch: add it to watch.namespaces",
    ),
    "no Prometheus operator": (
        {"metrics_serviceMonitor_enabled": True},
        "metrics.serviceMonitor.enabled is true, and the cluster has no ServiceMonitor: install the Prometheus",
    ),
    # By the schema:
    "an unknown name": ({"replica": 3}, "additional properties 'replica' not allowed"),
    "a word": ({"agent_injection": "always"}, "at '/agent/injection': value must be one of 'auto', 'required', 'none'"),
    "a negative number": ({"replicas": -1}, "at '/replicas': minimum: got -1, want 0"),
    "a port": ({"agent_enginePort": 70000}, "at '/agent/enginePort': maximum: got 70,000, want 65,535"),
    "a text for a list": ({"watch_namespaces": "models"}, "at '/watch/namespaces': got string, want array"),
}


@pytest.mark.parametrize(("given", "words"), REFUSALS.values(), ids=REFUSALS)
def test_values_that_cannot_be_used_are_refused_with_what_to_change(given: dict[str, Any], words: str) -> None:
    assert words in refused(**given)


def test_all_that_is_wrong_is_said_at_once() -> None:
    said = refused(trust_policy="", agent_memory="lots")
    assert "trust.policy is empty" in said
    assert "agent.memory is lots" in said


def test_a_cluster_too_old_for_the_label_is_named_with_the_other_way() -> None:
    said = refused("--kube-version", "1.31.0", agent_injection="required")
    assert "Kubernetes v1.31.0 has no MutatingAdmissionPolicy, which came with 1.36: upgrade the cluster" in said
    assert "add the component serving/kustomize/agent" in said


def test_a_cluster_too_old_for_the_chart_is_refused() -> None:
    assert "requires kubeVersion: >=1.30.0-0 which is incompatible with Kubernetes v1.29.0" in refused(
        "--kube-version", "1.29.0"
    )


@pytest.mark.parametrize("injection", ["auto", "none"])
def test_where_the_api_server_cannot_add_the_agent_nothing_asks_it_to(injection: str) -> None:
    kinds = {o["kind"] for o in render("--kube-version", "1.31.0", agent_injection=injection)}
    assert "MutatingAdmissionPolicy" not in kinds
    assert "ValidatingAdmissionPolicy" in kinds


# operator/deploy is the truth.


def rules(subject: Object) -> Object:
    """Without what only says where it comes from."""
    labels = {k: v for k, v in subject["metadata"].get("labels", {}).items() if k.startswith("rbac.")}
    metadata = {key: value for key, value in subject["metadata"].items() if key != "labels"}
    return {**subject, "metadata": {**metadata, **({"labels": labels} if labels else {})}}


@pytest.mark.parametrize("file", ["rbac.yaml", "policies.yaml"])
def test_the_usual_release_has_the_roles_and_policies_of_the_tree(file: str) -> None:
    made = [rules(o) for o in render()]
    for document in yaml.safe_load_all((DEPLOY / file).read_text()):
        assert rules(document) in made


def test_a_release_of_another_name_trusts_its_own_operator_alone() -> None:
    objects = render(release="mine", namespace="elsewhere")
    text = json.dumps([o for o in objects if o["kind"] != "CustomResourceDefinition"])
    assert "system:serviceaccount:elsewhere:mine-operator" in text
    assert "modelparams-system" not in text
    assert "serviceaccount:modelparams" not in text
    (lease,) = [r for r in find(objects, "Role", "mine-operator-lease")["rules"] if "resourceNames" in r]
    assert lease["resourceNames"] == ["mine-operator"]
    variables = {e["name"]: e.get("value") for e in operator(objects)["env"]}
    assert variables["MODELPARAMS_LEASE_NAME"] == "mine-operator"


def operator(objects: list[Object]) -> Object:
    return find(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]


def test_watched_namespaces_give_roles_there_and_none_in_the_cluster() -> None:
    objects = render(watch_namespaces=["one", "two"], rbac_aggregate=False)
    assert not [o for o in objects if o["kind"].startswith("ClusterRole")]
    roles = {
        o["metadata"]["namespace"]: o["rules"]
        for o in objects
        if o["metadata"]["name"] == "modelparams-operator" and o["kind"] == "Role"
    }
    assert roles == dict.fromkeys(["one", "two"], find(render(), "ClusterRole", "modelparams-operator")["rules"])
    bindings = [o for o in objects if o["kind"] == "RoleBinding" and o["metadata"]["namespace"] in roles]
    assert [b["roleRef"]["kind"] for b in bindings] == ["Role", "Role"]
    selectors = [
        o["spec"]["matchConstraints"].get("namespaceSelector")
        for o in objects
        if o["metadata"]["name"] == "modelparams-agent" and "spec" in o and "matchConstraints" in o["spec"]
    ]
    assert [s["matchExpressions"][0]["values"] for s in selectors] == [["one", "two"]]


def test_the_operator_reads_no_secret_but_those_of_the_store_that_are_named() -> None:
    objects = render(
        serving_namespaces=[{"name": "models", "storeSecrets": ["one"]}, {"name": "none", "storeSecrets": []}]
    )
    secrets = [r for o in objects for r in o.get("rules", []) if "secrets" in r.get("resources", [])]
    assert secrets == [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"], "verbs": ["get"]}]


def test_another_trust_policy_restarts_the_operator() -> None:
    sums = {
        find(render(trust_policy=trust), "Deployment")["spec"]["template"]["metadata"]["annotations"][
            "modelparams.dev/trust-sum"
        ]
        for trust in (TRUST, policy(bytes(31) + b"1"))
    }
    assert len(sums) == 2


@pytest.mark.parametrize(
    ("given", "ports"),
    [
        ({}, None),
        (
            {"allowedEndpoints": ["http://minio:9000", "https://s3.example.com", "http://plain/", "aws"]},
            [9000, 443, 80],
        ),
        ({"allowedEndpoints": ["http://minio:9000"], "networkPolicy_storePorts": [8333]}, [8333]),
    ],
)
def test_the_operator_may_reach_the_ports_of_its_stores(given: dict[str, Any], ports: list[int] | None) -> None:
    stores = find(render(**given), "NetworkPolicy")["spec"]["egress"][-1]
    assert ([p["port"] for p in stores["ports"]] if "ports" in stores else None) == ports
    assert stores["to"][0]["ipBlock"]["except"] == ["169.254.0.0/16"]


def test_what_the_operator_says_of_a_namespace_is_not_said_of_its_own() -> None:
    objects = render(*PROMETHEUS, metrics_serviceMonitor_enabled=True)
    assert [e["honorLabels"] for e in find(objects, "ServiceMonitor")["spec"]["endpoints"]] == [True]


def test_alerts_lead_to_their_pages() -> None:
    objects = render(*PROMETHEUS, metrics_prometheusRule_enabled=True, metrics_prometheusRule_runbooks="https://x/r/")
    (group,) = find(objects, "PrometheusRule")["spec"]["groups"]
    for rule in group["rules"]:
        assert rule["annotations"]["runbook_url"] == f"https://x/r/{rule['alert']}.md"
        assert rule["annotations"]["summary"]


def test_the_dashboard_is_json_that_grafana_finds() -> None:
    found = find(render(metrics_dashboard_enabled=True), "ConfigMap", "modelparams-operator-dashboard")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(found["data"]["modelparams.json"])["uid"] == "modelparams"


# What the API server takes.

COMBINATIONS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "the defaults": ([], {}),
    "Kubernetes 1.30": (["--kube-version", "1.30.0"], {}),
    "no agent": ([], {"agent_injection": "none"}),
    "one namespace": ([], {"watch_namespaces": ["HERE"], "serving_namespaces": [{"name": "HERE"}]}),
    "no rights of people": ([], {"rbac_aggregate": False, "crds_keep": False}),
    "kinds that are there": ([], {"crds_install": False}),
    "a trust policy that is there": ([], {"trust_policy": None, "trust_existingConfigMap": "mine"}),
    "images by digest": ([], {"image_digest": DIGEST, "agent_image_digest": DIGEST}),
    "one replica, unguarded": (
        [],
        {"replicas": 1, "podDisruptionBudget_enabled": False, "networkPolicy_enabled": False},
    ),
    "all that watches over it": (
        PROMETHEUS,
        {f"metrics_{name}_enabled": True for name in ("serviceMonitor", "podMonitor", "prometheusRule", "dashboard")},
    ),
    "every knob": (
        [],
        {
            "serving_namespaces": [{"name": "HERE", "serviceAccounts": ["web"], "storeSecrets": ["a", "b"]}],
            "allowedEndpoints": ["https://s3.example.com:8443", "aws"],
            "s3_existingSecret": "store",
            "imagePullSecrets": [{"name": "pull"}],
            "env": [{"name": "AWS_CA_BUNDLE", "value": "/etc/ca.pem"}],
            "agent_env": [{"name": "AWS_REGION", "value": "eu-central-1"}],
            "serviceAccount_annotations": {"eks.amazonaws.com/role-arn": "arn"},
            "podAnnotations": {"a": "b"},
            "podLabels": {"a": "b"},
            "nodeSelector": {"a": "b"},
            "tolerations": [{"operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "priorityClassName": "system-cluster-critical",
            "networkPolicy_metricsFrom": [{"namespaceSelector": {}}],
            "networkPolicy_egress": [{"to": [{"ipBlock": {"cidr": "169.254.170.23/32"}}]}],
            "agent_memory": "600Mi",
        },
    ),
}


@pytest.mark.parametrize(("arguments", "given"), COMBINATIONS.values(), ids=COMBINATIONS)
def test_the_api_server_takes_what_is_rendered(
    arguments: list[str], given: dict[str, Any], namespace: str, kubectl: Kubectl
) -> None:
    here = json.loads(json.dumps(given).replace('"HERE"', json.dumps(namespace)))
    objects = [o for o in render(*arguments, namespace=namespace, **here) if "monitoring" not in o["apiVersion"]]
    assert len(objects) > 20
    # The test's pod is refused without its account, which a dry run does not make.
    kubectl.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "modelparams-operator"}})
    told = kubectl(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-",
        stdin="\n---\n".join(json.dumps(o) for o in objects),
    )  # fmt: skip
    assert told.count("serverside-applied") == len(objects)


def test_its_pods_are_admitted_where_pod_security_is_restricted(namespace: str, api: Api, kubectl: Kubectl) -> None:
    enforced = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    api.patch(f"/api/v1/namespaces/{namespace}", enforced)
    objects = render(namespace=namespace)
    template = find(objects, "Deployment")["spec"]["template"]
    template["spec"]["serviceAccountName"] = "default"
    head = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator", **template["metadata"]}}
    test = find(objects, "Pod")
    test["spec"]["serviceAccountName"] = "default"
    for pod in ({**head, "spec": template["spec"]}, test):
        kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
