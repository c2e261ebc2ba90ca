// The charts of the overview: which there are, and what of the series each shows.
import { Chart } from './charts.js';
import { axisMoney, count, duration, money, share, short } from './format.js';

export const CAUSES = { exact: 'exact cache', semantic: 'semantic cache', compress: 'compression', route: 'routing', prompt_cache: 'prompt cache' };
export const STATUSES = { 'hit-exact': ['exact hits', 'exact'], 'hit-semantic': ['semantic hits', 'semantic'], joined: ['joined', 'joined'], miss: ['misses', 'miss'], bypass: ['bypassed', 'bypass'] };
const SAVED = Object.keys(CAUSES).map((key) => `saved_${key}_usd`);
const RANKS = ['p50', 'p95', 'p99'];
const AMOUNT = { axis: axisMoney, value: money }, RATE = { axis: (x) => `${Number((100 * x).toPrecision(3))}%`, value: share };
const TIME = {
  kind: 'lines', axis: (ms) => duration(ms).replace(/\.0+ /, ' '), value: duration,
  series: [{ label: 'p50', colour: 'p50' }, { label: 'p95', colour: 'p95', dash: [9, 5], mark: 'dashes' }, { label: 'p99', colour: 'p99', dash: [3, 4] }],
};
const TOKENS = { tokens_in_original: ['in, asked', 'in'], tokens_in_sent: ['in, sent', 'sent', [9, 5], 'dashes'], tokens_in_cached: ['of it read from the provider’s cache', 'cached', [3, 4]], tokens_out: ['out', 'out', [12, 3, 3, 3], 'dashdot'] };
const HITS = [['all', 'spent', ['hit-exact', 'hit-semantic', 'joined']], ['exact', 'exact', ['hit-exact'], [9, 5], 'dashes'], ['semantic', 'semantic', ['hit-semantic'], [3, 4]], ['joined', 'joined', ['joined'], [12, 3, 3, 3], 'dashdot']];

/** Each: the form of a chart, its values of a slice or of the whole span, and how the whole is told. */
const GRAPHS = [
  [{ title: 'Spend against baseline', kind: 'lines', ...AMOUNT, band: [1, 2], series: [{ label: 'without farthing', colour: 'baseline', dash: [3, 4] }, { label: 'spent', colour: 'spent', fill: true }] },
    (of) => [of.baseline_usd, of.spent_usd], money],
  [{ title: 'Saved, by cause', kind: 'stack', ...AMOUNT, series: Object.entries(CAUSES).map(([key, label]) => ({ label, colour: key })) },
    (of) => SAVED.map((name) => of[name]), money],
  [{ title: 'Requests', kind: 'stack', axis: short, value: count, series: Object.values(STATUSES).map(([label, colour]) => ({ label, colour })) },
    (of) => Object.keys(STATUSES).map((key) => of.cache[key] || 0), count],
  [{ title: 'Hit rate', kind: 'lines', ...RATE, series: HITS.map(([label, colour, , dash, mark]) => ({ label, colour, dash, mark })) }, rates, share],
  [{ title: 'Tokens', kind: 'lines', axis: short, value: short, series: Object.values(TOKENS).map(([label, colour, dash, mark]) => ({ label, colour, dash, mark })) },
    (of) => Object.keys(TOKENS).map((name) => of[name]), short],
  [{ title: 'Latency', ...TIME }, (of) => ranks(of.latency_ms), duration],
  [{ title: 'Waiting for the upstream', ...TIME }, (of) => ranks(of.upstream_ms), duration],
  [{ title: 'Farthing’s own overhead', ...TIME }, (of) => ranks(of.overhead_ms), duration],
];
let charts = [];

const ranks = (times) => RANKS.map((rank) => times?.[rank] ?? null);

/** Hits of each kind as a share of what a cache was allowed to answer; a slice without such requests is a gap. */
function rates(of) {
  const eligible = of.requests - (of.cache.bypass || 0);
  return HITS.map(([, , kinds]) => (eligible > 0 ? kinds.reduce((sum, kind) => sum + (of.cache[kind] || 0), 0) / eligible : null));
}

/** `buckets`, `total`: the series' slices, and the whole span. */
export function show(parent, buckets, total) {
  if (!charts.length) charts = GRAPHS.map(([form]) => new Chart(parent, form));
  const times = buckets.map((each) => each.start_s + each.length_s / 2);
  GRAPHS.forEach(([form, values, tell], i) => {
    const rows = buckets.map((each) => values(each).map((x) => (x === null || x === undefined ? null : Number(x))));
    charts[i].show(times, form.series.map((_, at) => rows.map((row) => row[at])), values(total).map((x) => tell(x)));
  });
}
