"""Who trains and publishes: a folder with keys, and the command line as they use it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


class CommandFailed(RuntimeError):
    """A command line of ours exited with another code than 0; what it said went to the terminal."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """Publishes versions of one model from a folder.

    Attributes:
        work: the folder: parameters, keys, and the objects to apply.
        model: the model's name.
        store: as the command line takes it.
        login: the store's credentials, as AWS's libraries look for them.
        options: more of `publish`, such as `--namespace`.
        say: told what a command said, after its end; by default that goes to the terminal as it comes.
    """

    work: Path
    model: str
    store: str
    login: Mapping[str, str]
    options: tuple[str, ...] = ()
    say: Callable[[str], None] | None = None

    def __call__(self, *arguments: str) -> str:
        """Run the command line as a user would and give its standard output.

        Raises:
            CommandFailed: it exited with another code than 0.
        """
        command: list[str | Path] = [Path(sys.executable).with_name("modelparams"), *arguments]
        environment = {**os.environ, **self.login}
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if self.say else None,
            text=True,
            env=environment,
            cwd=self.work,
            check=False,
        )
        if self.say:
            self.say(done.stderr.rstrip())
        if done.returncode:
            raise CommandFailed(f"modelparams {arguments[0]} exited with {done.returncode}")
        return done.stdout

    def make_keys(self) -> None:
        """Once: what seals, what signs, and whose signature counts."""
        self("keys", "kek", self.model)
        self("keys", "signer", "release.pem")
        self("keys", "trust", "release.pem", "--out", "trust.json")

    @property
    def trust(self) -> Path:
        """The policy's file."""
        return self.work / "trust.json"

    def publish(self, version: str, source: Path, *options: str, sign: str = "release.pem") -> Path:
        """Hash and publish one version of what `save_pretrained` wrote, and keep the object to apply."""
        directory = str(self._lay_out(version, source))
        self("hash", directory)
        text = self("publish", directory, "--store", self.store, "--sign", sign, *self.options, *options)
        file = self.object_file(version)
        file.write_text(text)
        return file

    def object_file(self, version: str) -> Path:
        """Of a published version."""
        return self.work / f"{self.model}-{version}.yaml"

    def _lay_out(self, version: str, source: Path) -> Path:
        """`params/<model>/v<version>/`; the weights are linked."""
        target = self.work / "params" / self.model / f"v{version}"
        shutil.copytree(source, target, copy_function=_link_weights)
        return target.relative_to(self.work)


def _link_weights(source: str, target: str) -> None:
    """Weights are large and never written again; config.json is, by `modelparams hash`."""
    if source.endswith(".safetensors"):
        with contextlib.suppress(OSError):  # another file system: copy
            os.link(source, target)
            return
    shutil.copyfile(source, target)
