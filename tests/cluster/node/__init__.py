"""A real node: pods from images, in a world that ends without a trace.

    with NodeCluster() as cluster:
        cluster.load(Path("image.tar"))
        cluster.run(["kubectl", "get", "nodes"])

debian.py      what it needs of the machine, installed where that is possible
world.py       the namespaces and control group; init.py the mounts and network in them
settings.py    what containerd, CNI, kubelet and kube-proxy are told
supervisor.py  what runs inside, and the socket to end and start it
reboot.py      a power cut
images.py      image archives and containerd's import
cluster.py     NodeCluster, and Node for those who did not start it

`python -m cluster.node tools | up | exec -- COMMAND | down`.
"""

from cluster.node.cluster import FOLDER, Node, NodeCluster, NodeRefused
from cluster.node.debian import InstallFailed, NodeImpossible
from cluster.node.images import ImageFailed

__all__ = ["FOLDER", "ImageFailed", "InstallFailed", "Node", "NodeCluster", "NodeImpossible", "NodeRefused"]
