"""A stand-in for curl with the few options that the documents use: not every machine has the real one."""

from __future__ import annotations

import argparse
import sys
import urllib.error
import urllib.request


def main() -> None:
    """Send one request; print the answer's body, as curl does."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("url")
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="data")
    given = parser.parse_args()
    data = given.data.encode() if given.data is not None else None
    method = given.method or ("POST" if data is not None else "GET")
    request = urllib.request.Request(given.url, data=data, method=method)
    for header in given.headers:
        name, _, value = header.partition(":")
        request.add_header(name.strip(), value.strip())
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            print(answer.read().decode())
    except urllib.error.HTTPError as refusal:
        print(refusal.read().decode())
        sys.exit(0)


if __name__ == "__main__":
    main()
