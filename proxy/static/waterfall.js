// Bars of one request: from what it would have cost to what it cost, and where its time went.
import { duration, el, money, swatch } from './format.js';
import { PATTERN } from './palette.js';

const STEPS = [
  ['exact', 'exact cache', ''], ['semantic', 'semantic cache', ''], ['compress', 'compression', 'p0 − p1'],
  ['route', 'routing and retries', 'p1 − p2, p3 − p4'], ['prompt_cache', 'provider’s prompt cache', 'p2 − p3'],
];
const WAITS = new Set(['upstream', 'flight', 'lease']);
const pattern = (key) => `pattern-${PATTERN[key] ?? 'plain'}`;

/** Baseline, each saving as a step down (a loss as a step up), cost, own spending. Nothing where no price is known. */
export function moneySteps(row) {
  if (row.baseline_usd === null || row.cost_usd === null) return [];
  const baseline = Number(row.baseline_usd), cost = Number(row.cost_usd), own = Number(row.overhead_usd ?? 0);
  const lines = [['baseline', 'without farthing', 'p0', 0, baseline, row.baseline_usd]];
  let at = baseline;
  for (const [key, name, prices] of STEPS) {
    const text = row[`saved_${key}_usd`], saved = Number(text ?? 0);
    if (saved) lines.push([saved < 0 ? 'loss' : key, name, prices, at - saved, at, negated(text), key]);
    at -= saved;
  }
  lines.push(['spent', 'cost', 'p4', 0, cost, row.cost_usd]);
  if (own) lines.push(['own', 'farthing’s own', '', cost, cost + own, row.overhead_usd]);
  const all = lines.flatMap(([, , , from, to]) => [from, to]), low = Math.min(0, ...all), high = Math.max(...all);
  if (high <= low) return [el('p', { class: 'none' }, 'It cost nothing, and would have cost nothing.')];
  const share = (x) => `${(100 * (x - low)) / (high - low)}%`;
  return [el('dl', { class: 'waterfall' }, ...lines.map(([colour, name, prices, from, to, amount, key]) => el('div', {},
    el('dt', {}, name, prices ? el('span', { class: 'soft' }, ` ${prices}`) : null),
    el('dd', { class: 'track', 'aria-hidden': 'true' }, el('i', { class: from === to ? 'nothing' : pattern(key ?? colour), '--from': share(Math.min(from, to)), width: `calc(${share(Math.max(from, to))} - ${share(Math.min(from, to))})`, '--swatch': `var(--${colour})` })),
    el('dd', { class: colour === 'loss' ? 'minus' : key ? 'good' : '' }, colour === 'loss' ? `+${money(amount)}` : key ? money(amount).replace('-', '−') : money(amount)))))];
}

const negated = (text) => (text.startsWith('-') ? text.slice(1) : `-${text}`);

/** The whole latency, own time apart from waiting; and of the own time, each stage. */
export function timeBars(row) {
  const own = row.overhead_ms ?? 0, whole = Math.max(row.latency_ms ?? 0, own), wait = Math.max(0, whole - own);
  const stages = Object.entries(row.stage_ms || {}).map(([name, ms]) => [name, Number(ms)]).filter(([name, ms]) => !WAITS.has(name) && ms > 0);
  const known = stages.reduce((sum, [, ms]) => sum + ms, 0), rest = own - known;
  const parts = [...stages, ...(rest > 0.0005 ? [['everything else', rest]] : [])];
  const waited = row.cache === 'joined' ? 'waiting for the other request' : 'waiting for the upstream';
  return [
    bar('Whole latency', whole, [[waited, wait, 'spent'], ['farthing’s own', own, 'own']].filter(([, ms]) => ms > 0), row.ttft_ms === null ? '' : `first byte after ${duration(row.ttft_ms)}`),
    ...(parts.length ? [bar('Farthing’s own time', Math.max(own, known), parts.map(([name, ms], i) => [name, ms, STAGES[i % STAGES.length]]), '')] : []),
  ];
}

const STAGES = ['exact', 'semantic', 'compress', 'route', 'prompt_cache', 'bypass'];

function bar(title, whole, parts, note) {
  const all = parts.reduce((sum, [, ms]) => sum + ms, 0) || 1;
  return el('div', { class: 'time' },
    el('p', {}, title, ' ', el('b', {}, duration(whole)), note ? el('span', { class: 'soft' }, ` ${note}`) : null),
    el('div', { class: 'bar', 'aria-hidden': 'true' }, ...parts.map(([name, ms, key]) => el('div', { title: `${name}: ${duration(ms)}`, width: `${(100 * ms) / all}%`, class: pattern(key), '--swatch': `var(--${key})` }))),
    el('ul', { class: 'legend' }, ...parts.map(([name, ms, key]) => el('li', {}, swatch(key, pattern(key)), name, el('b', {}, duration(ms))))));
}
