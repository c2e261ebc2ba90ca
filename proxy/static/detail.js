// One request in full: what happened in sentences, its money and time as bars, every figure, and what one can do.
import { change } from './api.js';
import { clock, count, duration, el, money } from './format.js';
import { explain } from './explain.js';
import { confirmed, doing } from './upkeep.js';
import { moneySteps, timeBars } from './waterfall.js';

const $ = (id) => document.getElementById(id);
const KNOWN = new Set(['upstream', 'status', 'error', 'duration_ms', 'backoff_ms']), OWN_CALLS = new Set(['audit', 'judge', 'shadow']);

export const close = () => $('detail').close();

/** Open the dialog and fill it. `ask`: the API. */
export async function show(id, ask) {
  $('detail-title').textContent = id;
  $('detail-body').replaceChildren(el('p', { class: 'soft' }, 'Loading…'));
  if (!$('detail').open) $('detail').showModal();
  $('detail').scrollTop = 0;
  try {
    fill(await ask(`requests/${encodeURIComponent(id)}`));
  } catch (error) {
    $('detail-body').replaceChildren(el('p', { class: 'error', role: 'alert' }, `This request can’t be shown: ${error.message}.`));
  }
}

function fill(row) {
  const told = explain(row), steps = moneySteps(row);
  $('detail-body').replaceChildren(
    el('p', { class: 'soft' }, [clock(row.ts), row.model_requested || row.endpoint, row.stream ? 'streamed' : '', row.outcome === 'abandoned' ? 'abandoned' : `status ${row.status}`].filter(Boolean).join(' · ')),
    el('h3', {}, 'What happened'), el('ol', { class: 'story' }, ...told.map(({ about, text }) => el('li', {}, el('b', {}, about), el('span', {}, text)))),
    ...(steps.length ? [el('h3', {}, 'Money'), ...steps] : []),
    el('h3', {}, 'Time'), ...timeBars(row), ...actions(row),
    el('details', {}, el('summary', {}, 'Every figure'), facts(row), ...decisions(row), ...attempts(row)));
}

/** What one can do about it: rate an answer, remove what is stored of it. */
function actions(row) {
  const said = el('p', { class: 'soft', role: 'status' }), act = (name, words, kind, does) => el('button', { type: 'button', class: kind, name, onclick: () => does(said) }, words);
  const buttons = [
    ...(isAnswered(row) ? [act('good', 'The answer was right', '', rate(row, 'good')), act('bad', 'The answer was wrong', 'danger', rate(row, 'bad'))] : []),
    ...(isStored(row) ? [act('remove', 'Remove the stored answer', 'danger', remove(row))] : []),
  ];
  return buttons.length ? [el('h3', {}, isAnswered(row) ? 'Was it right?' : 'Stored answer'), el('div', { class: 'actions' }, ...buttons), said] : [];
}

/** Whether a client got a whole, good answer. */
const isAnswered = (row) => row.outcome === 'completed' && row.status >= 200 && row.status < 300 && !OWN_CALLS.has(row.endpoint);

/** Whether the row says that an answer was stored under its key, or served from there. A near-duplicate's has another key. */
function isStored(row) {
  if (!row.key_hash || !['hit-exact', 'joined', 'miss'].includes(row.cache)) return false;
  const kept = !(Array.isArray(row.decisions) ? row.decisions : []).some((each) => Array.isArray(each) && each[0] === 'store');
  return row.cache === 'hit-exact' || (kept && row.outcome === 'completed' && row.status === 200);
}

const rate = (row, rating) => (said) => doing(said, async () => {
  const { known, kept, purged } = await change('feedback', { id: row.id, rating });
  const told = kept ? `Rated ${rating}: the rating is kept.` : `Rated ${rating} already: nothing new to keep.`;
  const unknown = known ? '' : ' The ledger has no such request (any more), so it counts for nobody’s answer.';
  return `${told}${unknown}${rating === 'bad' && known ? (purged ? ' Its stored answer is removed.' : ' There was nothing stored to remove.') : ''}`;
});

