"""`vitalstream broker`: a real Kafka in the foreground."""

import subprocess
from pathlib import Path

import typer

from broker.errors import BrokerError
from broker.local import LocalKafka
from consumer.stop import Stop


def run(*, port: int, data_dir: Path | None, version: str) -> None:
    """Serve until stopped; raises BrokerError if the broker exits by itself."""
    stop = Stop()
    stop.listen(grace=False)
    typer.echo(f"starting Apache Kafka {version} ...", err=True)
    with LocalKafka(port=port, data_dir=data_dir, version=version) as kafka:
        kept = f"topics are kept in {data_dir}" if data_dir else "topics are lost when it stops"
        typer.echo(f"Apache Kafka at {kafka.bootstrap_servers}; {kept}; Ctrl-C stops it", err=True)
        while not stop.requested:
            try:
                code = kafka.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue
            raise BrokerError(f"the broker exited with code {code}; its log: {kafka.log_file}")
