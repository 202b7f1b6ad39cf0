"""The peers' environments: one per peer, created by uv in .cache/bench from hash-locked requirements.

After a change to peers/NAME.in, lock it again with:
uv pip compile --python-version 3.11 --generate-hashes --no-header --no-annotate \\
    benchmarks/peers/NAME.in -o benchmarks/peers/NAME.txt
"""

import functools
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
CACHE: Final = Path(".cache/bench")
_INSTALL_S: Final = 600.0
# Spark's Kafka connector has its own jars; Maven Central has none for Spark 4.3.0 yet.
_CONNECTOR: Final = ("org.apache.spark", "spark-sql-kafka-0-10_2.13", "4.2.0")
_POM: Final = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>vitalstream</groupId><artifactId>spark-connector</artifactId><version>1</version>
  <dependencies><dependency>
    <groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>
  </dependency></dependencies>
</project>
"""
_COPY: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"


class PeerUnavailableError(Exception):
    """A peer can't be run here; the message says why."""


@functools.cache
def python_of(peer: str) -> str:
    """The interpreter of the peer's environment, which is created on first use.

    Raises PeerUnavailableError if that fails.
    """
    requirements = HERE / "peers" / f"{peer}.txt"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    home = CACHE / peer
    stamp = home / "requirements.sha256"
    python = home.absolute() / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(home, ignore_errors=True)
        uv = str(Path(sys.executable).with_name("uv"))
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(home)])
        install = [uv, "pip", "install", "--quiet", "--python", str(python), "--require-hashes"]
        _run([*install, "--requirements", str(requirements)])
        stamp.write_text(wanted)
    return str(python)


@functools.cache
def spark_jars() -> str:
    """The jars of Spark's Kafka connector, comma-separated, downloaded on first use.

    Raises PeerUnavailableError if that fails.
    """
    jars = CACHE / f"spark-jars-{_CONNECTOR[2]}"
    if not jars.is_dir():
        maven = shutil.which("mvn")
        if maven is None:
            raise PeerUnavailableError(
                "Spark's Kafka connector needs Maven once, and there is no mvn on PATH"
            )
        pom = CACHE / "spark-pom.xml"
        pom.write_text(_POM.format(*_CONNECTOR))
        scratch = jars.with_suffix(".fetching").absolute()
        shutil.rmtree(scratch, ignore_errors=True)
        goal = [_COPY, f"-DoutputDirectory={scratch}", "-DincludeScope=runtime"]
        _run([maven, "-q", "-B", "-f", str(pom), *goal])
        scratch.rename(jars)
    # pyspark itself contains Scala and Hadoop.
    own = [jar for jar in sorted(jars.glob("*.jar")) if not jar.name.startswith(("scala-", "hadoop-"))]
    return ",".join(str(jar.absolute()) for jar in own)


def versions_of(peer: str) -> str:
    """The peer's own package and version, as pinned in its requirements."""
    return (HERE / "peers" / f"{peer}.in").read_text().splitlines()[0].replace("==", " ")


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerUnavailableError(f"{Path(command[0]).name} failed: {type(error).__name__}") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise PeerUnavailableError(f"{Path(command[0]).name} failed: {lines[-1][:160]}")
