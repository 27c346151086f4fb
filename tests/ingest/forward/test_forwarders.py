"""Which forwarders the settings ask for."""

import subprocess
import sys

import pytest
from pydantic import SecretStr

from ingest.forward.forwarders import forwarders_of, sinks_of
from ingest.forward.rabbitmq import RabbitMq
from ingest.forward.redis_streams import RedisStream
from tests.conftest import ROOT
from zenthos_core.errors import ConfigurationError
from zenthos_core.settings import Settings


def test_none_by_default() -> None:
    assert forwarders_of(Settings()) == []


@pytest.mark.parametrize("tls", ["", "s"])
def test_one_for_each_url(tls: str) -> None:
    settings = Settings(
        forward_amqp_url=SecretStr(f"amqp{tls}://user:secret@rabbit/"),
        forward_redis_url=SecretStr(f"redis{tls}://:secret@redis"),
    )
    sinks = sinks_of(settings)
    assert {name: type(sink) for name, sink in sinks.items()} == {
        "rabbitmq": RabbitMq,
        "redis": RedisStream,
    }
    assert [forwarder.name for forwarder in forwarders_of(settings)] == ["rabbitmq", "redis"]


@pytest.mark.parametrize("setting", ["forward_amqp_url", "forward_redis_url"])
def test_a_url_of_something_else_is_refused_without_its_password(setting: str) -> None:
    settings = Settings(**{setting: SecretStr("http://user:secret@host")})
    with pytest.raises(ConfigurationError, match=f"ZENTHOS_{setting.upper()} must") as caught:
        forwarders_of(settings)
    assert "secret" not in str(caught.value)


def test_ingest_ends_with_the_reason() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ingest"],
        env={"PYTHONPATH": str(ROOT), "ZENTHOS_FORWARD_AMQP_URL": "rabbit:5672"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "ZENTHOS_FORWARD_AMQP_URL must begin with amqp:// or amqps://" in done.stderr
