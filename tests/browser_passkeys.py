"""`python -m tests.browser_passkeys`: try passkeys in Chromium, against a running clinic.

Adds a passkey with the virtual authenticator of Chromium, signs in with it, steps up, and removes it. The
server needs `PUBLIC_URL` with the value of `--url`. `tests/browser.py` says what Chromium needs.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from tests.browser import chromium

AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}
# Returns name -> status of each step, as a page of the front end would do them.
SCRIPT = """
async ({ email, password }) => {
  const statuses = {};
  let token = null;
  async function send(name, method, path, body) {
    const headers = { "Content-Type": "application/json" };
    if (token) headers.Authorization = `Bearer ${token}`;
    const sent = body === undefined ? undefined : JSON.stringify(body);
    const response = await fetch(path, { method, headers, body: sent, credentials: "omit" });
    statuses[name] = response.status;
    return response.headers.get("Content-Type").includes("json") ? response.json() : null;
  }
  const get = async (options) => {
    const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options.public_key);
    return (await navigator.credentials.get({ publicKey })).toJSON();
  };
  token = (await send("login", "POST", "/auth/login", { email, password })).access_token;
  const creation = await send("options", "POST", "/auth/mfa/passkeys/options");
  const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(creation.public_key);
  const credential = (await navigator.credentials.create({ publicKey })).toJSON();
  const created = await send("add", "POST", "/auth/mfa/passkeys", { name: "Chromium", credential });
  token = null;
  const first = await send("password", "POST", "/auth/login", { email, password });
  const mfa_token = first.mfa_token;
  const request = await send("sign-in options", "POST", "/auth/login/mfa/options", { mfa_token });
  const body = { mfa_token, credential: await get(request) };
  token = (await send("sign-in", "POST", "/auth/login/mfa", body)).access_token;
  const again = await send("step-up options", "POST", "/auth/step-up/options");
  await send("step-up", "POST", "/auth/step-up", { credential: await get(again) });
  await send("export", "GET", "/analytics/dashboard?format=csv");
  await send("remove", "DELETE", `/auth/mfa/passkeys/${created.id}`);
  statuses.methods = first.methods.join(" ");
  return statuses;
}
"""
EXPECTED = {
    **dict.fromkeys(("login", "options", "password", "sign-in options", "sign-in"), 200),
    **dict.fromkeys(("step-up options", "step-up", "export", "remove"), 200),
    "add": 201,
    "methods": "webauthn recovery_code",
}


def main() -> int:
    """Try passkeys. Return 1 with a wrong status, and 0 with a note if there is no browser."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", default="http://localhost:5000")
    parser.add_argument("--email", default="admin@clinic.com")
    arguments = parser.parse_args()
    with chromium() as browser:
        if browser is None:
            return 0
        statuses = _try_passkeys(browser.new_page(), arguments)
    print("Passkeys work." if statuses == EXPECTED else f"Passkeys fail: {statuses}")
    return int(statuses != EXPECTED)


def _try_passkeys(page: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    protocol = page.context.new_cdp_session(page)
    protocol.send("WebAuthn.enable")
    protocol.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})
    page.goto(f"{arguments.url}/docs")
    credentials = {"email": arguments.email, "password": os.environ["CLINIC_PASSWORD"]}
    statuses: dict[str, Any] = page.evaluate(SCRIPT, credentials)
    return statuses


if __name__ == "__main__":
    sys.exit(main())
