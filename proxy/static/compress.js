// The panel on compression: what is on, what each rule took out, and how far each route's proof has got.
import { Chart } from './charts.js';
import { count, el, money, short, swatch } from './format.js';

const $ = (id) => document.getElementById(id);
const FORMS = { tidy: 'compress', recode: 'exact', squeeze: 'semantic' };
const WORDS = { on: ['on', 'on'], off: ['idle', 'off'], observe: ['idle', 'observing, nothing is sent so'], serve: ['on', 'sent where proved'], 'serve unproven': ['warn', 'sent, unproven'] };
const LEFT = { observing: 'only observed', not_proved: 'not proved yet', not_audited: 'not audited for too long', not_kept: 'could not be kept', does_not_pay: 'would not pay', lost: 'decision lost', store_away: 'store of decisions away', frozen: 'before a cache mark' };
const MODES = { sent: 'saved', replayed: 'saved again, in later requests', observed: 'observed: would have been saved' };
let chart = null;

/** `compress`: what GET api/compress told, or {error}. `buckets`, `total`: of the ledger, in the range that is chosen. */
export function show(compress, buckets, total) {
  $('compress-card').hidden = false;
  $('compress-trouble').hidden = !compress.error;
  $('compress-trouble').textContent = compress.error ? `What compression does can’t be shown: ${compress.error}. Older figures stay.` : '';
  if (compress.error) return;
  promise(compress);
  overTime(buckets, total);
  rules(compress);
  routes(compress);
}

const percent = (x) => (x === null || x === undefined ? '–' : `${Number((100 * x).toPrecision(2))}%`);
const lossy = (compress) => [compress.recode, compress.squeeze];
const off = (compress) => compress.tidy === 'off' && lossy(compress).every((mode) => mode === 'off');

function promise(compress) {
  $('compress-modes').replaceChildren(...Object.keys(FORMS).map((form) => {
    const [kind, words] = WORDS[compress[form]] ?? ['', compress[form]], saved = compress.saved_usd_today[form];
    return el('li', { class: kind }, `${form}: ${words}`, saved && Number(saved) ? el('span', { class: Number(saved) < 0 ? 'minus' : '' }, `, ${money(saved)} saved today`) : null);
  }));
  const serves = lossy(compress).some((mode) => mode.startsWith('serve')), watches = lossy(compress).includes('observe');
  const bound = `at most ${percent(compress.max_worse)} of the answers to changed requests may be worse, ${percent(compress.confidence)} sure`;
  const said = off(compress) ? 'Compression is off: your upstream gets every byte as it came. compress.tidy = true takes white space out of tools’ results, and loses nothing.'
    : compress.unproven && serves ? 'Texts are sent in other forms with nothing proved: no share of worse answers is promised. Set compress.unproven = false for a bound.'
      : serves ? `A step is sent on a route once this is proved for it: ${bound}.`
        : watches ? `Nothing is sent in another form; what that would save is told below. With compress.recode = "serve" a route’s texts are recoded once this is proved: ${bound}.`
          : 'Tidying loses nothing. With compress.recode = "observe" you see here what other forms would save.';
  $('compress-promise').textContent = said;
  const cap = compress.shadow_daily_usd, spent = compress.shadows_usd_today;
  $('compress-shadows').hidden = off(compress) || !(serves || watches);
  $('compress-shadows').textContent = cap ? `shadows today ${money(String(spent))} of ${money(String(cap))} at most` : 'no shadows are paid for';
  $('compress-shadows').className = cap && spent >= cap ? 'error' : 'soft';
}

/** Tokens that requests were sent without, by the form of the request; none at all: words in the chart's place. */
function overTime(buckets, total) {
  const names = Object.keys(FORMS).map((form) => `tokens_saved_${form}`), none = names.every((name) => !total[name]);
  $('compress-chart').hidden = none;
  if (none) return;
  chart ??= new Chart($('compress-chart'), { title: 'Tokens saved, by form', kind: 'stack', axis: short, value: short, series: Object.entries(FORMS).map(([label, colour]) => ({ label, colour })) });
  chart.show(buckets.map((each) => each.start_s + each.length_s / 2), names.map((name) => buckets.map((each) => each[name])), names.map((name) => short(total[name])));
}

