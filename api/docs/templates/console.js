"use strict";
const element = (id) => document.getElementById(id);
let ui;
let session = null; // the answer of the sign-in. It is not stored: a reload signs out.
let mfaToken = null; // of a sign-in that waits for the second factor
let timer;

async function call(path, body, headers = {}) {
  const response = await fetch(path, {
    method: "POST",
    credentials: "omit", // the token is the only proof of identity on this page
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw Object.assign(new Error(answer.message), { code: answer.error });
  return answer;
}

function use(answer) {
  if (session) ui.authActions.logout(["bearer"]);
  session = answer;
  if (session) ui.preauthorizeApiKey("bearer", session.access_token);
  element("sign-in").hidden = session !== null;
  element("sign-out").hidden = session === null;
  element("user").textContent = session ? `${session.user.name}, ${session.user.role}` : "";
  clearTimeout(timer);
  if (session) timer = setTimeout(refresh, Math.max(session.expires_in - 60, 10) * 1000);
}

async function refresh() {
  try {
    use(await call("/auth/refresh-token", { refresh_token: session.refresh_token }));
  } catch (error) {
    use(null);
    show(error.message, true);
  }
}

function show(text, failed = false) {
  element("message").textContent = text;
  element("message").hidden = !text;
  element("message").className = failed ? "error" : "";
}

function waitForCode(token) {
  mfaToken = token;
  element("email").hidden = element("password").hidden = token !== null;
  element("code").hidden = token === null;
  element("code").required = token !== null;
  element("code").value = "";
}

element("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  show("");
  const credentials = { email: element("email").value, password: element("password").value };
  try {
    const answer = mfaToken
      ? await call("/auth/login/mfa", { mfa_token: mfaToken, code: element("code").value })
      : await call("/auth/login", credentials);
    waitForCode(answer.mfa_token ?? null);
    if (answer.mfa_required) {
      show("Enter the code of your authenticator app, or a recovery code.");
      element("code").focus();
      return;
    }
    use(answer);
    element("password").value = "";
  } catch (error) {
    if (error.code === "token_invalid") waitForCode(null);
    show(error.message, true);
  }
});

element("sign-out").addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = session.access_token;
  use(null);
  try {
    await call("/auth/logout", {}, { Authorization: `Bearer ${token}` });
    show("Signed out.");
  } catch (error) {
    show(error.message, true);
  }
});

element("search").addEventListener("input", (event) => ui.layoutActions.updateFilter(event.target.value));

// Every word must occur in method, path, tag, summary, description or roles.
const search = () => ({
  fn: {
    opsFilter: (tags, phrase) => {
      const words = phrase.toLowerCase().split(/\s+/).filter(Boolean);
      const matches = (row, tag) => {
        const operation = row.get("operation");
        const roles = operation.get("x-roles").join(" ");
        const texts = [row.get("method"), row.get("path"), tag, operation.get("summary"), roles];
        const text = [...texts, operation.get("description")].join(" ").toLowerCase();
        return words.every((word) => text.includes(word));
      };
      return tags
        .map((group, tag) => group.set("operations", group.get("operations").filter((row) => matches(row, tag))))
        .filter((group) => group.get("operations").size);
    },
  },
});

async function start() {
  const spec = await (await fetch("/openapi.json", { credentials: "omit" })).json();
  spec.servers = [{ url: location.origin }]; // the policy of the page permits no other server
  delete spec.components.securitySchemes.cookie; // requests of this page carry no cookie
  ui = SwaggerUIBundle({
    spec,
    dom_id: "#console",
    deepLinking: true,
    defaultModelsExpandDepth: -1,
    displayRequestDuration: true,
    docExpansion: "list",
    filter: "",
    plugins: [search],
    requestInterceptor: (request) => Object.assign(request, { credentials: "omit" }),
    syntaxHighlight: { theme: "agate" },
    tryItOutEnabled: true,
    validatorUrl: null,
  });
}

start().catch((error) => show(`The description of the API cannot be read: ${error.message}`, true));
