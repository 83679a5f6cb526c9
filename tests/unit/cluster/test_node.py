"""The parts of a real node that decide without one."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cluster.node import debian
from cluster.node.images import Image, layer
from cluster.node.settings import Files, write_runtime
from cluster.node.world import hierarchies
from cluster.state import disk_root, group_name


def _read(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]


def _blob(files: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    blob = files[f"blobs/sha256/{descriptor['digest'].removeprefix('sha256:')}"]
    assert (hashlib.sha256(blob).hexdigest(), len(blob)) == (descriptor["digest"][7:], descriptor["size"])
    return blob


def test_an_archive_holds_what_its_digests_name() -> None:
    files = _read(Image.scratch(["/bin/pod"]).with_layer({"bin/pod": b"program"}).archive("localhost/a:1"))
    [entry] = json.loads(files["index.json"])["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/a:1"
    manifest = json.loads(_blob(files, entry))
    config = json.loads(_blob(files, manifest["config"]))
    [top] = manifest["layers"]
    assert _read(_blob(files, top)) == {"bin/pod": b"program"}
    assert config["rootfs"]["diff_ids"] == [top["digest"]]
    assert config["config"]["Entrypoint"] == ["/bin/pod"]


def test_a_layer_on_a_base_moves_nothing_of_the_base() -> None:
    base = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": "sha256:" + "b" * 64, "size": 6 << 30}
    config = {
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "c" * 64]},
        "history": [{}],
        "config": {"User": "1"},
    }
    files = _read(Image(config, (base,)).with_layer({"a": b"1"}).archive("localhost/a:2"))
    manifest = json.loads(_blob(files, json.loads(files["index.json"])["manifests"][0]))
    assert manifest["layers"][0] == base
    assert len(files) == len(["oci-layout", "index.json", "config", "manifest", "the new layer"])
    made = json.loads(_blob(files, manifest["config"]))
    assert made["rootfs"]["diff_ids"][:1] == config["rootfs"]["diff_ids"]
    assert (made["config"], "history" in made) == ({"User": "1"}, False)


def test_a_layer_has_the_files_of_a_folder_and_is_the_same_each_time(tmp_path: Path) -> None:
    (tmp_path / "b" / "__pycache__").mkdir(parents=True)
    for name in ("b/x.py", "a", "b/__pycache__/x.pyc"):
        (tmp_path / name).write_text(name)
    (tmp_path / "a").chmod(0o755)
    blob = layer({"/opt/code": tmp_path})
    assert list(_read(blob)) == ["opt/code/a", "opt/code/b/x.py"]
    assert blob == layer({"/opt/code": tmp_path})
    with tarfile.open(fileobj=io.BytesIO(blob)) as tar:
        assert {m.name: oct(m.mode) for m in tar.getmembers()} == {"opt/code/a": "0o755", "opt/code/b/x.py": "0o644"}


@pytest.mark.parametrize(
    ("mountinfo", "expected"),
    [
        pytest.param(
            "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
            "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
            "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755",
            [("cpu", "cgroup", "rw,cpu", False), ("unified", "cgroup2", "rw", False)],
            id="version-1",
        ),
        pytest.param(
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
            "99 23 0:26 / /elsewhere rw - cgroup2 cgroup2 rw",
            [("cgroup", "cgroup2", "rw,nsdelegate", True)],
            id="version-2",
        ),
    ],
)
def test_control_groups_are_found_where_they_are_mounted(
    mountinfo: str, expected: list[tuple[str, str, str, bool]]
) -> None:
    assert [(h.path.name, h.kind, h.options, h.is_alone) for h in hierarchies(mountinfo)] == expected


def test_a_states_group_is_named_for_its_owner_too() -> None:
    owner = disk_root() / "12-345"
    assert group_name(owner / "node-x") == f"{group_name(owner)}.node-x"
    assert group_name(owner).endswith(".12-345")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"sys.platform": "darwin"}, "it needs Linux", id="another-system"),
        pytest.param({"os.geteuid": lambda: 1000}, "it needs root", id="not-root"),
        pytest.param({"cluster.node.world.refusal": lambda: "not permitted"}, "(not permitted)", id="no-privilege"),
        pytest.param({"shutil.which": lambda *_, **__: None}, "there is no apt-get", id="not-debian"),
    ],
)
def test_where_no_node_can_run_one_message_says_why_and_what_to_use_instead(
    changes: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ({"os.geteuid": lambda: 0, "cluster.node.world.refusal": lambda: ""} | changes).items():
        monkeypatch.setattr(name, value)
    with pytest.raises(debian.NodeImpossible) as refused:
        debian.require()
    assert says in str(refused.value)
    assert "set KUBECONFIG to one that you have, or make one with kind" in str(refused.value)


def test_nothing_is_installed_where_all_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    debian.install({"sh": "no-such-package"}, said)
    assert said.getvalue() == ""


def test_a_failed_installation_says_what_apt_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho 'E: Unable to locate package' >&2\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    said = io.StringIO()
    with pytest.raises(debian.InstallFailed, match=r"install --yes .*failed: E: Unable to locate package"):
        debian.install({"no-such-program": "a-package"}, said)
    assert said.getvalue() == "installing Debian's a-package with apt-get\n"


def test_containerd_writes_nowhere_but_into_the_nodes_folder_and_its_private_run(tmp_path: Path) -> None:
    files = Files(tmp_path)
    write_runtime(files, Path("/usr/lib/cni"))
    settings = tomllib.loads((tmp_path / "containerd.toml").read_text())
    cri = settings["plugins"]["io.containerd.grpc.v1.cri"]
    written = [settings["root"], settings["grpc"]["address"], cri["cni"]["conf_dir"], settings["state"]]
    assert [path for path in written if not Path(path).is_relative_to(tmp_path)] == ["/run/containerd-state"]
