"""Two S3 servers with the same face: versitygw (objects are plain files) and SeaweedFS."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cluster.process import Process, answers_http, free_port, wait_until
from cluster.state import State
from cluster.tools import binary

if TYPE_CHECKING:
    from cluster.faults import FaultProxy

REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Login:
    """Credentials of an S3 server's administrator."""

    access_key: str
    secret_key: str

    @classmethod
    def fresh(cls) -> Login:
        """Ones that nobody had before."""
        return cls("AKIATEST" + secrets.token_hex(6).upper(), secrets.token_urlsafe(24))

    @property
    def environment(self) -> dict[str, str]:
        """As AWS's libraries look for them."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, endpoint: str) -> Any:
        """A boto3 client."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )

    def make_bucket(self, endpoint: str, name: str) -> str:
        """Make a bucket (three characters or more) and give its name back."""
        client = self.client(endpoint)
        wait_until(lambda: _creates(client, name), f"bucket {name}", seconds=30)
        client.close()
        return name


class S3Server:
    """A running server: endpoint, one pair of credentials, buckets on demand.

    Attributes:
        endpoint: `http://127.0.0.1:<port>`; use path style.
        login: of an administrator.
    """

    name: str
    start_seconds: float

    def __init__(self, *, owner: int | None = None) -> None:
        self._owner = owner
        self._state: State | None = None
        self._process: Process | None = None
        self.login = Login.fresh()
        self.port = free_port()

    @property
    def endpoint(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The credentials as AWS's libraries look for them."""
        return self.login.environment

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ToolMissing: the binary is not there.
            ProcessFailed: it did not start.
        """
        program = binary(self.name)
        self._state = State(self.name, self._owner)
        try:
            environment = {"PATH": os.defpath, "HOME": str(self._state.path), **self._state.environment}
            flags, extra = self._flags(self._state.path)
            self._process = Process(self.name, [program, *flags], environment | extra, self._state.path / "log")
            self.restart()
        except BaseException:
            self.close()
            raise

    def restart(self) -> None:
        """Start it again after a kill, with all its data."""
        assert self._process is not None, f"{self.name} was never started"
        self._process.start()
        self._process.wait_until(lambda: answers_http(self.endpoint), seconds=self.start_seconds)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End it and delete its data."""
        self.kill()
        if self._state is not None:
            self._state.close()
            self._state = None

    def client(self) -> Any:
        """A boto3 client of the administrator."""
        return self.login.client(self.endpoint)

    def bucket(self, name: str) -> str:
        """Make a bucket (three characters or more) and give its name back."""
        return self.login.make_bucket(self.endpoint, name)

    def proxy(self) -> FaultProxy:
        """A fault injector before it, to be entered as a context."""
        from cluster.faults import FaultProxy

        return FaultProxy(self.port)

    def _flags(self, folder: Path) -> tuple[list[str], dict[str, str]]:
        raise NotImplementedError


def _creates(client: Any, name: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        client.create_bucket(Bucket=name)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:  # SeaweedFS answers before it is ready
            return False
        raise
    return True


class Versitygw(S3Server):
    """The default: 0.2 s to start, 40 MB, and an object is the file `root/<bucket>/<key>`."""

    name = "versitygw"
    start_seconds = 15.0

    @property
    def root(self) -> Path:
        """The folder of all buckets; tamper with an object by writing its file."""
        assert self._state is not None, "versitygw does not run"
        return self._state.path / "objects"

    def object_path(self, bucket: str, key: str) -> Path:
        """One object's file."""
        return self.root / bucket / key

    def _flags(self, folder: Path) -> tuple[list[str], dict[str, str]]:
        # The gateway refuses a versions folder whose path begins with the root's.
        objects, versions = folder / "objects", folder / "versions"
        objects.mkdir()
        versions.mkdir()
        login = {"ROOT_ACCESS_KEY": self.login.access_key, "ROOT_SECRET_KEY": self.login.secret_key}
        # Every S3 server keeps connections open; this one only when it is told to.
        return [
            "--keep-alive",
            "--port",
            f"127.0.0.1:{self.port}",
            "posix",
            "--versioning-dir",
            str(versions),
            str(objects),
        ], login


class SeaweedFS(S3Server):
    """The second opinion: 4 s to start, up to 1 GB of memory, volumes of its own on disk."""

    name = "weed"
    start_seconds = 60.0

    def _flags(self, folder: Path) -> tuple[list[str], dict[str, str]]:
        # Without this file it would take any credentials.
        login = {"accessKey": self.login.access_key, "secretKey": self.login.secret_key}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identities = {"identities": [{"name": "test", "credentials": [login], "actions": actions}]}
        (folder / "identities.json").write_text(json.dumps(identities))
        (folder / "data").mkdir()
        ports = [f"-{part}.port={free_port()}" for part in ("master", "volume", "filer")]
        grpc = [f"-{part}.port.grpc={free_port()}" for part in ("master", "volume", "filer", "s3")]
        return [
            "-logtostderr=true",
            "server",
            f"-dir={folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",  # by default it reports usage over the network
            "-master.volumeSizeLimitMB=64",
            "-volume.max=100",
            "-s3",
            f"-s3.port={self.port}",
            f"-s3.config={folder / 'identities.json'}",
            "-s3.port.iceberg=0",  # both have fixed ports by default, which two servers side by side would fight over
            "-s3.port.lance=0",
            *ports,
            *grpc,
        ], {"TMPDIR": str(folder)}
