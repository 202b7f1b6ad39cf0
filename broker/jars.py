"""Fetches Apache Kafka's jars once from Maven Central into the user's cache, and finds a Java to run them."""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.errors import BrokerError

KAFKA_VERSION = "4.2.1"  # from 4.3 on, a single broker's restart breaks transactions (KAFKA-20734)
MINIMUM_JAVA = 17
_FETCH_SECONDS = 600
_COPY_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
# Without log4j a failing broker logs nothing.
_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>vitalstream</groupId><artifactId>local-kafka</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{kafka}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.3</version>
    </dependency>
  </dependencies>
</project>
"""


def find_java() -> str:
    """The path of `$JAVA_HOME/bin/java`, else of the `java` on PATH.

    Raises:
        BrokerError: there is none, or it is older than Java 17.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    if java is None or not Path(java).is_file():
        where = f"in JAVA_HOME ({home})" if home else "on PATH"
        raise BrokerError(f"a local Kafka needs Java {MINIMUM_JAVA} or newer; there is no java {where}")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=60).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    if version is None or int(version[1]) < MINIMUM_JAVA:
        found = f"is Java {version[1]}" if version else "does not report its version"
        raise BrokerError(f"a local Kafka needs Java {MINIMUM_JAVA} or newer; {java} {found}")
    return java


def kafka_jars(version: str = KAFKA_VERSION) -> Path:
    """The directory of Kafka's jars in the user's cache; the first call fetches them, which takes seconds.

    Raises:
        BrokerError: there is no such version, Maven is missing, or it could not fetch them.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise BrokerError(
            f"--kafka-version {version!r} is not a version of Apache Kafka; give three numbers, as in {KAFKA_VERSION}"
        )
    jars = _cache_dir() / f"kafka-{version}"
    if not jars.is_dir():
        with _locked(jars.with_name(f"{jars.name}.lock")):
            if not jars.is_dir():  # another process may have been faster
                _fetch(jars, version)
    return jars


def _cache_dir() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "vitalstream")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(jars: Path, version: str) -> None:
    """Fill a directory next to `jars`, then rename it, so that `jars` is complete or absent."""
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError(
            f"a local Kafka needs Maven once, to fetch Apache Kafka {version}; there is no mvn on PATH"
        )
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix="fetching-") as scratch:
        fetched = Path(scratch, "jars")
        pom = Path(scratch, "pom.xml")
        pom.write_text(_POM.format(kafka=version))
        _run_maven([maven, "-q", "-B", "-f", str(pom), _COPY_GOAL, f"-DoutputDirectory={fetched}"], version)
        fetched.rename(jars)


def _run_maven(command: list[str], version: str) -> None:
    try:
        done = subprocess.run(
            [*command, "-DincludeScope=runtime"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_FETCH_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise BrokerError(
            f"Maven did not fetch Apache Kafka {version} within {_FETCH_SECONDS} s; check the network"
        ) from None
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if line.startswith("[ERROR]")]
        reason = errors[0].removeprefix("[ERROR] ") if errors else f"mvn ended with {done.returncode}"
        raise BrokerError(
            f"Maven could not fetch Apache Kafka {version}; check the network and the version: {reason}"
        )
