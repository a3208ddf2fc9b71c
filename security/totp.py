"""Time-based one-time passwords (RFC 6238), as authenticator apps compute them: SHA-1, 30 s, 6 digits."""

from __future__ import annotations

import io
import re

import pyotp
import segno

WINDOW = 1  # time steps before and after the present one: clocks differ (RFC 6238, section 5.2)
CODE = re.compile("[0-9]{6}")


def new_secret() -> str:
    """Return a random secret of 160 bits, as RFC 4226 section 4 recommends, in base32."""
    return pyotp.random_base32()


def matching_step(secret: str, code: str, timestamp: float) -> int | None:
    """Return the time step of a code around a Unix time, or None for a wrong code."""
    totp = pyotp.TOTP(secret)
    present = totp.timecode(int(timestamp))
    steps = range(present - WINDOW, present + WINDOW + 1)
    matching = [step for step in steps if pyotp.utils.strings_equal(code, totp.generate_otp(step))]
    return max(matching, default=None)


def otpauth_uri(secret: str, *, account: str, issuer: str) -> str:
    """Return the URI that sets up an authenticator app, which shows both names."""
    return pyotp.TOTP(secret).provisioning_uri(name=account, issuer_name=issuer)


def qr_svg(uri: str) -> str:
    """Return the QR code of a URI as an SVG image."""
    image = io.BytesIO()
    segno.make(uri, error="m").save(image, kind="svg", xmldecl=False, scale=4)
    return image.getvalue().decode()
