"""Which variables of an environment are meant for us and read by none of our programs."""

from __future__ import annotations

import pytest

from modelparams.variables import KNOWN, PREFIX, unknown
from modelparams_operator.settings import Settings
from modelparams_serving.agent.settings import AgentSettings
from modelparams_serving.engine.settings import EngineSettings

COMMAND_LINE = {f"{PREFIX}{name}" for name in ("STORE", "TRUST", "KEYS", "KEY_REF", "MODEL")}


def test_what_is_known_is_what_the_programs_read() -> None:
    settings = (Settings, AgentSettings, EngineSettings)
    assert {f"{PREFIX}{name.upper()}" for kind in settings for name in kind.model_fields} | COMMAND_LINE == KNOWN


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("MODELPARAMS_RESYCN", "MODELPARAMS_RESYNC"),
        ("MODELPARAMS_LEASE_RENEWAL_DEADLINE", "MODELPARAMS_LEASE_RENEW_DEADLINE"),
        ("MODELPARAMS_METRICSPORT", "MODELPARAMS_METRICS_PORT"),
        ("MODELPARAMS_SOMETHING_ELSE", ""),
    ],
)
def test_a_mistyped_variable_is_found_with_the_nearest_that_is_read(name: str, nearest: str) -> None:
    assert list(unknown({name: "30", "HOME": "/"})) == [(name, nearest)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("MODELPARAMS_RESYNC", "30", id="one-of-the-operator"),
        pytest.param("MODELPARAMS_KEY_REF", "mine", id="one-of-the-command-line"),
        pytest.param("modelparams_threads", "3", id="in-lower-case"),
        pytest.param("MODELPARAMS", "x", id="not-our-prefix"),
        pytest.param("MODELPARAMS_SERVICE_HOST", "10.0.0.1", id="a-service-of-our-name"),
        pytest.param("MODELPARAMS_OPERATOR_SERVICE_PORT_METRICS", "9464", id="a-service-s-named-port"),
        pytest.param("MODELPARAMS_OPERATOR_PORT", "tcp://10.0.0.1:9464", id="a-service-s-link"),
        pytest.param("MODELPARAMS_OPERATOR_PORT_9464_TCP_PROTO", "tcp", id="a-part-of-its-link"),
    ],
)
def test_ours_and_what_kubernetes_makes_of_services_are_no_mistakes(name: str, value: str) -> None:
    assert list(unknown({name: value})) == []
