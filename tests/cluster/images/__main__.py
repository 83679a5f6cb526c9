"""Build the images of this tree, and say how large they are and how long it took.

build     both, unless they are there (the default)
archive   write an archive for a cluster elsewhere, and print its path
clean     remove every image, archive and base that was made here
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence

from cluster.images import BuildFailed, Built, NoBuilder, ensure, layers
from cluster.images.builder import Builder, home, known, storage
from cluster.images.inputs import TARGETS, reference


def main() -> int:
    """Run one command."""
    options = _options()
    if options.command == "clean":
        return _clean()
    try:
        images = ensure(builder=options.builder, base=options.base)
        if options.command == "archive":
            print(next(built for built in images.built if built.target == options.target).archive())
        else:
            for built in images.built:
                _report(built)
    except NoBuilder as why:
        print(f"skipped: {why}" if options.or_skip else why, file=sys.stderr)
        return 0 if options.or_skip else 1
    except BuildFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m cluster.images", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs="?", choices=("build", "archive", "clean"), default="build")
    parser.add_argument("target", nargs="?", choices=TARGETS, default="serving", help="for archive")
    parser.add_argument(
        "--base", help="the image to begin with (default: $BASE, the Dockerfile's, or Debian's packages)"
    )
    parser.add_argument("--builder", help="docker, podman or buildah (default: $MODELPARAMS_BUILDER, or what works)")
    parser.add_argument("--or-skip", action="store_true", help="no failure where nothing builds images")
    return parser.parse_args()


def _report(built: Built) -> None:
    took = f"built in {built.seconds:.0f} s" if built.seconds else "was there"
    print(f"{reference(built.target)}  {took} by {built.builder.name}: {built.image}")
    for size, what in _layers(built):
        print(f"    {size / 1e6:8.1f} MB  {what}")


def _layers(built: Built) -> Sequence[tuple[int, str]]:
    """The size of each layer, the lowest first; of the whole where the builder's storage is not ours to read."""
    if built.builder.name != "buildah":
        return [(_size(built.builder, built.image), "in all")]
    digests = built.config["rootfs"]["diff_ids"]
    return [(layer.size, layer.digest) for layer in layers.of_image(storage(), digests)]


def _size(builder: Builder, image: str) -> int:
    return int(builder.run("image", "inspect", "--format={{.Size}}", image))


def _clean() -> int:
    for builder in known():
        if builder.name == "buildah" and storage().exists():
            builder.run("rmi", "--all", "--force")
    shutil.rmtree(home(), ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
