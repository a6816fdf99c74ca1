"""Whether the web process will be able to listen, asked before anything is started."""

import errno
import socket

from config.environment import Environment, WrongSetting


class PortInUse(Exception):
    """Another program listens where the web process should."""


def require_free_port(environment: Environment) -> None:
    """Raise PortInUse, or WrongSetting for a HOST or PORT that cannot be listened on at all."""
    host, port = environment.host, environment.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise WrongSetting(f"HOST is '{host}': no address is known by that name.") from error
    with socket.socket(family, kind, protocol) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(address)
            attempt.listen()
        except OSError as error:
            raise _sentence(error, host, port) from error


def _sentence(error: OSError, host: str, port: int) -> Exception:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(
            f"Port {port} on {host} is in use by another program: "
            f"stop that, or choose another port with PORT."
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return WrongSetting(f"HOST is '{host}': this machine has no such address.")
    if error.errno == errno.EACCES:
        return WrongSetting(
            f"PORT is {port}: this user may not listen on it; choose one over 1023."
        )
    return WrongSetting(f"HOST {host} and PORT {port} cannot be listened on: {error.strerror}.")
