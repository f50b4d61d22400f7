"""Devices by their address."""

from functools import cache

from targets.devices.base import Device
from targets.devices.local import LocalDevice
from targets.devices.ssh import SshDevice
from targets.errors import ConfigError

LOCAL = LocalDevice.name


@cache
def open_device(host: str, python: str | None = None) -> Device:
    """The device at an address, one and the same for every call; nothing is connected before it is needed.

    Args:
        host: ``local``, or ``ssh://user@box:port``.
        python: the interpreter to use on a device that is reached over ssh.

    Raises:
        ConfigError: there is no such kind of address.
    """
    if host == LOCAL:
        return LocalDevice()
    if host.startswith("ssh://"):
        return SshDevice(host, python or "python3")
    raise ConfigError(f"{host!r} is no address of a device. Give local, ssh://user@box or ssh://user@box:port.")
