// What stands at the top: what is on, the net saving and where it comes from, the key figures.
import { counted, count, duration, el, money, share, short, swatch } from './format.js';
import { CAUSES } from './graphs.js';
import { PATTERN } from './palette.js';

const $ = (id) => document.getElementById(id);

/** `state`: what is on. */
export function badges(state) {
  const list = [];
  const add = (kind, text) => list.push(el('li', { class: kind }, text));
  const on = (name, is, word) => add(is && !state.switched_off ? 'on' : 'idle', `${name}: ${word}`);
  const unproven = (name) => String(state[name]).includes('unproven');
  if (state.simulated) add('warn', 'simulated upstream: these are not real savings');
  if (unproven('semantic')) add('warn', 'semantic: unproven');
  if (state.exact !== undefined) on('exact cache', state.exact !== 'off', state.exact === 'off' ? 'off' : 'on');
  if (state.semantic !== undefined && !unproven('semantic')) on('semantic', state.semantic !== 'off', state.semantic === 'observe' ? 'observing, serves nothing' : state.semantic);
  if (state.tidy !== undefined) on('tidy', state.tidy, state.tidy ? 'on' : 'off');
  for (const step of ['recode', 'squeeze']) {
    if (unproven(step)) add('warn', `${step}: unproven`);
    else if (state[step] !== undefined) on(step, state[step] !== 'off', state[step] === 'observe' ? 'observing, sends nothing' : state[step]);
  }
  if (state.capture !== undefined) on('prompt capture', state.capture !== 'off', state.capture);
  if (state.ledger === 'off') add('idle', 'ledger: off');
  if (state.upstream) add('', `upstream ${state.upstream}`);
  if (state.in_flight) add('', `${count(state.in_flight)} in flight`);
  if (state.version) add('', `version ${state.version}`);
  $('badges').replaceChildren(...list);
}

/** `summary`: the API's, of the span; `today`: the total since midnight, or null. */
export function hero({ total, headline, notes }, today) {
  const net = Number(total.net_saving_usd), baseline = Number(total.baseline_usd);
  $('net').textContent = money(total.net_saving_usd);
  $('net').parentElement.classList.toggle('minus', net < 0);
  $('net-share').textContent = baseline > 0 ? `${share(net / baseline)} of the bill` : '';
  $('headline').textContent = headline;
  $('today').hidden = today === null;
  if (today) {
    const saved = today.net_saving_usd;
    $('today').replaceChildren('Today: ', el('b', { class: Number(saved) < 0 ? 'loss' : '' }, money(saved)), ' saved, ', el('b', {}, money(today.spent_usd)), ` spent, ${counted(today.requests, 'request')}`);
  }
  $('notes').replaceChildren(...notes.map((note) => el('li', {}, note)));
  const parts = [['spent', 'spent', total.spent_usd], ...Object.entries(CAUSES).map(([key, name]) => [key, name, total[`saved_${key}_usd`]])];
  const whole = parts.reduce((sum, part) => sum + Math.max(0, Number(part[2])), 0);
  const wide = parts.filter((part) => Number(part[2]) > 0);
  $('split').replaceChildren(...wide.map(([key, name, amount]) => el('div', { title: `${name}: ${money(amount)}`, width: `${(100 * Number(amount)) / whole}%`, class: `pattern-${PATTERN[key] ?? 'plain'}`, '--swatch': `var(--${key})` })));
  $('split').setAttribute('aria-label', wide.map(([, name, amount]) => `${name} ${money(amount)}`).join(', '));
  const lines = parts.slice(1).filter((part) => Number(part[2]) !== 0).map(([key, name, amount]) => [key, Number(amount) < 0 ? `lost by ${name}` : `saved by ${name}`, amount]);
  lines.unshift(['spent', 'spent in all', total.spent_usd], ['baseline', 'without farthing', total.baseline_usd]);
  if (Number(total.overhead_usd)) lines.splice(1, 0, ['own', 'of it, farthing’s own', total.overhead_usd]);
  $('causes').replaceChildren(...lines.map(([key, name, amount]) => el('div', { class: Number(amount) < 0 ? 'minus' : '' },
    swatch(Number(amount) < 0 ? 'loss' : key, `pattern-${PATTERN[key] ?? 'plain'}`), el('dt', {}, name), el('dd', {}, money(amount)))));
}

/** The key figures of the span. */
export function tiles(total) {
  const tile = (title, value, ...under) => el('div', { class: 'tile' }, el('h3', {}, title), el('div', { class: 'value' }, value), ...under.map((text) => el('div', { class: 'under' }, text)));
  const latency = total.latency_ms || {}, hit = total.latency_hit_ms || {}, miss = total.latency_miss_ms || {}, own = total.overhead_ms || {};
  $('tiles').replaceChildren(
    tile('Requests', count(total.requests), counted(total.errors, 'error'), `${count(total.abandoned)} abandoned`),
    tile('Hit rate', share(total.hit_rate_eligible), 'of eligible requests', `${share(total.hit_rate_all)} of all`),
    tile('Tokens in', short(total.tokens_in_sent), `sent, of ${short(total.tokens_in_original)} asked`, `${short(total.tokens_in_cached)} of them provider-cached`, `${short(total.tokens_out)} out`),
    tile('Latency p95', duration(latency.p95), `p50 ${duration(latency.p50)}`, `p50 hit ${duration(hit.p50)}`, `p50 upstream ${duration(miss.p50)}`),
    tile('Own overhead p95', duration(own.p95), `p50 ${duration(own.p50)}`, `p99 ${duration(own.p99)}`, 'in every request’s latency'),
  );
}
