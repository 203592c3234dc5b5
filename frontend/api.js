// Every request but those for images goes through `request`. XMLHttpRequest, because fetch can't tell how much was uploaded.

const SEARCH_MS = 120_000;
const READ_MS = 20_000;
const KEY_NAME = "medsearch-key";

/** A request that failed: `slug` is the problem type of the server, or one of `network`, `timeout`, `cancelled`; `login` where people sign in, if they can. */
export class Problem extends Error {
  constructor(slug, { status = 0, detail = "", requestId = null, retryAfter = null, login = null } = {}) {
    super(detail || slug);
    Object.assign(this, { slug, status, detail, requestId, retryAfter, login });
  }
}

let key = readKey();

function readKey() {
  try { return sessionStorage.getItem(KEY_NAME); } catch { return null; }
}

/** Uses this API key from now on; it lives in memory and, where allowed, in this tab's storage. */
export function setKey(value) {
  key = value;
  try { sessionStorage.setItem(KEY_NAME, value); } catch { /* memory alone then */ }
}

/** Whether there is a key, which a server that still asks for one did not accept. */
export const hasKey = () => Boolean(key);

/** The headers that identify the caller. */
export const credentials = () => (key ? { "X-API-Key": key } : {});

export const getArchive = () => request("GET", "/v1/archive").then(({ body }) => body);
/** Who has signed in, and where to do so: `{ login, session }`. */
export const getSession = () => request("GET", "/session").then(({ body }) => body);

/** Ends the session; resolves to where the one at the issuer can be ended, if it can. */
export const signOut = () => request("POST", "/logout").then(({ body }) => body.continue);

export const getImage = (id) => request("GET", `/v1/images/${id}`).then(({ body }) => body);
export const getModel = () => request("GET", "/v1/model").then(({ body }) => body);
export const getPaper = (path) => request("GET", path).then(({ body }) => body);

/** Says that a label is wrong: `{ image, suggested, reason }`. */
export const sendFeedback = (report) => request("POST", "/v1/feedback", { json: report });

/**
 * Searches with an uploaded file (`query.file`) or a case of the archive (`query.id`).
 * `onUpload(part)` is called with 0..1; resolves to `{ body, requestId }`.
 */
export function search(query, options, { signal, onUpload }) {
  const how = { signal, onUpload, timeout: SEARCH_MS };
  if (query.file) return request("POST", "/v1/search", { ...how, body: asForm(query, options) });
  const { examples, ...others } = options;
  return request("POST", "/v1/search/by-id", { ...how, json: { ids: [query.id], ...others, ...ids(examples) } });
}

/** Where a query, or the frame and the part of it that were searched, and the case `neighbor` of an answer of `space` look alike. A case that is the query is sent as the archive keeps it. */
export async function explainSimilarity(query, { frame, region }, neighbor, space, { signal }) {
  const form = new FormData();
  form.append("neighbor", neighbor);
  form.append("space", space);
  if (frame) form.append("frame", frame);
  if (region) form.append("region", region.join(","));
  form.append("image", query.file ?? await keptPicture(query, signal), "image");
  return request("POST", "/v1/explanations", { body: form, signal, timeout: SEARCH_MS }).then(({ body }) => body);
}

async function keptPicture({ id, thumbnail }, signal) {
  for (const path of [`/v1/images/${id}/rendered`, thumbnail].filter(Boolean)) {
    const response = await fetch(path, { headers: credentials(), signal }).catch(() => { throw new Problem(signal.aborted ? "cancelled" : "network"); });
    if (response.ok) return response.blob();
    if (response.status !== 409) throw new Problem(slugOfStatus(response.status), { status: response.status });
  }
  throw new Problem("pixels-not-kept");
}

const ids = ({ liked, disliked }) => ({ liked: liked.map(({ id }) => id), disliked: disliked.map(({ id }) => id) });

function asForm({ file, preview }, options) {
  const form = new FormData();
  if (options.k) form.append("k", options.k);
  if (options.vote) form.append("vote", options.vote);
  form.append("exact", options.exact);
  if (options.frame) form.append("frame", options.frame);
  if (options.region) form.append("region", options.region.join(","));
  form.append("exclude", options.exclude.join(",") || "none");
  // Repeated, not joined: a class name may hold a comma.
  for (const name of options.classes ?? []) form.append("classes", name);
  for (const [kind, images] of Object.entries(ids(options.examples))) for (const id of images) form.append(kind, id);
  // Where the browser can't draw the file, the server sends back what it saw.
  if (!preview) form.append("preview", "true");
  // The name of the file stays here: it may name a patient.
  form.append("image", file, "image");
  return form;
}

function request(method, path, { body = null, json = null, signal, onUpload, timeout = READ_MS } = {}) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open(method, path);
    xhr.timeout = timeout;
    xhr.setRequestHeader("Accept", "application/json, application/problem+json");
    for (const [name, value] of Object.entries(credentials())) xhr.setRequestHeader(name, value);
    if (json) xhr.setRequestHeader("Content-Type", "application/json");
    if (onUpload) {
      xhr.upload.onprogress = (event) => event.lengthComputable && onUpload(event.loaded / event.total);
      xhr.upload.onload = () => onUpload(1);
    }
    xhr.onload = () => finish(xhr, resolve, reject);
    xhr.onerror = () => reject(new Problem("network"));
    xhr.ontimeout = () => reject(new Problem("timeout"));
    xhr.onabort = () => reject(new Problem("cancelled"));
    signal?.addEventListener("abort", () => xhr.abort());
    xhr.send(json ? JSON.stringify(json) : body);
  });
}

function finish(xhr, resolve, reject) {
  const requestId = xhr.getResponseHeader("X-Request-Id");
  let body = null;
  try { body = JSON.parse(xhr.responseText); } catch { /* a proxy's page, perhaps */ }
  if (xhr.status >= 200 && xhr.status < 300 && body) return resolve({ body, requestId });
  const slug = /\/problems\/([a-z-]+)$/.exec(body?.type ?? "")?.[1] ?? slugOfStatus(xhr.status);
  reject(new Problem(slug, {
    status: xhr.status,
    detail: body?.detail ?? "",
    requestId: body?.request_id ?? requestId,
    retryAfter: xhr.getResponseHeader("Retry-After"),
    // A path of this server and of no other.
    login: /\blogin="(\/[a-z]+)"/.exec(xhr.getResponseHeader("WWW-Authenticate") ?? "")?.[1] ?? null,
  }));
}

/** What a gateway in between most likely means by a bare status. */
function slugOfStatus(status) {
  const known = { 401: "unauthorized", 404: "not-found", 405: "method-not-allowed", 413: "too-large", 415: "unsupported-media",
    429: "overloaded", 502: "unavailable", 503: "unavailable", 504: "deadline", 507: "storage-full" };
  return known[status] ?? (status >= 500 ? "internal" : "invalid-request");
}
