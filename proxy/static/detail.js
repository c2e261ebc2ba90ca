// One request in full: what was decided about it, by which stage, and what each attempt upstream came to.
import { clock, count, duration, el, money } from './format.js';

const $ = (id) => document.getElementById(id);

export const close = () => $('detail').close();

/** Open the dialog and fill it. `ask`: the API. */
export async function show(id, ask) {
  $('detail-title').textContent = id;
  $('detail-body').replaceChildren(el('p', { class: 'soft' }, 'Loading…'));
  if (!$('detail').open) $('detail').showModal();
  try {
    fill(await ask(`requests/${encodeURIComponent(id)}`));
  } catch (error) {
    $('detail-body').replaceChildren(el('p', { class: 'error' }, error.message));
  }
}

function fill(row) {
  const facts = [
    ['time', clock(row.ts)], ['endpoint', row.endpoint], ['outcome', `${row.outcome}, ${row.status}`], ['error', row.error],
    ['model asked for', row.model_requested], ['model that answered', row.model_served], ['upstream', row.upstream],
    ['cache', row.cache_reason ? `${row.cache}: ${row.cache_reason}` : row.cache],
    ['similarity', row.similarity?.toFixed(4)], ['chance of being wrong', row.p_wrong?.toFixed(4)],
    ['tokens in, asked', optional(row.tokens_in_original)], ['tokens in, sent', optional(row.tokens_in_sent)],
    ['provider-cached', optional(row.tokens_in_cached)], ['tokens out', optional(row.tokens_out)],
    ['tokens counted by', row.usage_source], ['without farthing', money(row.baseline_usd)], ['cost', money(row.cost_usd)],
    ...['exact', 'semantic', 'compress', 'route', 'prompt_cache'].map((cause) => [`saved: ${cause.replace('_', ' ')}`, Number(row[`saved_${cause}_usd`]) ? money(row[`saved_${cause}_usd`]) : '']),
    ['own spending', money(row.overhead_usd)], ['prices from', row.price_source || (row.cost_usd === null ? 'unknown price' : '')],
    ['figures', row.modelled ? 'modelled (estimated)' : ''], ['latency', duration(row.latency_ms)],
    ['to first byte', row.ttft_ms === null ? '' : duration(row.ttft_ms)], ['upstream', row.upstream_ms === null ? '' : duration(row.upstream_ms)],
    ['own overhead', duration(row.overhead_ms)], ['tenant', row.tenant], ['user', row.user],
    ['tags', Object.entries(row.tags || {}).map(([name, value]) => `${name}=${value}`).join(', ')], ['policy', row.policy],
  ];
  const list = el('dl', { class: 'facts' }, ...facts.filter(([, value]) => value !== '' && value !== null && value !== undefined)
    .map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', { class: String(value).startsWith('-$') ? 'minus' : '' }, value))));
  const decisions = (Array.isArray(row.decisions) ? row.decisions : []).map((each) => (Array.isArray(each) ? each : [each?.stage, each?.action, each?.reason]));
  const attempts = (Array.isArray(row.attempts_detail) ? row.attempts_detail : [])
    .map((each) => [each.upstream, each.status || 'no answer', each.error, duration(each.duration_ms)]);
  const stages = Object.entries(row.stage_ms || {}).map(([name, ms]) => [name, duration(Number(ms))]);
  $('detail-body').replaceChildren(list,
    ...table('Decisions', ['stage', 'decision', 'why'], decisions),
    ...table('Attempts upstream', ['upstream', 'status', 'error', 'took'], attempts),
    ...table('Time in stages', ['stage', 'took'], stages));
}

const optional = (n) => (n === null ? '' : count(n));

function table(title, head, rows) {
  if (!rows.length) return [];
  return [el('h3', {}, title), el('table', {}, el('thead', {}, el('tr', {}, ...head.map((name) => el('th', { class: 'text', scope: 'col' }, name)))),
    el('tbody', {}, ...rows.map((row) => el('tr', {}, ...row.map((value) => el('td', { class: 'text' }, value ?? ''))))))];
}
