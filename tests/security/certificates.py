"""Certificates for tests, made by the openssl command: an authority and the certificates it signs."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")


@dataclass(frozen=True)
class Certificate:
    """PEM files of a certificate and its private key."""

    certificate: Path
    key: Path

    def properties(self, password: str = "") -> dict[str, str]:
        """A client's librdkafka properties."""
        files = {"ssl.certificate.location": str(self.certificate), "ssl.key.location": str(self.key)}
        return files | ({"ssl.key.password": password} if password else {})


class Authority:
    """A certificate authority with files in `folder`; its clients trust `certificate`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True)
        self.certificate = folder / "ca.pem"
        self._key = folder / "ca.key"
        out = ("-keyout", str(self._key), "-out", str(self.certificate))
        _openssl("req", "-x509", *KEY, "-nodes", *out, "-days", "2", "-subj", f"/CN={folder.name}")

    def issue(self, name: str, *, hosts: str = "", days: int = 1, password: str = "") -> Certificate:
        """A certificate for the subject `name` and for `hosts`, in openssl's notation for a subjectAltName.

        With a negative number of `days` it has expired already. With `password` the key is encrypted.
        """
        request, key, made = (self._folder / f"{name}.{end}" for end in ("csr", "key", "pem"))
        locked = ("-passout", f"pass:{password}") if password else ("-nodes",)
        _openssl("req", *KEY, *locked, "-keyout", str(key), "-out", str(request), "-subj", f"/CN={name}")
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={hosts}\n" if hosts else "basicConstraints=CA:FALSE\n")
        signing = ("-CA", str(self.certificate), "-CAkey", str(self._key), "-CAcreateserial")
        with_ = ("-in", str(request), "-out", str(made), "-extfile", str(extensions), "-days", str(days))
        _openssl("x509", "-req", *signing, *with_)
        return Certificate(made, key)


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
