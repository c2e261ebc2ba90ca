// The dashboard: asks for figures, shows them, asks again. Everything shown goes through `el`, so no text is markup.
import { Chart } from './charts.js';
import { axisMoney, clock, count, duration, el, money, share, short, swatch } from './format.js';
import { show as showCompress } from './compress.js';
import { close, show as showDetail } from './detail.js';
import { show as showLately, wanted as wantedLately, whenChanged } from './lately.js';
import { show as showReuse } from './reuse.js';

const $ = (id) => document.getElementById(id);
const EVERY_MS = 10_000;
const BUCKETS = { '1h': 60, '24h': 48, '7d': 84, '30d': 60 };
const CAUSES = { exact: 'exact cache', semantic: 'semantic cache', compress: 'compression', route: 'routing', prompt_cache: 'prompt cache' };
const STATUSES = { 'hit-exact': ['exact hits', 'exact'], 'hit-semantic': ['semantic hits', 'semantic'], joined: ['joined', 'joined'], miss: ['misses', 'miss'], bypass: ['bypassed', 'bypass'] };
let asked = 0, token = sessionStorage.getItem('farthing-token') || '', timer = 0, shown = false, charts = [];

export async function ask(path) {
  const reply = await fetch(`/farthing/api/${path}`, { headers: token ? { Authorization: `Bearer ${token}` } : {}, cache: 'no-store' });
  if (reply.status === 401) throw Object.assign(new Error('the admin token is needed'), { token: true });
  const body = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Error(body.error?.message || `farthing answered ${reply.status}`);
  return body;
}

const since = () => document.querySelector('input[name="since"]:checked').value;

async function refresh() {
  clearTimeout(timer);
  const mine = ++asked;
  const buckets = Math.round(BUCKETS[since()] / (innerWidth < 600 ? 2 : 1));
  try {
    const [summary, series, recent, reuse, lately, compress] = await Promise.all([
      ask(`summary?since=${since()}&by=${encodeURIComponent($('by').value)}`),
      ask(`series?since=${since()}&buckets=${buckets}`), ask('requests?limit=50'),
      ...['semantic', `semantic/lately?${wantedLately()}`, 'compress'].map((path) => ask(path).catch((error) => { if (error.token) throw error; return { error: error.message }; })),
    ]);
    if (mine !== asked) return;
    $('trouble').hidden = $('token').hidden = true;
    show(summary, series.buckets, recent.requests);
    showReuse(reuse);
    showLately(lately, ask);
    showCompress(compress, series.buckets, summary.total);
    shown = true;
  } catch (error) {
    if (mine !== asked) return;
    if (shown) $('main').dataset.state = 'stale';
    $('token').hidden = !error.token;
    $('trouble').hidden = Boolean(error.token);
    const away = error instanceof TypeError;
    $('trouble').textContent = away ? 'farthing can’t be reached. These figures are the last ones; trying again.' : `No new figures: ${error.message}.`;
  }
  if ($('live').checked && !document.hidden) timer = setTimeout(refresh, EVERY_MS);
}

function show(summary, buckets, recent) {
  const total = summary.total, empty = total.requests === 0;
  $('main').dataset.state = empty ? 'empty' : 'ready';
  $('empty').hidden = !empty;
  $('recent-card').hidden = recent.length === 0;
  badges(summary.state);
  if (!empty) {
    hero(summary);
    tiles(total);
    drawCharts(buckets, total);
    groups(summary);
  }
  recentTable(recent);
  $('asof').textContent = `as of ${new Date().toLocaleTimeString()}`;
}

