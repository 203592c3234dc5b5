// A real OpenID Connect provider for tests: node oidc_provider.mjs NODE_MODULES PORT PUBLIC_URL. People sign in by any name; `ada.lovelace` is a reader,
// whoever else has no role. Programs get tokens by the client credentials grant.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, port, publicUrl] = process.argv.slice(2);
const { Provider } = await import(pathToFileURL(createRequire(`${modules}/`).resolve("oidc-provider")).href);

const AUDIENCE = "urn:medsearch:api";
const rolesOf = (name) => (name === "ada.lovelace" ? ["readers"] : []);

const provider = new Provider(`http://localhost:${port}`, {
  clients: [
    { client_id: "page", client_secret: "a secret of the page", redirect_uris: [`${publicUrl}/login/callback`], grant_types: ["authorization_code"], response_types: ["code"] },
    { client_id: "program", client_secret: "a secret of the program", redirect_uris: [], response_types: [], grant_types: ["client_credentials"] },
  ],
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, name: `Dr. ${id}`, email: `${id}@hospital.example`, roles: rolesOf(id) }) }),
  claims: { openid: ["sub"], profile: ["name", "roles"], email: ["email"] },
  conformIdTokenClaims: false,
  cookies: { keys: ["only for tests"] },
  extraTokenClaims: () => ({ roles: ["readers"] }),
  pkce: { required: () => true },
  ttl: { ClientCredentials: 600, AccessToken: 600, IdToken: 600, Session: 600, Interaction: 600, Grant: 600 },
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: () => ({ scope: "search", audience: AUDIENCE, accessTokenFormat: "jwt", accessTokenTTL: 600, jwt: { sign: { alg: "RS256" } } }),
    },
  },
});
provider.listen(Number(port), "127.0.0.1", () => console.log("listening"));
