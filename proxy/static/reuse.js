// The panel on near-duplicates: what is promised, how far each route's evidence has got, and what came close of late.
import { clock, count, el, money, share, swatch } from './format.js';

const $ = (id) => document.getElementById(id);
const PROOFS = { own: 'by its own labels', pool: 'by the pool', unproven: 'unproven', '': 'not yet' };
const NEAR = 6;

/** `reuse`: what GET api/semantic told; null where it couldn't be had. `recent`: rows of the ledger, latest first. */
export function show(reuse, recent) {
  $('reuse-card').hidden = reuse === null || reuse.mode === 'off';
  if ($('reuse-card').hidden) return;
  promise(reuse);
  $('reuse-none').hidden = reuse.routes.length > 0;
  $('reuse-routes').hidden = reuse.routes.length === 0;
  routes(reuse);
  nearMisses(recent.filter((row) => row.cache === 'miss' && row.similarity !== null && row.semantic).slice(0, NEAR));
}

/** A share with as many digits as it needs: the promise may be a half per cent. */
const percent = (x) => (x === null || x === undefined ? '–' : `${Number((100 * x).toPrecision(2))}%`);

function promise(reuse) {
  const unproven = reuse.policy === 'static';
  const of = reuse.per === 'hit' ? 'of the answers given again' : 'of all requests';
  const words = unproven
    ? 'A fixed threshold decides: no share of wrong answers is promised, and none is proved.'
    : `At most ${percent(reuse.max_wrong)} ${of} may be wrong, ${percent(reuse.confidence)} sure.`;
  const does = { serve: 'A route serves once that is proved for it.', observe: 'All routes observe: nothing is served.' }[reuse.mode] || 'It serves all the same.';
  $('reuse-promise').textContent = `${words} ${does}`;
  const cap = reuse.audit_daily_usd, spent = reuse.audits_usd_today;
  $('reuse-audits').replaceChildren(
    el('span', {}, `policy ${reuse.policy}`), ' · ',
    el('span', { class: spent >= cap ? 'error' : '' }, `audits today ${money(String(spent))} of ${money(String(cap))} at most`),
  );
}

/** Measured and bound on one scale, the promise as a line across it. The words beside it say the same. */
function gauge(route, limit) {
  const seen = route.labels > 0 ? route.wrong / route.labels : null;
  const whole = Math.max(2 * limit, (seen ?? 0) * 1.1, (route.bound ?? 0) * 1.1), at = (x) => `${Math.min(100, (100 * x) / whole)}%`;
  const bar = el('span', { class: 'gauge', 'aria-hidden': 'true' },
    route.bound === null ? null : el('i', { class: 'bound', width: at(route.bound) }),
    seen === null ? null : el('i', { class: seen > limit ? 'seen over' : 'seen', width: at(seen) }),
    el('i', { class: 'limit', '--at': at(limit) }));
  const told = seen === null ? 'nothing seen yet' : `${percent(seen)} seen`;
  return el('span', { class: 'gauged' }, bar, el('span', {}, told, route.bound === null ? '' : `, at most ${percent(route.bound)}`));
}

/** Whose labels they are: those that the bound was made of, and beside the pool's the route's own. */
function labels(route) {
  const all = count(Math.round(route.labels));
  return route.proof === 'pool' ? `${all} of the pool, ${count(Math.round(route.own_labels))} its own` : all;
}

function routes(reuse) {
  const names = ['route', 'state', 'proof', 'wrong answers', 'labels', 'still needed', 'served', 'drift'];
  const text = (value) => el('td', { class: 'text' }, value), cell = (value) => el('td', {}, value);
  const rows = reuse.routes.map((each) => el('tr', {},
    el('td', { class: 'name', title: `${each.route.name}, tenant ${each.route.tenant}` }, each.route.name || '(none)'),
    text(el('span', { class: each.serving ? 'status good' : 'status' }, swatch(each.serving ? 'joined' : 'miss'), each.serving ? 'serving' : 'observing')),
    text(PROOFS[each.proof] ?? each.proof), el('td', { class: 'text' }, gauge(each, reuse.max_wrong), each.reason ? el('div', { class: 'why' }, each.reason) : null),
    cell(labels(each)), cell(each.needed === null ? '' : `about ${count(each.needed)}`), cell(count(each.served)),
    cell(share(Math.min(1, Math.max(0, each.drift))))));
  const left = reuse.count - reuse.routes.length;
  if (left > 0) rows.push(el('tr', {}, el('td', { class: 'name', colspan: String(names.length) }, `${count(left)} routes used longer ago are not shown`)));
  for (const row of rows) [...row.children].forEach((each, i) => each.setAttribute('data-label', names[i]));
  const words = new Set(['route', 'state', 'proof', 'wrong answers']);
  const head = names.map((name) => el('th', { scope: 'col', class: words.has(name) ? 'text' : '' }, name));
  $('reuse-routes').replaceChildren(el('thead', {}, el('tr', {}, ...head)), el('tbody', {}, ...rows));
}

function nearMisses(rows) {
  $('near-misses').hidden = rows.length === 0;
  $('near-list').replaceChildren(...rows.map((row) => {
    const [score, ...why] = row.semantic.split('; ');
    return el('li', {}, el('span', { class: 'soft' }, clock(row.ts)), el('b', {}, why.length ? score : ''),
      el('span', {}, `cosine ${row.similarity.toFixed(3)}`), el('span', { class: 'soft' }, why.length ? why.join('; ') : score));
  }));
}
