"""How a command ends if it can't do its work."""

import re

from broker.settings import Settings, is_secret
from tests.consumer.processes import Process

SOON_S = 30.0  # 10 s in case the broker comes back, plus time for a busy machine


def ends_in_one_sentence(process: Process, settings: Settings, *, sentence: str) -> None:
    """Requires one sentence on stderr that matches `sentence`, exit code 1, soon, without a traceback or a secret."""
    code = process.wait(timeout=SOON_S)
    told = [line for line in process.log.splitlines() if line.startswith("vitalstream: ")]
    assert code == 1, process.log
    assert len(told) == 1, process.log
    assert re.search(sentence, told[0]), process.log
    assert "Traceback" not in process.log
    assert process.out == ""
    for name, value in settings.kafka.items():
        assert not is_secret(name) or value not in process.log, process.log