const remove = (row) => async (said) => {
  if (!await confirmed('Remove this stored answer?', `What is stored for request ${row.id} is removed. The same request goes upstream again, and is paid for.`, 'Remove')) return;
  await doing(said, async () => { const { purged } = await change('cache/purge', { key: row.key_hash }); return purged ? 'The stored answer is removed.' : 'Nothing is stored for this request any more.'; });
};

function facts(row) {
  const list = [
    ['time', clock(row.ts)], ['endpoint', row.endpoint], ['outcome', `${row.outcome}, ${row.status}`], ['error', row.error],
    ['model asked for', row.model_requested], ['model that answered', row.model_served], ['upstream', row.upstream],
    ['cache', row.cache_reason ? `${row.cache}: ${row.cache_reason}` : row.cache], ['compression', row.compress],
    ['similarity', row.similarity?.toFixed(4)], ['chance of being wrong', row.p_wrong?.toFixed(4)],
    ['tokens in, asked', optional(row.tokens_in_original)], ['tokens in, sent', optional(row.tokens_in_sent)],
    ['provider-cached', optional(row.tokens_in_cached)], ['written to its cache', row.tokens_in_cache_write ? count(row.tokens_in_cache_write) : ''],
    ['tokens out', optional(row.tokens_out)], ['of it reasoning', row.tokens_reasoning ? count(row.tokens_reasoning) : ''],
    ['tokens counted by', row.usage_source], ['without farthing', money(row.baseline_usd)], ['cost', money(row.cost_usd)],
    ...['exact', 'semantic', 'compress', 'route', 'prompt_cache'].map((cause) => [`saved: ${cause.replace('_', ' ')}`, Number(row[`saved_${cause}_usd`]) ? money(row[`saved_${cause}_usd`]) : '']),
    ['own spending', money(row.overhead_usd)], ['prices from', row.price_source || (row.cost_usd === null ? 'unknown price' : '')],
    ['figures', row.modelled ? 'modelled (estimated)' : ''], ['latency', duration(row.latency_ms)],
    ['to first byte', row.ttft_ms === null ? '' : duration(row.ttft_ms)], ['upstream', row.upstream_ms === null ? '' : duration(row.upstream_ms)],
    ['own overhead', duration(row.overhead_ms)], ['tenant', row.tenant], ['user', row.user],
    ['tags', Object.entries(row.tags || {}).map(([name, value]) => `${name}=${value}`).join(', ')], ['policy', row.policy],
    ['experiment', [row.experiment, row.arm].filter(Boolean).join(', arm ')], ['key', row.key_hash], ['flight', row.flight_id], ['configuration', row.config_id],
  ];
  return el('dl', { class: 'facts' }, ...list.filter(([, value]) => value !== '' && value !== null && value !== undefined)
    .map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', { class: String(value).startsWith('-$') ? 'minus' : '' }, value))));
}

const decisions = (row) => table('Decisions', ['stage', 'decision', 'why'], (Array.isArray(row.decisions) ? row.decisions : []).map((each) => (Array.isArray(each) ? each : [each?.stage, each?.action, each?.reason])));

/** The attempts, and what else the ledger keeps of each: price rows used, tiers. */
function attempts(row) {
  const list = Array.isArray(row.attempts_detail) ? row.attempts_detail : [];
  const more = (each) => Object.entries(each ?? {}).filter(([name]) => !KNOWN.has(name)).map(([name, value]) => `${name.replaceAll('_', ' ')}: ${typeof value === 'object' ? JSON.stringify(value) : value}`).join('; ');
  const told = list.some((each) => more(each));
  return table('Attempts upstream', ['upstream', 'status', 'error', 'took', ...(told ? ['also known'] : [])],
    list.map((each) => [each.upstream, each.status || 'no answer', each.error, duration(each.duration_ms), ...(told ? [more(each)] : [])]));
}

const optional = (n) => (n === null ? '' : count(n));

function table(title, head, rows) {
  if (!rows.length) return [];
  return [el('h3', {}, title), el('table', {}, el('thead', {}, el('tr', {}, ...head.map((name) => el('th', { class: 'text', scope: 'col' }, name)))),
    el('tbody', {}, ...rows.map((row) => el('tr', {}, ...row.map((value) => el('td', { class: 'text' }, value ?? ''))))))];
}
