"""A setting that cannot be ends the process with a line that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelparams.errors import UsageError
from modelparams_serving.engine.settings import EngineSettings
from modelparams_serving.starting import started


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("MODELPARAMS_PORT", "http", "modelparams-serve: MODELPARAMS_PORT: "),
        ("MODELPARAMS_LOG_LEVEL", "loud", "modelparams-serve: 'loud' is no log level"),
    ],
)
def test_a_variable_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        started("modelparams-serve", EngineSettings)
    assert str(ended.value).startswith(says)
    assert "\n" not in str(ended.value)


@pytest.mark.model
def test_a_device_that_is_not_there_is_named() -> None:
    from modelparams_serving.engine.device import choose

    with pytest.raises(UsageError, match="abacus cannot be used"):
        choose("abacus")


@pytest.mark.model
def test_a_runtime_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    from modelparams_serving.engine.__main__ import _make

    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file/run cannot be made"):
        _make(tmp_path / "file" / "run")