function badges(state) {
  const list = [];
  const add = (kind, text) => list.push(el('li', { class: kind }, text));
  if (state.switched_off) add('bad', 'all optimisation off');
  if (state.simulated) add('warn', 'simulated upstream: these are not real savings');
  if (String(state.semantic).includes('unproven')) add('warn', 'semantic: unproven');
  if (state.ledger === 'degraded') add('bad', 'ledger: can’t be written');
  if (state.ledger_dropped) add('bad', `${count(state.ledger_dropped)} ledger rows lost`);
  const on = (name, is, word) => add(is && !state.switched_off ? 'on' : 'idle', `${name}: ${word}`);
  if (state.exact !== undefined) on('exact cache', state.exact !== 'off', state.exact === 'off' ? 'off' : 'on');
  if (state.semantic !== undefined && !String(state.semantic).includes('unproven')) {
    on('semantic', state.semantic !== 'off', state.semantic === 'observe' ? 'observing, serves nothing' : state.semantic);
  }
  if (state.tidy !== undefined) on('tidy', state.tidy, state.tidy ? 'on' : 'off');
  for (const step of ['recode', 'squeeze']) {
    if (String(state[step]).includes('unproven')) add('warn', `${step}: unproven`);
    else if (state[step] !== undefined) on(step, state[step] !== 'off', state[step] === 'observe' ? 'observing, sends nothing' : state[step]);
  }
  if (state.capture !== undefined) on('prompt capture', state.capture !== 'off', state.capture);
  if (state.ledger === 'off') add('idle', 'ledger: off');
  if (state.upstream) add('', `upstream ${state.upstream}`);
  if (state.in_flight) add('', `${count(state.in_flight)} in flight`);
  if (state.version) add('', `version ${state.version}`);
  $('badges').replaceChildren(...list);
}

function hero({ total, headline, notes }) {
  const net = Number(total.net_saving_usd), baseline = Number(total.baseline_usd);
  $('net').textContent = money(total.net_saving_usd);
  $('net').parentElement.classList.toggle('minus', net < 0);
  $('net-share').textContent = baseline > 0 ? `${share(net / baseline)} of the bill` : '';
  $('headline').textContent = headline;
  $('notes').replaceChildren(...notes.map((note) => el('li', {}, note)));
  const parts = [['spent', 'spent', total.spent_usd], ...Object.entries(CAUSES).map(([key, name]) => [key, name, total[`saved_${key}_usd`]])];
  const whole = parts.reduce((sum, part) => sum + Math.max(0, Number(part[2])), 0);
  const wide = parts.filter((part) => Number(part[2]) > 0);
  $('split').replaceChildren(...wide.map(([key, name, amount]) => el('div', { title: `${name}: ${money(amount)}`, width: `${(100 * Number(amount)) / whole}%`, class: `part-${key}` })));
  [...$('split').children].forEach((child, i) => child.style.setProperty('background', `var(--${wide[i][0]})`));
  $('split').setAttribute('aria-label', wide.map(([, name, amount]) => `${name} ${money(amount)}`).join(', '));
  const lines = parts.slice(1).filter((part) => Number(part[2]) !== 0).map(([key, name, amount]) => [key, `saved by ${name}`, amount]);
  lines.unshift(['spent', 'spent in all', total.spent_usd], ['baseline', 'without farthing', total.baseline_usd]);
  if (Number(total.overhead_usd)) lines.splice(1, 0, ['own', 'of it, farthing’s own', total.overhead_usd]);
  $('causes').replaceChildren(...lines.map(([key, name, amount]) => el('div', { class: Number(amount) < 0 ? 'minus' : '' }, swatch(key), el('dt', {}, name), el('dd', {}, money(amount)))));
}

function tiles(total) {
  const tile = (title, value, ...under) => el('div', { class: 'tile' }, el('h3', {}, title), el('div', { class: 'value' }, value), ...under.map((text) => el('div', { class: 'under' }, text)));
  const latency = total.latency_ms || {}, hit = total.latency_hit_ms || {}, miss = total.latency_miss_ms || {}, own = total.overhead_ms || {};
  $('tiles').replaceChildren(
    tile('Requests', count(total.requests), `${count(total.errors)} errors`, `${count(total.abandoned)} abandoned`),
    tile('Hit rate', share(total.hit_rate_eligible), 'of eligible requests', `${share(total.hit_rate_all)} of all`),
    tile('Tokens in', short(total.tokens_in_sent), `sent, of ${short(total.tokens_in_original)} asked`, `${short(total.tokens_out)} out`),
    tile('Latency p95', duration(latency.p95), `p50 ${duration(latency.p50)}`, `p50 hit ${duration(hit.p50)}`, `p50 upstream ${duration(miss.p50)}`),
    tile('Own overhead p95', duration(own.p95), `p50 ${duration(own.p50)}`, `p99 ${duration(own.p99)}`, 'in every request’s latency'),
  );
}

