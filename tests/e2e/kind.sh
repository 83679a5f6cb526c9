#!/usr/bin/env bash
# Runs a command with a kind cluster of its own: tests/e2e/kind.sh COMMAND...
# KIND_NODE_IMAGE names the node's image; from Kubernetes 1.36 on the API server itself adds the agent to pods.
set -euo pipefail

name=modelparams-e2e
command -v kind >/dev/null || { echo "e2e-kind: kind is not on PATH; see its quick start, or run make e2e on Linux as root"; exit 1; }

KUBECONFIG=$(mktemp)
export KUBECONFIG
trap 'kind delete cluster --name "$name"; rm -f "$KUBECONFIG"' EXIT
kind create cluster --name "$name" --wait 180s ${KIND_NODE_IMAGE:+--image "$KIND_NODE_IMAGE"}

export MODELPARAMS_LOAD_IMAGE="kind load image-archive --name $name {}"
export MODELPARAMS_REBOOT_NODE="docker restart $name-control-plane"
export PYTHONPATH=tests
"$@"
