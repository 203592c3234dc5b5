import { Problem, getSession, signOut } from "./api.js";
import { byId } from "./dom.js";

// Where the server sends a browser that comes back from the issuer and is not let in -> the problem.
const NOT_LET_IN = {
  "#sign-in-failed": "sign-in-failed",
  "#sign-in-no-role": "sign-in-no-role",
  "#sign-in-unavailable": "sign-in-unavailable",
};

/** Why signing in did not work, if that is where this page was opened from; said once. */
export function signInProblem() {
  const slug = Object.hasOwn(NOT_LET_IN, location.hash) ? NOT_LET_IN[location.hash] : null;
  if (!slug) return null;
  history.replaceState(history.state, "", location.pathname);
  return new Problem(slug);
}

/** Shows who has signed in, or where to do so. */
export async function showAccount(fail) {
  // Without an answer, as from an older server, there is nobody to show.
  const { login, session } = await getSession().catch(() => ({ login: null, session: null }));
  byId("sign-in").hidden = !login || Boolean(session);
  byId("account").hidden = !session;
  if (!session) return;
  byId("account-name").textContent = session.name ?? "Signed in";
  byId("account").title = `Signed in until ${new Date(session.expires).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}`;
  byId("sign-out").onclick = () => signOut().then((next) => location.assign(next ?? "/"), fail);
}
