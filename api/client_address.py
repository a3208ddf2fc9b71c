"""The IP address of the caller, which a trusted proxy reports as text."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from flask import request

from config import settings

UNKNOWN = "unknown"


def client_addresses() -> tuple[str, str]:
    """Return the address to record, and the address that the rate limit counts.

    They differ only for a report that is no IP address. It is recorded as unknown, and the peer that sent it
    is counted: else each invented text would have a limit of its own.
    """
    peer = parse_address(request.remote_addr) or UNKNOWN
    proxies = settings().trusted_proxies
    # Each proxy appends one entry, whatever the caller has sent before it. werkzeug's ProxyFix reads quoted
    # strings, so that an opening quote of the caller would hide the entries of the proxies.
    entries = [entry for entry in request.headers.get("X-Forwarded-For", "").split(",") if entry.strip()]
    if proxies == 0 or len(entries) < proxies:
        return peer, peer
    reported = parse_address(entries[-proxies])
    return (UNKNOWN, peer) if reported is None else (reported, reported)


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