function drawCharts(buckets, total) {
  if (!charts.length) {
    const make = (form) => charts.push(new Chart($('charts'), form));
    const causes = Object.entries(CAUSES).map(([key, label]) => ({ label, colour: key }));
    make({ title: 'Spend against baseline', kind: 'lines', axis: axisMoney, value: money, band: [1, 2], series: [{ label: 'without farthing', colour: 'baseline', dash: [3, 4] }, { label: 'spent', colour: 'spent', fill: true }] });
    make({ title: 'Saved, by cause', kind: 'stack', axis: axisMoney, value: money, series: causes });
    make({ title: 'Requests', kind: 'stack', axis: short, value: count, series: Object.values(STATUSES).map(([label, colour]) => ({ label, colour })) });
    make({ title: 'Tokens', kind: 'lines', axis: short, value: short, series: [{ label: 'in, asked', colour: 'in' }, { label: 'in, sent', colour: 'sent' }, { label: 'out', colour: 'out' }] });
    make({ title: 'Latency', kind: 'lines', axis: (ms) => duration(ms).replace(/\.0+ /, ' '), value: duration, series: [{ label: 'p50', colour: 'p50' }, { label: 'p95', colour: 'p95' }] });
    make({ title: 'Farthing’s own overhead', kind: 'lines', axis: (ms) => duration(ms).replace(/\.0+ /, ' '), value: duration, series: [{ label: 'p50', colour: 'p50' }, { label: 'p95', colour: 'p95' }] });
  }
  const times = buckets.map((each) => each.start_s + each.length_s / 2);
  const column = (name) => buckets.map((each) => (each[name] === null ? null : Number(each[name])));
  const timed = (name, p) => buckets.map((each) => each[name]?.[p] ?? null);
  const saved = Object.keys(CAUSES).map((key) => `saved_${key}_usd`), tokens = ['tokens_in_original', 'tokens_in_sent', 'tokens_out'];
  const [spend, causes, requests, token, latency, overhead] = charts;
  spend.show(times, [column('baseline_usd'), column('spent_usd')], [money(total.baseline_usd), money(total.spent_usd)]);
  causes.show(times, saved.map(column), saved.map((name) => money(total[name])));
  requests.show(times, Object.keys(STATUSES).map((key) => buckets.map((each) => each.cache[key] || 0)), Object.keys(STATUSES).map((key) => count(total.cache[key] || 0)));
  token.show(times, tokens.map(column), tokens.map((name) => short(total[name])));
  for (const [chart, name] of [[latency, 'latency_ms'], [overhead, 'overhead_ms']]) {
    chart.show(times, ['p50', 'p95'].map((p) => timed(name, p)), ['p50', 'p95'].map((p) => duration(total[name]?.[p])));
  }
}

/** Fill a table; each cell knows its column's name, since a narrow screen shows no head. `texts`: columns of words. */
function fill(table, names, texts, rows) {
  for (const row of rows) [...row.children].forEach((each, i) => each.setAttribute('data-label', names[i]));
  const head = names.map((name, i) => el('th', { scope: 'col', class: i < texts ? 'text' : '' }, name));
  table.replaceChildren(el('thead', {}, el('tr', {}, ...head)), el('tbody', {}, ...rows));
}

const cell = (value, kind = '') => el('td', { class: kind }, value);
const signed = (amount) => (Number(amount) < 0 ? 'minus' : Number(amount) > 0 ? 'good' : '');

