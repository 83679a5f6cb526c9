"""A real Kubernetes control plane and S3 server for tests and demos, without Docker.

tools/            Go modules with committed sums; finds and builds the binaries
state.py          where a run's files live, and how nothing outlives it
process.py        one child process: start, wait until it answers, stop
pki.py            the throw-away certificate authority and kubeconfigs
control_plane.py  etcd, kube-apiserver, kube-controller-manager
api.py            raw JSON calls to any API server
kubectl.py        kubectl from the wheel
s3.py             versitygw and SeaweedFS
faults.py         a TCP proxy that cuts, flips, stalls and slows
containers.py     one container of a stand-in pod
pods.py           PodRunner, the stand-in kubelet: pods as processes
node/             a real node: kubelet, containerd and the rest, in a world of its own
shared.py         one control plane for all workers of a test run

`python -m cluster up` starts a control plane to play with; `python -m cluster.tools build` builds.
"""