/** A line for each rule: above, what was saved; below, what would have been. All on one scale. */
function rules(compress) {
  const saved = (each) => each.sent.tokens + each.replayed.tokens, found = compress.rules;
  const widest = Math.max(1, ...found.map((each) => Math.max(saved(each), each.observed.tokens)));
  const part = (each, mode) => (each[mode].tokens ? el('i', { class: mode, width: `${(100 * each[mode].tokens) / widest}%`, title: `${MODES[mode]}: ${count(each[mode].tokens)} tokens in ${count(each[mode].texts)} messages` }) : null);
  const track = (...parts) => (parts.some((one) => one) ? el('span', {}, ...parts) : null);
  $('compress-rules').replaceChildren(...found.map((each) => el('li', {}, el('span', {}, each.rule),
    el('span', { class: 'tracks', 'aria-hidden': 'true' }, track(part(each, 'sent'), part(each, 'replayed')), track(part(each, 'observed'))),
    el('span', { class: 'numbers' }, saved(each) ? el('b', {}, `${short(saved(each))} saved`) : null, each.observed.tokens ? el('span', { class: 'soft' }, `${short(each.observed.tokens)} observed`) : null))));
  $('compress-by-rule').hidden = !found.length && !compress.routes.length;
  $('compress-key').hidden = !found.length;
  $('compress-no-rules').hidden = found.length > 0;
  const left = Object.entries(compress.left).filter(([, messages]) => messages).map(([reason, messages]) => `${count(messages)} ${LEFT[reason] ?? reason}`);
  $('compress-left').textContent = left.length ? `Messages left as they were, though they might have been shorter: ${left.join(', ')}.` : '';
}

/** How much of the evidence that a step's proof needs is there; the words say it too. */
function step(each, proved) {
  const seen = Math.round(each.labels), done = proved ? 1 : each.needed === null ? 0 : seen / (seen + each.needed);
  const compared = `${count(seen)} compared${each.wrong ? `, ${count(Math.round(each.wrong))} differed` : ''}`;
  const words = each.proof === 'unproven' ? `unproven, ${compared}`
    : proved ? `${each.serving ? 'proved' : 'proved, only observing'}: at most ${percent(each.bound)} worse, ${compared}`
      : each.needed === null ? each.reason || compared : `${compared}, about ${count(each.needed)} more good ${each.needed === 1 ? 'comparison' : 'comparisons'}`;
  return el('div', { class: 'step' }, el('span', { class: 'meter', 'aria-hidden': 'true' }, el('i', { width: `${100 * done}%` })), el('b', {}, each.name), el('span', {}, words),
    each.needed !== null && each.reason && each.epoch > 0 ? el('span', { class: 'why' }, `taken back: ${each.reason}`) : null);
}

/** The steps up to the one that is to be proved next, and others that were compared; the rest wait for their turn. */
function proofs(steps) {
  const next = steps.findIndex((one) => !one.proof), shown = (one, i) => next < 0 || i <= next || one.labels > 0;
  const waiting = steps.filter((one, i) => !shown(one, i)).map((one) => one.name);
  return [...steps.filter(shown).map((one) => step(one, one.proof === 'own' || one.proof === 'pool')), waiting.length ? el('div', { class: 'soft' }, `then ${waiting.join(', ')}`) : null];
}

function routes(compress) {
  const names = ['route', 'sends', 'proof', 'tokens saved', 'observed'], words = new Set(names.slice(0, 3));
  const none = compress.routes.length === 0, compared = compress.routes.some((each) => each.steps.some((one) => one.labels > 0));
  const watching = lossy(compress).some((mode) => mode !== 'off');
  $('compress-routes').parentElement.hidden = none;
  $('compress-none').hidden = off(compress) || !watching || compared || compress.unproven;
  $('compress-none').textContent = none ? 'No request has held a text that may be shortened yet: results of tools, documents, and what stands between marks that you name (compress.retrieved).'
    : compress.shadow_daily_usd ? 'Nothing is compared yet: a share of requests (compress.shadow_share) is sent in both forms while there is something to prove.'
      : 'Nothing is compared, so nothing gets proved. Say what sending some requests in both forms may cost a day: compress.shadow_daily_usd.';
  const rows = compress.routes.map((each) => el('tr', {},
    el('td', { class: 'name', title: `${each.route.name}, tenant ${each.route.tenant}` }, each.route.name),
    el('td', { class: 'text' }, el('span', { class: each.serves ? 'status good' : 'status' }, swatch(each.serves ? FORMS[each.serves.split('-')[0]] ?? FORMS.squeeze : 'miss'), each.serves || (compress.tidy === 'on' ? 'tidy' : 'as it came'))),
    el('td', { class: 'text' }, ...proofs(each.steps)),
    el('td', {}, each.tokens.sent ? short(each.tokens.sent) : ''), el('td', {}, each.tokens.observed ? short(each.tokens.observed) : '')));
  const left = compress.count - compress.routes.length;
  if (left > 0) rows.push(el('tr', {}, el('td', { class: 'name', colspan: String(names.length) }, `${count(left)} routes used longer ago are not shown`)));
  for (const row of rows) [...row.children].forEach((each, i) => each.setAttribute('data-label', names[i]));
  const head = names.map((name) => el('th', { scope: 'col', class: words.has(name) ? 'text' : '' }, name));
  $('compress-routes').replaceChildren(el('thead', {}, el('tr', {}, ...head)), el('tbody', {}, ...rows));
}
