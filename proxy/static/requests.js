// The list of requests: filtered, page by page, each a way to its details.
import { clock, count, duration, el, money, swatch } from './format.js';
import { STATUSES } from './graphs.js';
import { PATTERN } from './palette.js';
import { cell, fill, signed } from './table.js';

const $ = (id) => document.getElementById(id);
const PAGE = 25, PHONE_PAGE = 15, PHONE_PX = 544, WAIT_MS = 300;
const FIELDS = ['text', 'model', 'answer', 'cache', 'endpoint', 'tag'];
const OWN = { audit: 'audit of a hit', judge: 'judge of a candidate', shadow: 'shadow in another form' };
let pages = [''], changed = () => {}, waiting = 0;

const field = (name) => $(`filter-${name}`);
const filters = () => Object.fromEntries([...FIELDS.map((name) => [name, field(name).value.trim()]), ['failed', field('failed').checked ? '1' : '']].filter(([, value]) => value));
const filtered = () => Object.keys(filters()).length > 0;

/** What to ask of api/requests, beside the span of time. */
export const wanted = () => ({ ...filters(), limit: innerWidth <= PHONE_PX ? PHONE_PAGE : PAGE, ...(pages.at(-1) ? { before: pages.at(-1) } : {}) });

/** `on`: called when another page or filter is wanted. */
export function start(on) {
  changed = on;
  const anew = () => { clearTimeout(waiting); first(); waiting = setTimeout(changed, WAIT_MS); };
  for (const name of [...FIELDS, 'failed']) field(name).addEventListener(field(name).type === 'checkbox' || field(name).tagName === 'SELECT' ? 'change' : 'input', anew);
  $('filters').addEventListener('submit', (event) => { event.preventDefault(); anew(); });
  for (const button of document.querySelectorAll('[data-clear]')) button.addEventListener('click', () => { clear(); anew(); field('text').focus(); });
  $('page-older').addEventListener('click', () => turn(() => pages.push($('page-older').dataset.before)));
  $('page-newer').addEventListener('click', () => turn(() => pages.pop()));
}

function turn(to) {
  to();
  $('recent-card').dataset.state = 'loading';
  changed();
}

function clear() {
  for (const name of FIELDS) field(name).value = '';
  field('failed').checked = false;
}

/** Back to the first page: the span of time has changed, or the filter. */
export function first() {
  pages = [''];
  $('recent-card').dataset.state = 'loading';
}

/** List what a field's value names, and go there. */
export function narrow(name, value) {
  clear();
  if (name === 'cache' && !(value in STATUSES)) return;
  field(name).value = value;
  first();
  changed();
  $('recent-card').scrollIntoView({ block: 'start' });
  field('text').focus({ preventScroll: true });
}

/** What may be filtered by, as the API's names have it. */
export function offer(names) {
  for (const [list, known] of [['known-models', names.models], ['known-tags', names.tags]]) {
    $(list).replaceChildren(...(known ?? []).map((name) => { const made = el('option'); made.value = name; return made; }));
  }
}

/** `answer`: the API's page, or {error}, to what was `asked`. `open`: called with an id. `empty`: there is nothing in this time, whatever the filter. */
export function show(answer, asked, open, empty) {
  if (JSON.stringify(asked) !== JSON.stringify(wanted())) return; // the filter has changed since: its own answer comes
  const rows = answer.requests ?? [], page = pages.length, to = answer.looked_to_s ?? null;
  $('recent-card').hidden = empty && !filtered() && rows.length === 0;
  $('recent-card').dataset.state = answer.error ? 'error' : rows.length ? 'ready' : 'none';
  $('recent-said').hidden = !answer.error && rows.length > 0;
  $('recent-said').className = answer.error ? 'error' : 'none';
  $('recent-words').textContent = answer.error ? `The list can’t be shown: ${answer.error}.` : to !== null ? `No match back to ${clock(to)}. Older requests haven’t been looked at yet.` : filtered() ? (page > 1 ? 'No more requests in this time match.' : 'No request in this time matches.') : 'No more requests in this time.';
  $('recent-clear').hidden = $('filter-clear').hidden = !filtered();
  $('recent').hidden = rows.length === 0;
  $('asof').textContent = `as of ${clock(Date.now() / 1000)}`;
  if (answer.error) return;
  $('page-newer').disabled = page === 1;
  $('page-older').disabled = !answer.next;
  $('page-older').dataset.before = answer.next ?? '';
  $('page-older').textContent = to === null ? 'Older' : 'Look further back';
  $('pages').hidden = page === 1 && !answer.next;
  $('page').textContent = `page ${count(page)}${to !== null ? `: looked back to ${clock(to)}` : rows.length ? `: ${clock(rows[0].ts)} back to ${clock(rows.at(-1).ts)}` : ''}`;
  fill($('recent'), ['time', 'model', 'answered by', 'status', 'tokens in', 'out', 'cost', 'saved', 'latency', 'overhead'], 3, rows.map((row) => line(row, open)));
}

function line(row, open) {
  const [label, colour] = STATUSES[row.cache] || [row.cache, 'bypass'], own = OWN[row.endpoint];
  const word = own || { 'hit-exact': 'exact hit', 'hit-semantic': 'semantic hit', miss: 'upstream', bypass: 'upstream, bypass' }[row.cache] || label;
  const unproven = row.cache === 'hit-semantic' && row.cache_reason.includes('unproven') ? ' (unproven)' : '';
  const saved = row.baseline_usd === null || row.cost_usd === null ? null : String(Number(row.baseline_usd) - Number(row.cost_usd));
  const failed = row.outcome !== 'completed' || row.status >= 400;
  const tokens = row.tokens_in_original === null ? '–' : row.tokens_in_sent === row.tokens_in_original ? count(row.tokens_in_sent) : `${count(row.tokens_in_original)} → ${count(row.tokens_in_sent)}`;
  return el('tr', {}, el('td', { class: 'text' }, el('button', { class: 'link', type: 'button', 'data-focus': row.id, 'aria-label': `Details of ${row.id}`, onclick: () => open(row.id) }, clock(row.ts))),
    el('td', { class: 'name', title: row.model_requested }, row.model_requested || row.endpoint),
    el('td', { class: 'text' }, el('span', { class: 'status' }, swatch(colour, `pattern-${PATTERN[colour] ?? 'plain'}`), word + unproven)),
    cell(row.outcome === 'abandoned' ? 'abandoned' : row.status, failed ? 'error' : ''), cell(tokens), cell(count(row.tokens_out)),
    cell(money(own ? row.overhead_usd : row.cost_usd)), cell(own ? '' : money(saved), signed(saved)), cell(duration(row.latency_ms)), cell(duration(row.overhead_ms)));
}
