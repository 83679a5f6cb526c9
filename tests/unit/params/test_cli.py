"""The command line: results on stdout, everything else on stderr, exit codes that scripts can use."""

from __future__ import annotations

import base64
import errno
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import typer

import modelparams.cli as cli
from builders.publishing import NAN, Publisher, layered, write_directory
from modelparams.__main__ import main as begin
from modelparams.cli import completing, output, plugins, releasing
from modelparams.cli.exits import Exit, exit_code, next_step
from modelparams.cli.output import size
from modelparams.digest import Digest
from modelparams.errors import APIError, ManifestInvalid, ModelParamsError, SwapError, every_kind
from modelparams.keys import parse_kek
from modelparams.trust import SigningKey
from modelparams.verify import manifest_key


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, object]:
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `modelparams` in an empty directory, as a shell would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "leave_no_core_file", lambda: None)  # the tests' own process may leave one
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("STORE", "KEYS", "KEY_REF", "TRUST", "MODEL"):
        monkeypatch.delenv(f"MODELPARAMS_{name}", raising=False)

    def go(*arguments: object, program: str = "modelparams") -> Ran:
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return Ran(int(ended.value.code or 0), out, err)

    return go


@pytest.fixture
def ready(run: Run) -> Run:
    """With keys, and 1.0.0 and 1.1.0 published into `store`; one layer of three differs."""
    assert run("keys", "kek", "tiny").code == 0
    assert run("keys", "signer", "release.pem").code == 0
    assert run("keys", "trust", "release.pem", "--out", "trust.json").code == 0
    write_directory(Path("params/tiny/v1.0.0"), layered())
    write_directory(Path("params/tiny/v1.1.0"), layered(layer1=0x3E80))
    for version in ("1.0.0", "1.1.0"):
        assert run("publish", f"params/tiny/v{version}", "-s", "store", "--sign", "release.pem").code == 0
    return run


INTO_S3 = ("-s", "s3://models/tiny?endpoint=http://127.0.0.1:1", "--sign", "release.pem")
SEALED = ("-s", "store", "--trust", "trust.json", "--keys", "keys", "--key-ref", "tiny")


def test_publish_prints_nothing_but_the_result_on_stdout(ready: Run) -> None:
    ran = ready("publish", "params/tiny/v1.1.0", "-s", "store", "--sign", "release.pem", "--report", "report.json")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", ran.out)
    assert "was there already" in ran.err
    report = json.loads(Path("report.json").read_text())
    assert report["manifestDigest"] == ran.out.strip()
    assert (report["model"], report["version"]) == ("tiny", "1.1.0")
    assert all(re.fullmatch("[a-z]+([A-Z][a-z]+)*", name) for name in report), "named as fields of the kinds are"


@pytest.mark.parametrize("report", ["absent/report.json", "."])
def test_a_report_that_could_not_be_written_ends_publish_before_it_begins(ready: Run, report: str) -> None:
    write_directory(Path("params/tiny/v1.2.0"), layered(layer2=0x3E80))
    ran = ready("publish", "params/tiny/v1.2.0", "-s", "store", "--sign", "release.pem", "--report", report)
    assert (ran.code, f"{report} cannot be written there" in ran.err) == (Exit.USAGE, True)
    assert not Path("store/versions/1.2.0").exists()


@pytest.mark.parametrize(
    "arguments", [("publish", "params/tiny/v1.1.0", *INTO_S3), ("keys", "kek", "other", "--secret")]
)
def test_a_namespace_that_cannot_be_is_refused_before_anything_is_made(ready: Run, arguments: tuple[str, ...]) -> None:
    ran = ready(*arguments, "--namespace", "Bad_NS")
    assert (ran.code, "'Bad_NS' is no namespace" in ran.err) == (Exit.USAGE, True)
    assert not Path("keys/other").exists()


@pytest.mark.parametrize(
    ("given", "say"),
    [
        (("--cluster-endpoint", "s3.models.svc:7070"), "endpoint: write http"),
        (("--credentials-secret", "Bad_Secret"), "credentialsSecretRef.name: write the name of a Secret"),
    ],
)
def test_what_no_pod_could_be_sent_to_is_said_in_words_and_by_option(
    ready: Run, given: tuple[str, str], say: str
) -> None:
    ran = ready("publish", "params/tiny/v1.1.0", *INTO_S3, *given)
    assert (ran.code, "--cluster-endpoint" in ran.err) == (Exit.USAGE, True)
    assert re.search(say, ran.err)


def test_an_address_s_endpoint_is_refused_in_words(ready: Run) -> None:
    ran = ready("inspect", "-s", "s3://models?endpoint=127.0.0.1:7070")
    assert (ran.code, "endpoint: write http(s)://host" in ran.err) == (Exit.USAGE, True)


def test_ctrl_c_while_the_command_line_is_imported_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "modelparams.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "modelparams.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        begin()
    assert ended.value.code == 130


def test_ctrl_c_in_a_publish_says_that_the_same_command_goes_on(ready: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("modelparams.publish.publish", interrupted)
    ran = ready("publish", "params/tiny/v1.1.0", "-s", "store", "--sign", "release.pem")
    assert (ran.code, "the same command goes on where it ended" in ran.err) == (130, True)


_WORK = ("boto3", "cryptography", "kubernetes", "numpy", "securesystemslib", "torch")


@pytest.mark.parametrize(
    "begun",
    ["sys.argv[1:] = ['--version']", "sys.argv[1:] = ['--help']", "sys.argv[1:] = ['pubilsh']", "completing = True"],
    ids=["version", "help", "typo", "completion"],
)
def test_who_only_asks_what_there_is_waits_for_no_library_of_the_work(begun: str, tmp_path: Path) -> None:
    command = (
        f"import sys; completing = False; {begun}\n"
        "from modelparams.cli import main, completing as of_kubectl\n"
        "try: of_kubectl.main() if completing else main()\n"
        f"finally: print(*(name for name in {_WORK!r} if name in sys.modules), file=open('loaded', 'w'))"
    )
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path, capture_output=True, check=False)
    assert (tmp_path / "loaded").read_text() == "\n"


