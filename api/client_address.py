"""The IP address of the caller, which a trusted proxy reports as text."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from flask import request

UNKNOWN = "unknown"


def client_addresses() -> tuple[str, str]:
    """Return the address to record, and the address that the rate limit counts.

    They differ only for a report that is no IP address. It is recorded as unknown, and the peer that sent it
    is counted: else each invented text would have a limit of its own.
    """
    reported = parse_address(request.remote_addr)
    if reported is not None:
        return reported, reported
    peer = request.environ.get("werkzeug.proxy_fix.orig", {}).get("REMOTE_ADDR")
    return UNKNOWN, parse_address(peer) or UNKNOWN


def parse_address(text: str | None) -> str | None:
    """Return the IP address in a text such as `192.0.2.1:5678` or `[2001:db8::1]:80`, or None.

    The port is dropped. An IPv4 address that is mapped to IPv6 is returned as IPv4.
    """
    host, colon, port = (text or "").strip(), "", ""
    if host.startswith("["):
        host, bracket, rest = host[1:].partition("]")
        before, colon, port = rest.partition(":")
        if not bracket or before:
            return None
    elif host.count(":") == 1:
        host, colon, port = host.partition(":")
    if colon and not (port.isascii() and port.isdigit()):
        return None
    try:
        address = ip_address(host.partition("%")[0])  # the zone of a link-local address is free text
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)
