"""config.json carries the parameters' hashes; a directory that differs is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from modelparams.errors import ParamsHashMismatch, UsageError
from modelparams.hashes import check_hashes, open_checked, write_hashes
from modelparams.parameter_files import map_file

Check = Callable[[Path], Mapping[str, object]]
EACH_CHECK = pytest.mark.parametrize("check", [check_hashes, open_checked])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "title": "Größe"}')
    (tmp_path / "model-1.safetensors").write_bytes(b"one")
    (tmp_path / "model-2.safetensors").write_bytes(b"two")
    return tmp_path


def test_written_hashes_are_sha256_by_file_name_and_pass_the_check(directory: Path) -> None:
    expected = {f"model-{n}.safetensors": hashlib.sha256(w).hexdigest() for n, w in ((1, b"one"), (2, b"two"))}
    assert write_hashes(directory) == expected
    assert check_hashes(directory) == expected
    assert json.loads((directory / "config.json").read_text())["modelparams"] == {"sha256": expected}


def test_writing_keeps_everything_else_of_the_config_and_is_stable(directory: Path) -> None:
    write_hashes(directory)
    first = (directory / "config.json").read_bytes()
    write_hashes(directory)
    assert (directory / "config.json").read_bytes() == first
    config = json.loads(first)
    assert list(config) == ["model_type", "title", "modelparams"]
    config["modelparams"]["note"] = "reviewed"
    (directory / "config.json").write_text(json.dumps(config))
    write_hashes(directory)
    assert json.loads((directory / "config.json").read_bytes()) == config
    assert "Größe" in first.decode()
    assert sorted(path.name for path in directory.iterdir()) == [
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
    ]


def test_a_file_of_more_than_one_piece_has_the_hash_of_the_whole(tmp_path: Path) -> None:
    data = bytes(16 << 20) + b"end"
    (tmp_path / "model.safetensors").write_bytes(data)
    assert map_file(tmp_path / "model.safetensors").sha256 == hashlib.sha256(data).hexdigest()


@EACH_CHECK
def test_changed_bytes_are_named_with_both_hashes(directory: Path, check: Check) -> None:
    write_hashes(directory)
    (directory / "model-2.safetensors").write_bytes(b"twO")
    found, promised = hashlib.sha256(b"twO").hexdigest(), hashlib.sha256(b"two").hexdigest()
    with pytest.raises(ParamsHashMismatch, match=rf"model-2\.safetensors has SHA-256 {found}, .* says {promised}"):
        check(directory)


@EACH_CHECK
def test_a_file_that_is_not_listed_is_refused(directory: Path, check: Check) -> None:
    write_hashes(directory)
    (directory / "model-3.safetensors").write_bytes(b"three")
    with pytest.raises(ParamsHashMismatch, match=r"model-3\.safetensors is not listed"):
        check(directory)


@EACH_CHECK
def test_a_listed_file_that_is_gone_is_refused(directory: Path, check: Check) -> None:
    write_hashes(directory)
    (directory / "model-1.safetensors").unlink()
    with pytest.raises(ParamsHashMismatch, match=r"model-1\.safetensors is missing"):
        check(directory)


def test_a_hidden_file_is_no_parameter_file(directory: Path) -> None:
    (directory / "._model-1.safetensors").write_bytes(b"what a Mac leaves on other disks")
    assert write_hashes(directory).keys() == {"model-1.safetensors", "model-2.safetensors"}


@EACH_CHECK
@pytest.mark.parametrize("section", ["", ', "modelparams": "none"', ', "modelparams": {"sha256": "none"}'])
def test_a_config_without_hashes_says_how_to_write_them(directory: Path, check: Check, section: str) -> None:
    (directory / "config.json").write_text(f'{{"model_type": "llama"{section}}}')
    with pytest.raises(ParamsHashMismatch, match=r"[Rr]un 'modelparams hash "):
        check(directory)


@EACH_CHECK
@pytest.mark.parametrize("extension", ["", "ext-0-case sha256:00\n"])
def test_a_git_lfs_pointer_is_told_apart_from_changed_bytes(directory: Path, check: Check, extension: str) -> None:
    write_hashes(directory)
    pointer = f"version https://git-lfs.github.com/spec/v1\n{extension}oid sha256:00\n"
    (directory / "model-1.safetensors").write_text(pointer)
    with pytest.raises(UsageError, match="git lfs pull"):
        check(directory)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"])
def test_a_config_that_is_no_object_is_refused(directory: Path, content: str) -> None:
    (directory / "config.json").write_text(content)
    with pytest.raises(UsageError, match=r"config\.json is no JSON"):
        write_hashes(directory)


def test_a_directory_without_parameters_or_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.json cannot be read"):
        check_hashes(tmp_path)
    (tmp_path / "config.json").write_text('{"modelparams": {"sha256": {}}}')
    with pytest.raises(UsageError, match=r"no \*\.safetensors"):
        check_hashes(tmp_path)


def test_the_sample_repository_matches_its_hashes() -> None:
    samples = Path(__file__).parents[3] / "params" / "samples" / "params" / "tiny-llama"
    for version in ("v1.0.0", "v1.1.0"):
        assert check_hashes(samples / version).keys() == {"model.safetensors"}
