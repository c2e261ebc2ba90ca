// The panel on near-duplicates: what is promised, and how far each route's evidence has got.
import { count, el, money, share, swatch } from './format.js';

const $ = (id) => document.getElementById(id);
const PROOFS = { own: 'by its own labels', pool: 'by the pool', unproven: 'unproven', '': 'not yet' };

/** `reuse`: what GET api/semantic told, or {error}. */
export function show(reuse) {
  $('reuse-card').hidden = reuse.mode === 'off';
  $('reuse-trouble').hidden = !reuse.error;
  $('reuse-trouble').textContent = reuse.error ? `What routes have proved can’t be shown: ${reuse.error}. Older figures stay.` : '';
  if ($('reuse-card').hidden || reuse.error) return;
  promise(reuse);
  $('reuse-none').hidden = reuse.routes.length > 0;
  $('reuse-routes').hidden = reuse.routes.length === 0;
  $('reuse-key').hidden = reuse.routes.length === 0;
  routes(reuse);
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
    ...(reuse.second_stage && reuse.second_stage !== 'off' ? [' · ', el('span', {}, `second stage ${reuse.second_stage}`)] : []),
    ...((reuse.second_stage || '').startsWith('judge:') ? [' · ',
      el('span', { class: reuse.judge_usd_today >= reuse.judge_daily_usd ? 'error' : '' },
        `judging today ${money(String(reuse.judge_usd_today))} of ${money(String(reuse.judge_daily_usd))} at most`)] : []),
  );
}

/** Measured, with its interval, and bound on one scale, the promise as a line across it. The words below say the same. */
function gauge(route, limit, confidence) {
  const seen = route.labels > 0 ? Math.min(1, route.wrong / route.labels) : null, [low, high] = route.interval;
  const whole = Math.max(2 * limit, (seen ?? 0) * 1.1, (route.bound ?? 0) * 1.1), at = (x) => `${Math.min(100, (100 * x) / whole)}%`;
  const bar = el('span', { class: 'gauge', 'aria-hidden': 'true' },
    route.bound === null ? null : el('i', { class: 'bound', width: at(route.bound) }),
    seen === null ? null : el('i', { class: seen > limit ? 'seen over' : 'seen', width: at(seen) }),
    seen === null ? null : el('i', { class: high > whole ? 'range open' : 'range', '--from': at(low), '--to': `${100 - Math.min(100, (100 * high) / whole)}%` }),
    el('i', { class: 'limit', '--at': at(limit) }));
  if (seen === null) return el('span', { class: 'gauged' }, bar, 'nothing seen yet');
  const range = el('span', { class: 'soft', title: `${percent(confidence)} sure, whenever one looks` }, ` (${percent(low)} to ${percent(high)})`);
  return el('span', { class: 'gauged' }, bar, el('span', {}, `${percent(seen)} seen`, range, route.bound === null ? '' : el('b', {}, ` at most ${percent(route.bound)}`)));
}

/** How much of the evidence that a proof needs is there; the words say it too. */
function evidence(route) {
  const labels = Math.round(route.labels), whole = labels + (route.needed ?? 0);
  const done = route.proof === 'own' || route.proof === 'pool' ? 1 : route.needed === null ? 0 : labels / whole;
  const bar = el('span', { class: 'meter', 'aria-hidden': 'true' }, el('i', { width: `${100 * done}%` }));
  const named = `${count(labels)} ${labels === 1 ? 'label' : 'labels'}`;
  const words = route.proof === 'pool' ? `${named} of the pool, ${count(Math.round(route.own_labels))} its own` : named;
  return [route.proof === 'unproven' ? null : bar, words, route.needed === null ? null : el('span', { class: 'soft' }, `, about ${count(route.needed)} more`)];
}

function routes(reuse) {
  const names = ['route', 'state', 'proof', 'wrong answers', 'evidence', 'served', 'drift'];
  const text = (value) => el('td', { class: 'text' }, value), cell = (value) => el('td', {}, value);
  const rows = reuse.routes.map((each) => el('tr', {},
    el('td', { class: 'name', title: `${each.route.name}, tenant ${each.route.tenant}` }, each.route.name || '(none)'),
    text(el('span', { class: each.serving ? 'status good' : 'status' }, swatch(each.serving ? 'joined' : 'miss'), each.serving ? 'serving' : 'observing')),
    text(PROOFS[each.proof] ?? each.proof), el('td', { class: 'text' }, gauge(each, reuse.max_wrong, reuse.confidence), each.reason ? el('div', { class: 'why' }, each.reason) : null),
    el('td', { class: 'text' }, ...evidence(each)), cell(count(each.served)),
    cell(share(Math.min(1, Math.max(0, each.drift))))));
  const left = reuse.count - reuse.routes.length;
  if (left > 0) rows.push(el('tr', {}, el('td', { class: 'name', colspan: String(names.length) }, `${count(left)} routes used longer ago are not shown`)));
  for (const row of rows) [...row.children].forEach((each, i) => each.setAttribute('data-label', names[i]));
  const words = new Set(['route', 'state', 'proof', 'wrong answers', 'evidence']);
  const head = names.map((name) => el('th', { scope: 'col', class: words.has(name) ? 'text' : '' }, name));
  $('reuse-routes').replaceChildren(el('thead', {}, el('tr', {}, ...head)), el('tbody', {}, ...rows));
}
