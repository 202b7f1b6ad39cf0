"""Clients that are refused learn why: in one sentence, soon, and without a secret."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from broker.settings import Settings
from tests.consumer.processes import Process
from tests.security.certificates import Authority
from tests.security.conftest import Run
from tests.security.endings import ends_in_one_sentence
from tests.security.secured import SecuredKafka

pytestmark = pytest.mark.kafka

PASSWORD = "canary-of-a-key"

UNVERIFIED = r"presents a certificate that can't be verified; check ssl\.ca\.location"
NO_TLS = r"and this client do not agree on TLS; check security\.protocol"
NO_CERTIFICATE = r"rejects this client's certificate, or requires one; check ssl\.certificate\.location"
NO_ANSWER = (
    r"can't reach Kafka at .* close without an answer; check security\.protocol \(-X\) if it requires TLS"
)
CREDENTIALS = r"rejects the credentials; check sasl\.mechanism, sasl\.username and sasl\.password"

Change = Callable[[SecuredKafka, Settings, Authority], Settings]


def _wrong_password(secured: SecuredKafka, settings: Settings, _: Authority) -> Settings:
    user = secured.user(settings)
    return user.model_copy(update={"kafka": user.kafka | {"sasl.password": "canary-of-a-wrong-one"}})


def _unknown_user(secured: SecuredKafka, settings: Settings, _: Authority) -> Settings:
    user = secured.user(settings)
    return user.model_copy(update={"kafka": user.kafka | {"sasl.username": "nobody"}})


def _foreign_certificate(secured: SecuredKafka, settings: Settings, foreign: Authority) -> Settings:
    one = foreign.issue("worker", password=PASSWORD)
    return secured.at("MTLS", settings, **one.properties(PASSWORD))


def _plain_text(listener: str) -> Change:
    return lambda secured, settings, _: settings.model_copy(
        update={"bootstrap_servers": secured.address(listener)}
    )


def _tls_to_plain_text(secured: SecuredKafka, settings: Settings, _: Authority) -> Settings:
    secure = secured.at("TLS", settings)
    return secure.model_copy(update={"bootstrap_servers": secured.bootstrap_servers})


STRANGERS: Mapping[str, tuple[Change, str]] = {
    "wrong authority": (
        lambda secured, settings, foreign: secured.at(
            "TLS", settings, **{"ssl.ca.location": str(foreign.certificate)}
        ),
        UNVERIFIED,
    ),
    "expired": (lambda secured, settings, _: secured.at("EXPIRED", settings), UNVERIFIED),
    "wrong host name": (lambda secured, settings, _: secured.at("MISNAMED", settings), UNVERIFIED),
    "no client certificate": (lambda secured, settings, _: secured.at("MTLS", settings), NO_CERTIFICATE),
    "foreign client certificate": (_foreign_certificate, NO_CERTIFICATE),
    "wrong password": (_wrong_password, CREDENTIALS),
    "unknown user": (_unknown_user, CREDENTIALS),
    "plain text to TLS": (_plain_text("TLS"), NO_ANSWER),
    "plain text to SASL_SSL": (_plain_text("SCRAM"), NO_ANSWER),
    "plain text to SASL_PLAINTEXT": (_plain_text("BARE"), NO_ANSWER),
    "TLS to plain text": (_tls_to_plain_text, NO_TLS),
}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("foreign") / "authority")


@pytest.fixture(scope="module")
def refused(
    secured: SecuredKafka, module_settings: Settings, foreign: Authority, model: Path, run: Run
) -> dict[str, tuple[Process, Settings]]:
    """One worker per reason to be refused, all started at once, because they mostly wait."""
    settings = module_settings.model_copy(update={"model": model})
    cases = {name: change(secured, settings, foreign) for name, (change, _) in STRANGERS.items()}
    return {name: (run(changed, "consume"), changed) for name, changed in cases.items()}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_refused_client_learns_why(stranger: str, refused: dict[str, tuple[Process, Settings]]) -> None:
    ends_in_one_sentence(*refused[stranger], sentence=STRANGERS[stranger][1])
