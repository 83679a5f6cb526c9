"""versitygw as a pod: an S3 server that the cluster's pods reach by a Service, and we by whatever way there is."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.kubectl import Kubectl
from cluster.node.images import Image
from cluster.process import answers_http, wait_until
from cluster.s3 import Login
from cluster.tools import binary
from deployed.target import Target

IMAGE = "docker.io/modelparams/versitygw:test"
NAME, PORT = "s3", 7070
SECRET = "modelparams-s3"
_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Store:
    """A running one.

    Attributes:
        outside: its address for us.
        inside: its address for pods: the Service's, since a small cluster may have no DNS.
        login: of its administrator.
    """

    outside: str
    inside: str
    login: Login

    def secret(self) -> dict[str, Any]:
        """The credentials as agents and operator look for them."""
        data = {"accessKeyID": self.login.access_key, "secretAccessKey": self.login.secret_key}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "stringData": data}

    def bucket(self, name: str) -> str:
        """Make a bucket and give its name back."""
        return self.login.make_bucket(self.outside, name)

    def flip_a_byte_of_the_newest(self, bucket: str, prefix: str) -> str:
        """Tamper with an object, as whoever can write the bucket could; its key."""
        client = self.login.client(self.outside)
        listed = client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
        key = str(max(listed, key=lambda entry: (entry["LastModified"], entry["Size"]))["Key"])
        body = bytearray(client.get_object(Bucket=bucket, Key=key)["Body"].read())
        body[len(body) // 2] ^= 1
        client.put_object(Bucket=bucket, Key=key, Body=bytes(body))
        return key


@contextlib.contextmanager
def store(target: Target, namespace: str) -> Iterator[Store]:
    """Bring one up in a namespace; it goes with the namespace."""
    _load(target)
    login = Login.fresh()
    kubectl = Kubectl(target.kubeconfig, namespace)
    kubectl.apply(_pod(login), _service())
    kubectl("wait", "--for=condition=Ready", f"pod/{NAME}", f"--timeout={_SECONDS:.0f}s", timeout=_SECONDS + 10)
    inside = f"http://{kubectl.json('get', 'service', NAME)['spec']['clusterIP']}:{PORT}"
    with target.reach(namespace, f"service/{NAME}", PORT) as outside:
        wait_until(lambda: answers_http(outside), "the Service to reach the S3 server", seconds=_SECONDS)
        yield Store(outside, inside, login)


def _load(target: Target) -> None:
    image = Image.scratch(["/bin/versitygw"]).with_layer({"bin/versitygw": binary("versitygw")})
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "versitygw.tar")
        archive.write_bytes(image.archive(IMAGE))
        target.load(archive)


def _pod(login: Login) -> dict[str, Any]:
    command = [
        "/bin/versitygw",
        "--keep-alive",
        "--port",
        f":{PORT}",
        "posix",
        "--versioning-dir",
        "/versions",
        "/objects",
    ]
    secure = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": NAME,
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": command,
        "env": [
            {"name": "ROOT_ACCESS_KEY", "value": login.access_key},
            {"name": "ROOT_SECRET_KEY", "value": login.secret_key},
        ],
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "securityContext": secure,
        "volumeMounts": [{"name": name, "mountPath": f"/{name}"} for name in ("objects", "versions")],
    }
    spec = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": name, "emptyDir": {}} for name in ("objects", "versions")],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": NAME, "labels": {"app": NAME}}, "spec": spec}


def _service() -> dict[str, Any]:
    spec = {"selector": {"app": NAME}, "ports": [{"port": PORT}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME}, "spec": spec}
