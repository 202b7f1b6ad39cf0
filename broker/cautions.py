"""Warns of settings that work but are unsafe, and of environment variables that look misspelt."""

import os
import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from broker.settings import ENV_PREFIX, Settings, closest, is_secret

_PLAIN = ("plaintext", "sasl_plaintext")


def cautions(settings: Settings, properties: Sequence[str] = ()) -> list[str]:
    """One sentence per warning, naming the setting; `properties` are those given by `-X`."""
    return [
        *_misspelt(os.environ),
        *_on_the_command_line(properties),
        *_in_plain_text(settings),
        *_login_in_plain_text(settings),
    ]


def _misspelt(names: Iterable[str]) -> list[str]:
    """Only a warning: Kubernetes itself sets VITALSTREAM_PORT and the like for a service of that name."""
    ours = [name for name in names if name.startswith(ENV_PREFIX)]
    meant = {name: closest(name.removeprefix(ENV_PREFIX)) for name in ours}
    return [
        f"{name} is not a setting; did you mean {ENV_PREFIX}{setting.upper()}?"
        for name, setting in meant.items()
        if setting and name.lower() != f"{ENV_PREFIX}{setting}".lower()
    ]


def _on_the_command_line(properties: Sequence[str]) -> list[str]:
    names = [name.strip() for name, _, _ in (text.partition("=") for text in properties)]
    if not (secrets := [name for name in names if is_secret(name)]):
        return []
    return [
        f"-X {', '.join(secrets)}: everyone on this machine can read a command line; "
        "use --secrets-dir, VITALSTREAM_KAFKA or --config instead"
    ]


def _in_plain_text(settings: Settings) -> list[str]:
    protocol = settings.kafka.get("security.protocol", "plaintext")
    far = [host for host in _hosts(settings.bootstrap_servers) if not _is_loopback(host)]
    if protocol.lower() not in _PLAIN or not far:
        return []
    return [
        f"security.protocol is {protocol.lower()}: patient data is sent unencrypted to {', '.join(far)}; "
        "set it to SSL or SASL_SSL"
    ]


def _login_in_plain_text(settings: Settings) -> list[str]:
    urls = [
        url.strip() for url in (settings.schema_registry or "").split(",") if url.strip().startswith("http:")
    ]
    far = [url.hostname or "" for url in map(urlsplit, urls) if not _is_loopback(url.hostname or "")]
    if not far or not any(map(is_secret, settings.registry_properties)):
        return []
    return [f"--schema-registry: its login is sent unencrypted to {', '.join(far)}; use https://"]


def _hosts(servers: str) -> list[str]:
    """The hosts in a comma-separated list of `HOST:PORT` or `PROTOCOL://HOST:PORT`; IPv6 addresses are in brackets."""
    bare = (one.strip().rpartition("//")[2] for one in servers.split(","))
    return list(dict.fromkeys(re.sub(r":\d+$", "", one).strip("[]") for one in bare if one))


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
