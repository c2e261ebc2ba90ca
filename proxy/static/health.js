// What needs somebody's eye, at the top; and how farthing's parts are, below.
import { bytes, count, counted, el, instant, money, share } from './format.js';

const $ = (id) => document.getElementById(id);
const UNPRICED_SHARE = 0.01, ERROR_SHARE = 0.05, BUDGET_NEAR = 0.8;

/** Alerts as {kind: 'bad'|'warn', text}, the worst first. Pure. `state`, `total`: the summary's; `health`: the API's or {error};
 * `reuse`, `compress`: the API's answers on near-duplicates and compression, or {error}. */
export function alerts({ state, total, health, reuse, compress }) {
  const found = [], say = (kind, text) => found.push({ kind, text });
  if (state.switched_off) say('bad', 'All optimisation is off: requests pass at full price. It is switched on under Policy.');
  if (state.ledger === 'degraded') say('bad', 'The ledger can’t be written: rows wait in memory. Is the disk full?');
  if (state.ledger_dropped) say('bad', `${counted(state.ledger_dropped, 'ledger row')} lost: the figures lack them.`);
  if (state.ledger_aside?.length) say('bad', `A damaged ledger was moved aside, and the figures lack what it holds: farthing ledger salvage ${state.ledger_aside.join(', ')} saves what can be read.`);
  if (health.error) say('warn', `How farthing’s parts are can’t be shown: ${health.error}.`);
  if (health.store && !health.store.healthy) say('bad', `The store of answers is down${health.store.error ? ` (${health.store.error})` : ''}: requests go upstream, nothing is stored.`);
  const { limit_usd: limit, spent_usd: spent } = health.budget ?? {};
  if (limit !== null && limit !== undefined && Number(limit) >= 0) {
    const part = Number(limit) > 0 ? Number(spent) / Number(limit) : 1;
    if (part >= 1) say('bad', `Today’s budget is used up (${money(spent)} of ${money(limit)}): requests are refused until midnight UTC.`);
    else if (part >= BUDGET_NEAR) say('warn', `${share(part)} of today’s budget is spent: ${money(spent)} of ${money(limit)}.`);
  }
  for (const [stage, times] of Object.entries(health.stage_errors ?? {})) if (times) say('warn', `Stage ${stage} failed ${count(times)} times since farthing started; those requests passed it by.`);
  const back = (reuse.routes ?? []).filter((route) => route.taken_back > 0 && !route.serving);
  if (back.length) say('warn', `Near-duplicates: ${counted(back.length, 'route')} went back to observing, since too many answers were wrong or something changed: ${back.slice(0, 3).map((each) => each.route.name).join(', ')}.`);
  const drifting = (reuse.routes ?? []).filter((route) => route.drift >= 0.5);
  if (drifting.length) say('warn', `Near-duplicates: the evidence for a change has come half-way to its alarm on ${counted(drifting.length, 'route')}: ${drifting.slice(0, 3).map((each) => each.route.name).join(', ')}.`);
  const undone = (compress.routes ?? []).filter((route) => (route.steps ?? []).some((step) => step.epoch > 0 && step.reason && !step.serving));
  if (undone.length) say('warn', `Compression: a step was taken back on ${counted(undone.length, 'route')}: ${undone.slice(0, 3).map((each) => each.route.name).join(', ')}.`);
  if (total.requests && total.unpriced / total.requests > UNPRICED_SHARE) say('warn', `${share(total.unpriced / total.requests)} of the requests are of unknown price and in no amount: farthing prices check names their models.`);
  if (total.requests && total.errors / total.requests > ERROR_SHARE) say('warn', `${share(total.errors / total.requests)} of the requests ended in an error.`);
  if (state.usage_drift?.length) say('warn', `The provider’s count of tokens and farthing’s own differ too much: ${state.usage_drift.join(', ')}.`);
  if (state.capture === 'failing') say('bad', 'Prompts can’t be captured: the capture store can’t be written.');
  return found.sort((a, b) => (a.kind === 'bad' ? 0 : 1) - (b.kind === 'bad' ? 0 : 1));
}


/** Show the alerts; a list that is the same as before is left alone, so that nobody is told twice. */
export function showAlerts(facts) {
  const found = alerts(facts), now = JSON.stringify(found);
  if ($('alerts').dataset.shown === now) return;
  $('alerts').dataset.shown = now;
  $('alerts').replaceChildren(...found.map(({ kind, text }) => el('li', { class: kind }, el('b', {}, kind === 'bad' ? 'Problem' : 'Warning'), el('span', {}, text))));
}

/** `capture`: the API's answer on the capture store; {error}, or null where it wasn't asked. */
export function showHealth(state, health, capture) {
  const { store, ledger, budget } = health, lines = [], add = (name, good, ...words) => lines.push([name, good, words]);
  if (store) add('Store of answers', store.healthy, store.error ? 'away' : `${store.kind}: ${counted(store.entries, 'answer')}, ${bytes(store.bytes)}${store.evicted ? `, ${count(store.evicted)} evicted` : ''}`);
  if (ledger) add('Ledger', ledger.healthy && !ledger.dropped_rows, `${counted(ledger.pending_rows, 'row')} waiting, ${count(ledger.dropped_rows)} lost`);
  if (ledger === null) add('Ledger', null, 'off');
  if (budget) {
    const part = budget.limit_usd === null ? null : Math.min(1, Number(budget.spent_usd) / Math.max(1e-12, Number(budget.limit_usd)));
    add('Spent today (UTC)', part === null ? null : part < BUDGET_NEAR, part === null ? `${money(budget.spent_usd)}, no limit` : el('span', {}, el('span', { class: 'meter', 'aria-hidden': 'true' }, el('i', { width: share(part) })), `${money(budget.spent_usd)} of ${money(budget.limit_usd)}`));
  }
  if (health.in_flight !== undefined) add('In flight', null, counted(health.in_flight, 'request'));
  if (health.semantic_entries !== undefined) add('Near-duplicates', null, `${count(health.semantic_entries)} prompts known`);
  const failed = Object.entries(health.stage_errors ?? {}).filter(([, times]) => times);
  if (health.stage_errors) add('Stages', failed.length === 0, failed.length ? failed.map(([stage, times]) => `${stage} failed ${count(times)} times`).join(', ') : 'none has failed');
  if (state.capture !== undefined) add('Prompt capture', state.capture === 'failing' ? false : null, capture && !capture.error ? captured(capture) : state.capture === 'off' ? 'off: no prompt is kept' : state.capture);
  if (state.config_id) add('Configuration', null, el('code', {}, state.config_id));
  $('health-trouble').hidden = !health.error;
  $('health-trouble').textContent = health.error ? `How farthing’s parts are can’t be shown: ${health.error}.` : '';
  $('health').replaceChildren(...lines.map(([name, good, words]) => el('div', { class: good === false ? 'bad' : good ? 'good' : '' }, el('dt', {}, name), el('dd', {}, good === false ? '▲ ' : good ? '● ' : '', ...words))));
}

function captured(capture) {
  const parts = [capture.share === undefined ? '' : `${share(Number(capture.share))} of requests`, `${count(capture.rows)} kept`, bytes(capture.bytes),
    capture.oldest_s ? `since ${instant(new Date(capture.oldest_s * 1000))}` : '', capture.dropped ? `${count(capture.dropped)} dropped` : ''];
  return `${capture.enabled ? 'on' : 'off, but some are kept'}: ${parts.filter(Boolean).join(', ')}`;
}