function groups({ groups: found, by, groups_left_out: left }) {
  const meter = (rate) => (rate === null ? '–' : el('span', {}, el('span', { class: 'meter', 'aria-hidden': 'true' }, el('i', { width: share(rate) })), share(rate)));
  const rows = found.map((each) => el('tr', {},
    el('td', { class: 'name', title: each.key[by[0]] }, each.key[by[0]] || '(none)'), cell(count(each.requests)), cell(money(each.spent_usd)),
    cell(money(each.net_saving_usd), signed(each.net_saving_usd)), cell(money(each.baseline_usd)), cell(meter(each.hit_rate_eligible)), cell(duration(each.latency_ms?.p95)),
    cell(short(each.tokens_in_sent)), cell(short(each.tokens_out)), cell(each.unpriced ? count(each.unpriced) : '')));
  if (left) rows.push(el('tr', {}, el('td', { class: 'name', colspan: '10' }, `${count(left)} smaller groups are not shown`)));
  fill($('groups'), [$('by').selectedOptions[0].textContent, 'requests', 'spent', 'net saved', 'baseline', 'hit rate', 'p95', 'tokens sent', 'tokens out', 'unpriced'], 1, rows);
}

function recentTable(rows) {
  fill($('recent'), ['time', 'model', 'answered by', 'status', 'tokens in', 'out', 'cost', 'saved', 'latency', 'overhead'], 3, rows.map((row) => {
    const [label, colour] = STATUSES[row.cache] || [row.cache, 'bypass'];
    const own = { audit: 'audit of a hit', judge: 'judge of a candidate', shadow: 'shadow in another form' }[row.endpoint];
    const word = own || { 'hit-exact': 'exact hit', 'hit-semantic': 'semantic hit', miss: 'upstream', bypass: 'upstream, bypass' }[row.cache] || label;
    const unproven = row.cache === 'hit-semantic' && row.cache_reason.includes('unproven') ? ' (unproven)' : '';
    const saved = row.baseline_usd === null || row.cost_usd === null ? null : String(Number(row.baseline_usd) - Number(row.cost_usd));
    const failed = row.outcome !== 'completed' || row.status >= 400;
    const tokens = row.tokens_in_original === null ? '–' : row.tokens_in_sent === row.tokens_in_original ? count(row.tokens_in_sent) : `${count(row.tokens_in_original)} → ${count(row.tokens_in_sent)}`;
    return el('tr', {}, el('td', { class: 'text' }, el('button', { class: 'link', type: 'button', 'aria-label': `Details of ${row.id}`, onclick: () => showDetail(row.id, ask) }, clock(row.ts))),
      el('td', { class: 'name', title: row.model_requested }, row.model_requested || row.endpoint),
      el('td', { class: 'text' }, el('span', { class: 'status' }, swatch(colour), word + unproven)),
      cell(row.outcome === 'abandoned' ? 'abandoned' : row.status, failed ? 'error' : ''), cell(tokens), cell(count(row.tokens_out)),
      cell(money(own ? row.overhead_usd : row.cost_usd)), cell(own ? '' : money(saved), signed(saved)), cell(duration(row.latency_ms)), cell(duration(row.overhead_ms)));
  }));
}

function remember() {
  history.replaceState(null, '', `#${new URLSearchParams({ since: since(), by: $('by').value })}`);
  refresh();
}

const wanted = new URLSearchParams(location.hash.slice(1));
for (const input of document.querySelectorAll('input[name="since"]')) {
  if (input.value === wanted.get('since')) input.checked = true;
  input.addEventListener('change', remember);
}
if ([...$('by').options].some((option) => option.value === wanted.get('by'))) $('by').value = wanted.get('by');
$('by').addEventListener('change', remember);
whenChanged(refresh);
$('live').addEventListener('change', refresh);
$('detail-close').addEventListener('click', close);
$('token').addEventListener('submit', (event) => { event.preventDefault(); token = $('token-text').value; sessionStorage.setItem('farthing-token', token); refresh(); });
document.addEventListener('visibilitychange', () => { if (!document.hidden) refresh(); });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', refresh);
$('snippet').textContent = `from openai import OpenAI\n\nclient = OpenAI(base_url="${location.origin}/v1")`;
for (let i = 0; i < 5; i += 1) $('tiles').append(el('div', { class: 'tile' }));
refresh();
