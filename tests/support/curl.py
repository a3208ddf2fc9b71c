"""A replacement for curl with the options that the documents use: not every machine has curl."""

from __future__ import annotations

import argparse
import sys
import urllib.error
import urllib.request


def main() -> None:
    """Send one request and print the response body."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("url")
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="data")
    arguments = parser.parse_args()
    data = arguments.data.encode() if arguments.data is not None else None
    method = arguments.method or ("POST" if data is not None else "GET")
    request = urllib.request.Request(arguments.url, data=data, method=method)
    for header in arguments.headers:
        name, _, value = header.partition(":")
        request.add_header(name.strip(), value.strip())
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            print(response.read().decode())
    except urllib.error.HTTPError as error:
        print(error.read().decode())
        sys.exit(0)


if __name__ == "__main__":
    main()
