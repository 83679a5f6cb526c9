"""Whether the release works: its kinds are served, one operator holds the Lease and renews it, and one is ready.

Run by `helm test` in the operator's image, as the operator: python check.py NAMESPACE NAME WATCHED. The standard
library alone, since it must say what is wrong also where our own code is.
"""

import datetime
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ACCOUNT = Path(os.environ.get("SERVICE_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
GROUP = "/apis/modelparams.dev/v1alpha1"
SECONDS = float(os.environ.get("PATIENCE_SECONDS", "60"))


def main(namespace, name, watched):
    """Try for a minute, since a new operator takes seconds to take the Lease; then say what is missing."""
    last = time.monotonic() + SECONDS
    while found := problem(namespace, name, watched):
        if time.monotonic() > last:
            sys.exit(f"not working: {found}")
        time.sleep(1)
    print("working: the kinds are served, the Lease is kept, an operator is ready")


def problem(namespace, name, watched):
    """The first thing that is not as it should be; empty when all is well."""
    try:
        where = f"/namespaces/{watched}" if watched else ""
        for plural in ("modelparamversions", "modelparamrollouts", "modelparamassignments"):
            ask(f"{GROUP}{where}/{plural}?limit=1")
        lease = ask(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}")["spec"]
        if not lease.get("holderIdentity"):
            return f"nobody holds the Lease {namespace}/{name}; see the operator's log"
        if age(lease["renewTime"]) > 2 * lease["leaseDurationSeconds"]:
            return f"{lease['holderIdentity']} has not renewed the Lease for {age(lease['renewTime']):.0f} s"
        read(f"http://{place(name, namespace)}/readyz", None)
    except urllib.error.HTTPError as error:
        return f"{error.url} answered {error.code}: {error.read(500).decode(errors='replace').strip()}"
    except (OSError, ValueError) as error:
        return f"no answer: {error}"
    return ""


def ask(path):
    """Read from the API server as this pod's account."""
    server = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
    login = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}"}
    request = urllib.request.Request(server + path, headers=login)  # noqa: S310 - a kubelet's address
    return json.loads(read(request, ssl.create_default_context(cafile=ACCOUNT / "ca.crt")))


def read(request, context):
    """The body of an answer."""
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:  # noqa: S310
        return answer.read()


def place(name, namespace):
    """The operator's Service: by the variables that a kubelet sets, so that it works without DNS too."""
    prefix = name.upper().replace("-", "_") + "_SERVICE"
    host = os.environ.get(f"{prefix}_HOST") or f"{name}.{namespace}.svc"
    return f"{host}:{os.environ.get(f'{prefix}_PORT', '9464')}"


def age(stamp):
    """Seconds since a Lease's time."""
    return (datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(stamp)).total_seconds()


if __name__ == "__main__":
    main(*sys.argv[1:])