def test_no_command_leaves_a_core_file_which_would_hold_the_key() -> None:
    command = (
        "import resource, sys; from modelparams.__main__ import main; sys.argv = ['modelparams', 'hash', 'absent']\n"
        "try: main()\n"
        "finally: print(resource.getrlimit(resource.RLIMIT_CORE))"
    )
    ended = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)
    assert ended.stdout == "(0, 0)\n"


def test_a_full_standard_output_has_the_code_of_its_error(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "from modelparams.cli import main; main()", "keys", "signer", "release.pem"]
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(program, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ran.returncode, "standard output cannot be written (No space left on device)" in ran.stderr) == (2, True)
    assert "Exception ignored" not in ran.stderr


def started_with(closed: str, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a shell starts it with a stream closed."""
    program = (sys.executable, "-c", "from modelparams.cli import main; main()", *arguments)
    shell = ("sh", "-c", f'exec "$@" {closed}', "sh", *program)
    return subprocess.run(shell, cwd=directory, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments", ["keys signer s.pem", "keys signer s.pem -o json", "keys trust --out t.json k.pem", "diff a b"]
)
def test_a_closed_standard_output_is_said_where_there_is_a_result(tmp_path: Path, arguments: str) -> None:
    SigningKey.generate().save(tmp_path / "k.pem")
    write_directory(tmp_path / "a", layered())
    write_directory(tmp_path / "b", layered(layer1=0x3E80))
    ran = started_with(">&-", tmp_path, *arguments.split())
    has_result = "--out" not in arguments
    assert (ran.returncode, "standard output is closed" in ran.stderr) == (2 if has_result else 0, has_result)


def test_a_closed_standard_error_takes_what_is_said_and_no_result_and_no_file(tmp_path: Path) -> None:
    SigningKey.generate().save(tmp_path / "k.pem")
    policy = started_with("2>&-", tmp_path, "keys", "trust", "k.pem", "--out", "trust.json")
    assert (policy.returncode, json.loads((tmp_path / "trust.json").read_text())["threshold"]) == (0, 1)
    made = started_with("2>&-", tmp_path, "keys", "signer", "s.pem", "-o", "json")
    assert (made.returncode, json.loads(made.stdout)["file"]) == (0, "s.pem")
    again = started_with("<&- >&- 2>&-", tmp_path, "keys", "signer", "s.pem")
    assert (again.returncode, again.stdout, again.stderr) == (Exit.USAGE, "", "")
    assert SigningKey.load(tmp_path / "s.pem").public.hex() == json.loads(made.stdout)["public"]


def test_what_is_no_terminal_hears_of_each_long_piece_of_work_as_it_begins(ready: Run) -> None:
    ran = ready("verify", "1.1.0", *SEALED[:4])
    assert re.search(r"^verify: \d+\.\d kB to do$", ran.err, flags=re.MULTILINE)


def test_model_and_version_come_from_the_path_or_from_options(ready: Run) -> None:
    write_directory(Path("elsewhere"), layered(layer1=0x3E80))
    ran = ready("publish", "elsewhere", "-s", "store", "--sign", "release.pem")
    assert (ran.code, "--model and --version" in ran.err) == (Exit.USAGE, True)
    ran = ready("publish", "elsewhere", "-s", "store", "--sign", "release.pem", "-m", "tiny", "--version", "1.2.0")
    assert ran.code == 0


def test_a_directory_that_differs_from_its_hashes_says_what_to_run(ready: Run) -> None:
    write_directory(Path("params/tiny/v1.2.0"), layered())
    with Path("params/tiny/v1.2.0/model.safetensors").open("ab") as file:
        file.write(b"x")
    ran = ready("publish", "params/tiny/v1.2.0", "-s", "store", "--sign", "release.pem")
    assert (ran.code, ran.out) == (Exit.INTEGRITY, "")
    assert "modelparams hash" in ran.err
    assert ready("hash", "params/tiny/v1.2.0", "--check").code == Exit.INTEGRITY


def test_nan_is_an_integrity_error(ready: Run) -> None:
    write_directory(Path("params/tiny/v1.2.0"), layered(layer0=NAN))
    ran = ready("publish", "params/tiny/v1.2.0", "-s", "store", "--sign", "release.pem")
    assert (ran.code, "NotFinite" in ran.err) == (Exit.INTEGRITY, True)


def test_hash_writes_none_for_files_that_publish_would_refuse(ready: Run) -> None:
    directory = Path("params/tiny/v1.2.0")
    shutil.copytree("params/tiny/v1.1.0", directory)
    before = (directory / "config.json").read_bytes()
    (directory / "model.safetensors").write_bytes(b"of another format")
    ran = ready("hash", str(directory))
    assert (ran.code, "is no safetensors file" in ran.err) == (Exit.USAGE, True)
    assert (directory / "config.json").read_bytes() == before


def test_a_change_of_keys_is_told_how_and_then_works(ready: Run) -> None:
    assert ready("keys", "signer", "new.pem").code == 0
    assert ready("keys", "trust", "release.pem", "new.pem", "--threshold=2", "--out=two.json").code == 0
    both = ("--sign=release.pem", "--sign=new.pem")
    for keys in (("--sign=new.pem",), (*both, "--trust=two.json")):
        ran = ready("publish", "params/tiny/v1.1.0", "--version=1.3.0", "-s", "store", *keys)
        assert ran.code == Exit.INTEGRITY
        assert "to change keys, publish once under a policy that the last version satisfies" in ran.err.lower()
    assert (
        ready("publish", "params/tiny/v1.1.0", "--version=1.3.0", "-s", "store", *both, "--trust=trust.json").code == 0
    )
    after = ready("publish", "params/tiny/v1.0.0", "--version=1.4.0", "-s", "store", *both, "--trust=two.json")
    assert after.code == 0


def test_hash_writes_and_then_agrees(run: Run) -> None:
    write_directory(Path("v1.0.0"))
    ran = run("hash", "v1.0.0", "--output", "json")
    assert list(ran.json["sha256"]) == ["model.safetensors"]  # type: ignore[call-overload]
    checked = run("hash", "v1.0.0", "--check")
    assert checked.code == 0
    assert re.search(r"^hash: [\d.]+ kB to do$", checked.err, flags=re.MULTILINE)


def test_verify_by_version_and_by_digest(ready: Run) -> None:
    ran = ready("verify", "1.1.0", "-s", "store", "--trust", "trust.json", "-o", "json")
    assert (ran.code, ran.json["version"], ran.json["opened"]) == (0, "1.1.0", False)
    again = ready("verify", ran.json["manifestDigest"], *SEALED, "-o", "json")
    assert (again.code, again.json["version"], again.json["opened"]) == (0, "1.1.0", True)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["verify", "1.1.0", "-s", "store", "--trust", "trust.json"], id="verify"),
        pytest.param(["verify", "1.1.0", *SEALED], id="verify-with-the-key"),
        pytest.param(["diff", "1.0.0", "1.1.0", *SEALED], id="diff"),
    ],
)
def test_a_changed_blob_is_told_by_one_code_and_reason_with_a_key_or_without(ready: Run, command: list[str]) -> None:
    for blob in Path("store/blobs/sha256").iterdir():
        blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    ran = ready(*command, "--output=json")
    assert (ran.code, ran.out) == (Exit.INTEGRITY, "")
    error = json.loads(ran.err.splitlines()[-1])["error"]
    assert (error["reason"], error["exitCode"]) == ("BlobDigestMismatch", Exit.INTEGRITY)


def test_who_finds_a_changed_blob_is_told_how_to_publish_around_it_and_that_heals_it(ready: Run) -> None:
    for blob in Path("store/blobs/sha256").iterdir():
        blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    ran = ready("verify", "1.1.0", "-s", "store", "--trust", "trust.json", "--output=json")
    assert "under a new number with --no-reuse" in json.loads(ran.err.splitlines()[-1])["error"]["nextStep"]
    again = ("publish", "params/tiny/v1.1.0", "--version=1.1.1", "-s", "store", "--sign", "release.pem", "--no-reuse")
    assert ready(*again).code == 0
    assert ready("verify", "1.1.1", "-s", "store", "--trust", "trust.json").code == 0


def test_verify_with_the_key_finds_what_only_a_pod_can_find(ready: Run, tmp_path: Path) -> None:
    publisher = Publisher(tmp_path, signer=SigningKey.load(Path("release.pem")))
    publisher.publish("1.2.0", layered(layer0=NAN), key_ref="tiny", check_finite=False)
    assert ready("verify", "1.2.0", "-s", "store", "--trust", "trust.json").code == 0
    ran = ready("verify", "1.2.0", *SEALED)
    assert (ran.code, "NotFinite" in ran.err) == (Exit.INTEGRITY, True)


def test_verify_with_the_key_of_more_than_the_memory_says_so(ready: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("modelparams.cli.sealed_versions.mmap.mmap", full)
    ran = ready("verify", "1.1.0", *SEALED)
    assert ran.code == Exit.ENGINE
    assert "ArenaExhausted: no memory for " in ran.err
    assert "verify without --keys needs none" in ran.err


def test_verify_with_the_key_of_more_than_the_container_may_take_says_so_before_the_kernel_kills_it(
    ready: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelparams.memory_limit.room", lambda: 1000)
    ran = ready("verify", "1.1.0", *SEALED)
    assert ran.code == Exit.ENGINE
    assert "the container's memory limit leaves 1.0 kB" in ran.err
    assert "verify without --keys needs none" in ran.err
    assert ready("verify", "1.1.0", "-s", "store", "--trust", "trust.json").code == 0


def test_verify_refuses_another_model_and_an_unknown_signer(ready: Run) -> None:
    assert "WrongModel" in ready("verify", "1.1.0", "-s", "store", "--trust", "trust.json", "-m", "other").err
    ready("keys", "signer", "other.pem")
    ready("keys", "trust", "other.pem", "--out", "other.json")
    ran = ready("verify", "1.1.0", "-s", "store", "--trust", "other.json")
    assert (ran.code, "SignerUnknown" in ran.err) == (Exit.INTEGRITY, True)


def test_a_version_that_is_not_there_and_a_key_that_is_not_there_have_their_codes(ready: Run) -> None:
    assert ready("verify", "9.9.9", "-s", "store", "--trust", "trust.json").code == Exit.STORE
    ran = ready("verify", "1.1.0", "-s", "store", "--trust", "trust.json", "--keys", "keys", "--key-ref", "absent")
    assert ran.code == Exit.KEY
    assert ready("verify", "1.x", "-s", "store", "--trust", "trust.json").code == Exit.USAGE


def test_inspect_lists_versions_and_shows_blobs_without_a_key(ready: Run) -> None:
    found = ready("inspect", "-s", "store", "-o", "json").json["versions"]
    assert [(one["version"], one["sequence"]) for one in found] == [("1.0.0", 1), ("1.1.0", 2)]  # type: ignore[attr-defined]
    ran = ready("inspect", "1.1.0", "-s", "store", "--trust", "trust.json", "-o", "json")
    assert len(ran.json["blobs"]) == 6  # type: ignore[arg-type]
    assert "model.layers" not in ran.out
    assert "wrappedKey" not in ran.out


def test_inspect_shows_tensors_to_who_has_the_key(ready: Run) -> None:
    ran = ready("inspect", "1.1.0", *SEALED)
    assert re.search(r"^ *\d+ {2,}model\.layers\.1\.mlp\.weight +BF16 +64x64", ran.out, flags=re.MULTILINE)
    index = ready("inspect", "1.1.0", *SEALED, "-o", "json").json["index"]
    assert "salt" not in index  # type: ignore[operator]


def test_a_key_shows_more_and_hides_nothing(ready: Run) -> None:
    bare, opened = (ready("inspect", "1.1.0", *how, "-o", "json").json for how in (SEALED[:4], SEALED))
    assert {name: value for name, value in opened.items() if name != "index"} == bare
    assert "signed by" in ready("inspect", "1.1.0", *SEALED).out


def test_the_tensors_of_both_sides_are_counted(ready: Run) -> None:
    write_directory(Path("more"), layered() | {"model.extra.weight": layered()["model.norm.weight"]})
    ran = ready("diff", "params/tiny/v1.0.0", "more")
    assert f"1 tensor differs, of {len(layered()) + 1}" in ran.out


def test_a_directory_that_is_not_there_is_not_taken_for_a_version(ready: Run) -> None:
    ran = ready("diff", "params/tiny/v1.0.0", "params/tiny/v9.0.0", *SEALED)
    assert (ran.code, "there is no directory params/tiny/v9.0.0" in ran.err) == (Exit.USAGE, True)


def test_a_key_that_is_not_there_is_told_with_its_place(ready: Run) -> None:
    ran = ready("verify", "1.1.0", *SEALED[:4], "--keys", "elsewhere", "--key-ref", "tiny")
    assert (ran.code, "elsewhere/tiny (No such file or directory)" in ran.err) == (Exit.KEY, True)


def test_a_profile_that_is_not_there_is_what_to_correct(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nosuch")
    ran = run("inspect", "-s", "s3://models")
    assert (ran.code, "→ correct AWS_PROFILE" in ran.err) == (Exit.USAGE, True)


def test_an_option_that_is_no_version_is_told_of_and_not_the_directory(ready: Run) -> None:
    ran = ready("publish", "params/tiny/v1.1.0", "-s", "store", "--sign", "release.pem", "--version", "2.0.0-RC1")
    assert (ran.code, ran.err.startswith("InvalidVersion: '2.0.0-RC1' is no semantic version\n")) == (Exit.USAGE, True)


@pytest.mark.parametrize(
    "sides",
    [("1.0.0", "1.1.0"), ("params/tiny/v1.0.0", "params/tiny/v1.1.0"), ("params/tiny/v1.0.0", "1.1.0")],
    ids=["sealed", "directories", "one of each"],
)
def test_diff_names_the_changed_tensor_and_by_how_much(ready: Run, sides: tuple[str, str]) -> None:
    sealed = () if all(Path(side).is_dir() for side in sides) else SEALED
    ran = ready("diff", *sides, *sealed, "-o", "json")
    (found,) = ran.json["different"]  # type: ignore[misc]
    before, after = 0x3F01, 0x3E80  # bf16 bit patterns: 0.50390625 and 0.25
    assert (before, after) == (0x3F01, 0x3E80)
    assert (found["name"], found["what"], found["elements"]) == ("model.layers.1.mlp.weight", "changed", 64 * 64)
    assert found["maxAbs"] == 0.50390625 - 0.25
    assert found["relativeL2"] == pytest.approx((0.50390625 - 0.25) / 0.50390625)


def test_diff_names_changed_small_files_and_no_table_is_empty(ready: Run) -> None:
    directory = write_directory(Path("params/tiny/v1.2.0"), layered(), tokenizer='{"a": 1}', added="{}")
    published = ready("publish", directory, "-s", "store", "--sign", "release.pem")
    for sides in (("1.0.0", "1.2.0", *SEALED), ("1.0.0", directory, *SEALED), ("params/tiny/v1.0.0", directory)):
        found = ready("diff", *sides, "-o", "json").json
        assert (found["different"], published.code) == ([], 0)
        assert found["files"] == [
            {"name": "added.json", "what": "added"},
            {"name": "tokenizer.json", "what": "changed"},
        ]
        assert ready("diff", *sides, "--exit-code").code == 1
    shown = ready("diff", "params/tiny/v1.0.0", directory).out
    assert re.search(r"^no tensor differs, of 8$", shown, flags=re.MULTILINE)
    assert re.search(r"^tokenizer\.json +changed$", shown, flags=re.MULTILINE)
    assert "elements" not in shown
    same = ready("diff", "params/tiny/v1.0.0", "params/tiny/v1.0.0").out.splitlines()
    assert same == ["no tensor differs, of 8", "no small file differs"]


def test_of_a_config_its_hashes_are_no_difference_and_the_rest_is(ready: Run) -> None:
    sides = ("params/tiny/v1.0.0", "params/tiny/v1.1.0", "-o", "json")
    assert ready("diff", *sides).json["files"] == []
    config = Path("params/tiny/v1.1.0/config.json")
    config.write_text(config.read_text().replace("tiny", "tinier"))
    assert ready("diff", *sides).json["files"] == [{"name": "config.json", "what": "changed"}]


def test_a_digest_is_one_word_on_a_terminal_of_80_columns(ready: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_WIDE", 80)
    shown = ready("inspect", "1.1.0", "-s", "store", "--trust", "trust.json").out
    digest = ready("inspect", "1.1.0", "-s", "store", "--trust", "trust.json", "-o", "json").json["manifestDigest"]
    assert str(digest) in shown.split()
    assert [line for line in shown.splitlines() if line.endswith(" ")] == []
    told = ready("publish", "params/tiny/v1.1.0", "-s", "store", "--sign", "release.pem").err
    assert str(digest) in told.split()


@pytest.mark.parametrize(("columns", "is_whole"), [(200, True), (60, False)])
def test_a_narrow_terminal_leaves_the_names_of_changed_tensors_some_room(
    ready: Run, monkeypatch: pytest.MonkeyPatch, columns: int, is_whole: bool
) -> None:
    monkeypatch.setattr(output, "_WIDE", columns)
    shown = ready("diff", "params/tiny/v1.0.0", "params/tiny/v1.1.0").out
    assert ("BF16" in shown, "64x64" in shown) == (is_whole, is_whole)
    assert re.search(r"^model\.layers\.1\.", shown, flags=re.MULTILINE)
    assert "elements" in shown


def test_a_limit_is_the_table_s_and_json_has_all(ready: Run) -> None:
    write_directory(Path("params/tiny/v1.2.0"), layered(layer0=0x3E80, layer1=0x3E80))
    sides = ("params/tiny/v1.0.0", "params/tiny/v1.2.0", "--limit", "1")
    assert "1 more" in ready("diff", *sides).err
    whole = ready("diff", *sides, "-o", "json")
    assert (len(whole.json["different"]), whole.err) == (2, "")  # type: ignore[arg-type]


def test_a_version_can_be_published_with_its_end(ready: Run) -> None:
    write_directory(Path("params/tiny/v1.2.0"), layered())
    publish = ("publish", "params/tiny/v1.2.0", "-s", "store", "--sign", "release.pem", "--not-after")
    for no_time in ("soon", "2099-01-31T00:00:00", "9999-12-31T23:59:59-23:00"):
        refused = ready(*publish, no_time)
        assert (refused.code, "is no time with its zone" in refused.err) == (Exit.USAGE, True)
    assert ready(*publish, "2099-01-31T02:00:00+02:00").code == 0
    shown = ready("inspect", "1.2.0", "-s", "store", "--trust", "trust.json", "-o", "json")
    assert shown.json["notAfter"] == "2099-01-31T00:00:00Z"


@pytest.mark.parametrize(
    ("store", "option", "variables", "endpoint"),
    [
        ("s3://weights/p", "", {"AWS_ENDPOINT_URL": "https://a.example.com"}, "https://a.example.com"),
        (
            "s3://weights/p",
            "",
            {"AWS_ENDPOINT_URL": "https://a.example.com", "AWS_ENDPOINT_URL_S3": "https://s.example.com"},
            "https://s.example.com",
        ),
        (
            "s3://weights/p",
            "https://c.example.com",
            {"AWS_ENDPOINT_URL": "https://a.example.com"},
            "https://c.example.com",
        ),
        (
            "s3://weights/p?endpoint=https://u.example.com",
            "",
            {"AWS_ENDPOINT_URL": "https://a.example.com"},
            "https://u.example.com",
        ),
        (
            "s3://weights/p",
            "",
            {"AWS_ENDPOINT_URL": "https://a.example.com", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
            "",
        ),
        ("s3://weights/p", "", {}, ""),
    ],
)
def test_pods_are_sent_where_the_publish_went(
    monkeypatch: pytest.MonkeyPatch, store: str, option: str, variables: dict[str, str], endpoint: str
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    source = releasing.source_of_pods(store, option, "")
    assert source is not None
    assert source.endpoint == endpoint


@pytest.mark.parametrize(
    ("endpoint", "is_told"),
    [
        ("http://127.0.0.1:7070", True),
        ("http://localhost:7070", True),
        ("http://[::1]:7070", True),
        ("http://s3.models.svc:7070", False),
        ("", False),
    ],
)
def test_an_endpoint_where_each_pod_would_find_itself_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, endpoint: str, is_told: bool
) -> None:
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert releasing.source_of_pods(f"s3://weights/p?endpoint={endpoint}" if endpoint else "s3://weights/p", "", "")
    assert ("--cluster-endpoint names the store as they see it" in capsys.readouterr().err) is is_told


def test_diff_can_end_as_git_diff_does(ready: Run) -> None:
    assert ready("diff", "1.0.0", "1.1.0", *SEALED, "--exit-code").code == 1
    assert ready("diff", "1.0.0", "1.0.0", *SEALED, "--exit-code").code == 0


def test_diff_of_what_is_neither_directory_nor_version_says_what_it_takes(run: Run) -> None:
    ran = run("diff", "here", "there")
    assert (ran.code, "--store URL and --trust FILE" in ran.err) == (Exit.USAGE, True)


def test_a_kek_is_private_usable_and_never_replaced(run: Run) -> None:
    assert run("keys", "kek", "tiny").code == 0
    path = Path("keys/tiny")
    first = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    parse_kek(first)
    again = run("keys", "kek", "tiny")
    assert (again.code, "keep it safe" in again.err) == (Exit.USAGE, False)
    assert path.read_bytes() == first


def test_a_kek_is_printed_as_a_secret_that_pods_can_mount(run: Run) -> None:
    import base64

    secret = run("keys", "kek", "tiny", "--secret", "-n", "serving").json
    assert secret["metadata"] == {"name": "tiny", "namespace": "serving"}
    mounted = base64.b64decode(secret["data"]["key"])  # type: ignore[index]
    assert parse_kek(mounted) == parse_kek(Path("keys/tiny").read_bytes())


@pytest.mark.parametrize("name", ["../outside", "Upper", "a/b", ""])
def test_a_kek_s_name_is_a_secret_s_name(run: Run, name: str) -> None:
    assert run("keys", "kek", name).code == Exit.USAGE
    assert list(Path().iterdir()) == []


def test_trust_takes_private_and_public_files_and_hex_and_a_threshold(run: Run) -> None:
    hexadecimal = run("keys", "signer", "a.pem", "-o", "json").json["public"]
    run("keys", "signer", "b.pem")
    trust = run("keys", "trust", hexadecimal, "b.pem", "--threshold", 2).json
    assert (trust["threshold"], len(trust["keys"])) == (2, 2)  # type: ignore[arg-type]
    assert run("keys", "trust", "a.pem").json["keys"] == run("keys", "trust", hexadecimal).json["keys"]
    assert run("keys", "trust", "a.pem", "--threshold", 2).code == Exit.USAGE
    assert run("keys", "trust", "nonsense").code == Exit.USAGE


def test_an_existing_signing_key_is_not_overwritten(run: Run) -> None:
    run("keys", "signer", "a.pem")
    assert run("keys", "signer", "a.pem").code == Exit.USAGE


@pytest.mark.parametrize(
    "arguments",
    ["", "keys", "keys kek", "keys signer", "keys trust", "hash", "publish", "verify", "inspect", "diff"],
)
def test_every_command_explains_itself(run: Run, arguments: str) -> None:
    ran = run(*arguments.split(), "--help")
    assert ran.code == 0
    assert len(ran.out.split()) > 20
    assert "Usage: modelparams" in ran.out


def test_as_a_plugin_of_kubectl_it_calls_itself_so(run: Run) -> None:
    assert "Usage: kubectl modelparams" in run("--help", program="/usr/bin/kubectl-modelparams").out


def test_completion_is_offered_for_the_shell(run: Run) -> None:
    assert "--install-completion" in run("--help").out


@pytest.mark.parametrize(
    "arguments",
    [
        "keys",
        "keys kek",
        "keys signer",
        "keys trust",
        "hash",
        "publish",
        "verify",
        "inspect",
        "diff",
        "serve",
        "status",
        "history",
        "explain",
        "approve",
        "",
    ],
)
def test_every_command_tells_its_exit_codes(run: Run, arguments: str) -> None:
    said = " ".join(run(*arguments.split(), "--help").out.split())
    assert "Exit codes: 0 done;" in said
    assert all(f" {int(code)} " in f" {said} " for code in Exit)


def test_the_page_s_table_of_exit_codes_has_each_and_no_other() -> None:
    _, _, below = (Path(__file__).parents[3] / "docs" / "your-model.md").read_text().partition("## Exit codes\n")
    told = [
        int(code) for cells in re.findall(r"^\| ([0-9, ]+) \|", below, flags=re.MULTILINE) for code in cells.split(",")
    ]
    assert told == sorted({*map(int, Exit), 10, 11, 12, 130})


def test_a_bug_is_no_difference(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a wrong \x1b[31mturn")

    monkeypatch.setattr("modelparams.hashes.check_hashes", broken)
    ran = run("hash", ".", "--check")
    assert (ran.code, ran.out) == (Exit.BUG, "")
    assert "Traceback" in ran.err
    assert "InternalError: RuntimeError: a wrong \\u001b[31mturn\n→ this is a bug: please report it" in ran.err
    assert "\x1b" not in ran.err
    told = json.loads(run("hash", ".", "--check", "-o", "json").err.splitlines()[-1])
    assert told["error"]["exitCode"] == Exit.BUG


def test_a_reader_that_has_gone_is_no_difference(ready: Run, tmp_path: Path) -> None:
    program = "import os, sys; os.read(0, 1); from modelparams.cli import main; main()"
    for arguments in (["inspect", "-s", "store"], ["inspect", "-s", "store", "-o", "json"], ["--help"]):
        with subprocess.Popen(
            [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as started:
            assert started.stdout
            assert started.stdin
            started.stdout.close()
            started.stdin.close()
        assert started.returncode == Exit.PIPE


@pytest.mark.parametrize(
    "arguments",
    [
        "inspect -s none",
        "inspect 1.0.0 -s none --trust trust.json",
        "verify 1.0.0 -s none --trust trust.json",
        "verify 1.0.0 -s file:///none --trust trust.json",
        "diff 1.0.0 1.1.0 -s none --trust trust.json --keys keys",
    ],
)
def test_a_store_that_is_not_there_is_no_empty_store(ready: Run, arguments: str) -> None:
    ran = ready(*arguments.split())
    assert (ran.code, ran.out) == (Exit.STORE, "")
    assert re.match(r"ObjectMissing: there is no directory file:///.*none\n→ check --store", ran.err)


def test_a_publish_makes_a_new_directory_and_says_so(ready: Run) -> None:
    publish = ("publish", "params/tiny/v1.0.0", "--sign", "release.pem", "-s", "new")
    assert re.search(r"there is no directory file:///.*/new yet: it will be made", ready(*publish).err)
    assert "there is no directory" not in ready(*publish).err


def test_publish_into_a_directory_prints_the_digest_as_it_was_asked_to(ready: Run) -> None:
    publish = ("publish", "params/tiny/v1.1.0", "-s", "store", "--sign", "release.pem")
    digest = ready(*publish).out.strip()
    assert ready(*publish, "-o", "json").json == {"manifestDigest": digest}
    assert "the manifest digest" in run_words(ready("publish", "--help").out)


def run_words(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def test_a_trust_policy_is_replaced_only_by_force(run: Run) -> None:
    run("keys", "signer", "a.pem")
    run("keys", "signer", "b.pem")
    assert run("keys", "trust", "a.pem", "--out", "trust.json").code == 0
    before = Path("trust.json").read_text()
    refused = run("keys", "trust", "b.pem", "--out", "trust.json")
    assert (refused.code, "trust.json exists" in refused.err, "--force" in refused.err) == (Exit.USAGE, True, True)
    assert Path("trust.json").read_text() == before
    assert run("keys", "trust", "b.pem", "--out", "trust.json", "--force").code == 0
    assert Path("trust.json").read_text() != before


@pytest.mark.parametrize(
    ("arguments", "idle"),
    [
        ("verify 1.1.0 -s store --trust trust.json --key-ref tiny", "--key-ref does nothing without --keys"),
        ("inspect 1.1.0 -s store --trust trust.json --key-ref tiny", "--key-ref does nothing without --keys"),
        ("inspect -s store --trust trust.json -m tiny", "--trust and --model do nothing without RELEASE"),
        ("diff params/tiny/v1.0.0 params/tiny/v1.1.0 -s store", "--store does nothing between two directories"),
        (
            "publish params/tiny/v1.1.0 -s store --sign release.pem --cluster-endpoint https://s -n models",
            "--namespace and --cluster-endpoint do nothing for a store in a directory",
        ),
        ("keys kek other -n models", "--namespace does nothing without --secret"),
        ("keys trust release.pem --force", "--force does nothing without --out"),
        ("status --timeout 5", "--timeout does nothing without --watch"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(ready: Run, arguments: str, idle: str) -> None:
    ran = ready(*arguments.split())
    assert (ran.code, idle in ran.err) == (Exit.USAGE, True), ran.err


def test_a_variable_may_stand_for_other_commands(ready: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("KEY_REF", "tiny"), ("TRUST", "trust.json"), ("MODEL", "tiny"), ("STORE", "store")):
        monkeypatch.setenv(f"MODELPARAMS_{name}", value)
    assert ready("verify", "1.1.0").code == 0
    assert ready("inspect").code == 0
    assert ready("diff", "params/tiny/v1.0.0", "params/tiny/v1.1.0").code == 0


def test_words_of_strangers_do_not_steer_the_terminal(ready: Run) -> None:
    hostile = "evil\x9b31m\u202e[/b][red]"
    tensors = layered() | {hostile: layered()["model.norm.weight"]}
    write_directory(Path("params/tiny/v1.2.0"), tensors)
    assert ready("publish", "params/tiny/v1.2.0", "-s", "store", "--sign", "release.pem").code == 0
    shown = ready("inspect", "1.2.0", *SEALED)
    assert (shown.code, r"evil\u009b31m\u202e[/b][red]" in shown.out) == (0, True)
    as_json = ready("inspect", "1.2.0", *SEALED, "-o", "json")
    for text in (shown.out, as_json.out):
        assert "\x9b" not in text
        assert "\u202e" not in text
    names = [tensor["name"] for tensor in as_json.json["index"]["tensors"]]  # type: ignore[index]
    assert hostile in names


def test_a_wrong_command_suggests_the_right_one(run: Run) -> None:
    ran = run("vrify")
    assert (ran.code, "verify" in ran.err) == (Exit.USAGE, True)


class Point:
    """An installed entry point whose module needs a library that is not there."""

    name = "serve"

    @staticmethod
    def load() -> Callable[..., None]:
        def serve(model: str) -> None:
            """Serve."""
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

        return serve


class Absent(Point):
    @staticmethod
    def load() -> Callable[..., None]:
        raise ModuleNotFoundError("No module named 'modelparams_serving'", name="modelparams_serving")


@pytest.mark.parametrize("points", [[], [Absent()], [Point()]], ids=["none", "module absent", "library absent"])
def test_a_command_of_an_extra_that_is_missing_teaches_which_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch, points: list[EntryPoint]
) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    ran = run("serve", "smollm2")
    assert (ran.code, "pip install 'modelparams[serving]'" in ran.err) == (Exit.USAGE, True)
    assert "modelparams[serving]" in run("--help").out or points


def test_an_installed_command_runs_with_its_own_options(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def greet(name: str, loud: bool = False) -> None:
        """Greet."""
        typer.echo(name.upper() if loud else name)

    def whole() -> typer.Typer:
        app = typer.Typer()
        app.command("one")(greet)
        app.command("two")(greet)
        return app

    class Found:
        def __init__(self, name: str, made: object) -> None:
            self.name, self.load = name, lambda: made

    monkeypatch.setattr(plugins, "entry_points", lambda group: [Found("greet", greet), Found("many", whole())])
    assert run("greet", "you", "--loud").out == "YOU\n"
    assert run("many", "two", "you").out == "you\n"


@pytest.mark.parametrize("kind", every_kind())
def test_every_error_has_an_exit_code(kind: type) -> None:
    known = exit_code(kind("x"))
    assert known is not Exit.OK
    assert known is not Exit.BUG or not issubclass(kind, SwapError)


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (272_599_776, "272.6 MB"), (10**13, "10.0 TB")]
)
def test_sizes_are_decimal(number: int, text: str) -> None:
    assert size(number) == text


def test_help_breaks_paragraphs_and_never_examples(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ran = run("--help")
    assert "\n     modelparams keys kek smollm2 --secret | kubectl apply -f -  " in ran.out
    assert "\n     modelparams status smollm2 --watch  " in ran.out
    trust = run("keys", "trust", "--help").out
    assert "\n     kubectl create configmap modelparams-trust --from-file trust.json  " in trust


@pytest.mark.parametrize("command", ["keys kek", "keys trust", "publish", "diff", "serve", "status", ""])
def test_no_example_of_the_help_is_too_wide_for_80_columns(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    shown = {}
    for columns in ("80", "300"):
        monkeypatch.setenv("COLUMNS", columns)
        text = run(*command.split(), "--help").out
        shown[columns] = [line.strip() for line in text.splitlines() if line.startswith("     ")]
    assert shown["80"] == shown["300"] != []


@pytest.mark.parametrize("command", ["publish", "diff", "serve"])
def test_examples_look_for_keys_where_another_example_made_them(run: Run, command: str) -> None:
    places = re.findall(r"--keys (\S+)", run(command, "--help").out)
    assert {Path(place).name for place in places} == {"keys"}


@pytest.mark.parametrize(
    "command",
    ["", "keys kek", "keys signer", "keys trust", "hash", "publish", "verify", "inspect", "diff", "serve", "status"],
)
def test_no_word_of_the_help_is_cut_in_80_columns(run: Run, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    words = {}
    for columns in ("80", "300"):
        monkeypatch.setenv("COLUMNS", columns)
        words[columns] = {word for word in run(*command.split(), "--help").out.split() if "─" not in word}
    assert words["300"] - words["80"] == set()


def test_a_full_disk_behind_standard_output_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # Unbuffered, since what it could not write, it would try to write again at its end.
    with Path("/dev/full").open("wb", buffering=0) as full, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", io.TextIOWrapper(full, write_through=True))
        ran = run("keys", "kek", "tiny", "--secret")
    assert ran.code == Exit.USAGE
    assert "standard output cannot be written (No space left on device)" in ran.err


@pytest.mark.parametrize(
    "arguments", ["keys trust release.pem --out none/trust.json", "keys trust .", "keys kek k --keys release.pem"]
)
def test_a_file_that_cannot_be_used_is_named(run: Run, arguments: str) -> None:
    run("keys", "signer", "release.pem")
    ran = run(*arguments.split())
    assert ran.code == Exit.USAGE
    assert re.search(r"^Usage: (none/trust.json|\.|release.pem) .*\n→ ", ran.err)


def test_more_signatures_than_keys_is_said_in_the_words_of_the_command(run: Run) -> None:
    run("keys", "signer", "release.pem")
    ran = run("keys", "trust", "release.pem", "release.pem", "--threshold", "2")
    assert (ran.code, "--threshold" in ran.err) == (Exit.USAGE, True)


def test_a_key_is_sought_by_the_model_s_name_unless_another_is_given(ready: Run) -> None:
    ran = ready("verify", "1.1.0", "-s", "store", "--trust", "trust.json", "--keys", "keys", "-o", "json")
    assert (ran.code, ran.json["opened"]) == (0, True)
    assert ready("verify", "1.1.0", *SEALED[:-1], "other").code == Exit.KEY


def test_a_wrong_key_is_not_answered_with_a_new_one(ready: Run) -> None:
    assert ready("keys", "kek", "other").code == 0
    ran = ready("verify", "1.1.0", *SEALED[:-1], "other")
    assert ran.code == Exit.KEY
    assert "the key that the model was sealed with" in ran.err
    assert "only for a model that was never published" in ran.err


@pytest.mark.parametrize("kind", [kind for kind in every_kind() if not issubclass(kind, APIError | SwapError)])
def test_a_command_promises_no_second_try(kind: type[ModelParamsError]) -> None:
    assert "tried again" not in next_step(kind("it broke"))
    assert next_step(kind("it broke", hint="wait; it is tried again")) == "wait"


def test_kubectl_is_told_what_may_follow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def completed(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["kubectl_complete-modelparams", *words])
        completing.main()
        return capsys.readouterr().out

    for name in ("_MODELPARAMS_COMPLETE", "COMP_WORDS", "COMP_CWORD"):
        monkeypatch.setenv(name, "")
    assert completed("ins") == "inspect\n:0\n"
    assert completed("keys", "") == "kek\nsigner\ntrust\n:0\n"
    assert completed("verify", "--tr") == "--trust\n:0\n"
    assert completed("hash", "par") == ":0\n"


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--floor", "99", "the floor 99 is above 3, the sequence that comes next"),
        ("--not-after", "2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z has passed: no pod would serve the version"),
    ],
)
def test_what_no_pod_could_serve_is_refused_before_anything_is_sent(
    ready: Run, option: str, value: str, says: str
) -> None:
    before = sorted(Path("store").rglob("*"))
    ran = ready(
        "publish", "params/tiny/v1.1.0", "-s", "store", "--sign", "release.pem", "--version", "1.5.0", option, value
    )
    assert (ran.code, says in ran.err) == (Exit.USAGE, True)
    assert sorted(Path("store").rglob("*")) == before


def test_another_layout_is_published_with_a_warning(ready: Run) -> None:
    write_directory(Path("params/tiny/v1.2.0"), layered(size=32))
    ran = ready("publish", "params/tiny/v1.2.0", "-s", "store", "--sign", "release.pem")
    assert (ran.code, "warning: its tensors have other names, shapes or dtypes" in ran.err) == (0, True)
    assert "warning" not in ready("publish", "params/tiny/v1.1.0", "-s", "store", "--sign", "release.pem").err


def test_a_manifest_that_is_nested_without_end_is_no_manifest(ready: Run) -> None:
    envelope = json.dumps({"payload": base64.b64encode(b"[" * 100_000).decode()}).encode()
    key = Path("store", manifest_key(digest := Digest.of(envelope)))
    key.write_bytes(envelope)
    ran = ready("verify", digest, "-s", "store", "--trust", "trust.json")
    assert (ran.code, "is no manifest" in ran.err) == (exit_code(ManifestInvalid("")), True)
