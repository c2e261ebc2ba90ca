// The API: questions with GET, changes with POST and the header that no cross-site form can send.
let token = sessionStorage.getItem('farthing-token') || '';

/** From now on every call shows this token. */
export function use(given) {
  token = given;
  sessionStorage.setItem('farthing-token', token);
}

async function answer(reply) {
  if (reply.status === 401) throw Object.assign(new Error('the admin token is needed'), { token: true });
  const body = await reply.json().catch(() => ({}));
  if (!reply.ok) throw Object.assign(new Error(body.error?.message || `farthing answered ${reply.status}`), { absent: reply.status === 404 });
  return body;
}

const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});

/** What farthing answers to a question: `path` under api/. Throws an Error; with `token` true where one is needed. */
export const ask = async (path) => answer(await fetch(`/farthing/api/${path}`, { headers: headers(), cache: 'no-store' }));

/** The same, or {error, absent} instead of throwing, except where the token is needed: one panel's trouble is not the page's.
 * `absent`: there is no such thing to ask for. */
export const tryAsk = (path) => ask(path).catch((error) => { if (error.token) throw error; return { error: error.message, absent: Boolean(error.absent) }; });

/** Change something. */
export const change = async (path, body = {}) => answer(await fetch(`/farthing/api/${path}`, {
  method: 'POST', body: JSON.stringify(body), headers: { ...headers(), 'Content-Type': 'application/json', 'x-farthing-admin': '1' },
}));
