"""How a command ends that can't do its work."""

import re

from broker.settings import Settings, is_secret
from tests.consumer.processes import Process

SOON_S = 30.0  # 10 s for a broker that may be about to come back; and the machine is busy


def ends_in_one_sentence(process: Process, settings: Settings, *, sentence: str) -> None:
    """One sentence on stderr, which `sentence` matches; exit code 1; soon; no trace, no secret."""
    code = process.wait(timeout=SOON_S)
    told = [line for line in process.log.splitlines() if line.startswith("vitalstream: ")]
    assert code == 1, process.log
    assert len(told) == 1, process.log
    assert re.search(sentence, told[0]), process.log
    assert "Traceback" not in process.log
    assert process.out == ""
    for name, value in settings.kafka.items():
        assert not is_secret(name) or value not in process.log, process.log
