// What routes did: who answered how much, at what price, how fast, and how often another had to be asked.
import { clock, count, counted, duration, el, money, share } from './format.js';
import { cell, fill, signed } from './table.js';

const $ = (id) => document.getElementById(id);
const NAMES = ['route', 'answered by', 'requests', 'share', 'cost', 'a request', 'saved by routing', 'p50', 'p99', 'errors', 'handed on'];

/** `told`: what GET api/routes answered, or {error}. No route is declared and none was taken: no card. */
export function show(told) {
  $('routes-card').hidden = !told.error && !told.routes.length;
  $('routes-trouble').hidden = !told.error;
  $('routes-trouble').textContent = told.error ? `What routes did can’t be shown: ${told.error}. Older figures stay.` : '';
  if (told.error) return;
  const observing = told.routes.some((each) => each.mode === 'observe' && each.requests);
  $('routes-note').textContent = [
    told.since_s === null ? '' : `Of the latest ${counted(told.rows, 'request')} only, back to ${clock(told.since_s)}.`,
    'What a cache answered went nowhere. A request’s cost holds all that was paid on its way.',
    observing ? 'An observing route changes nothing: its figures are of what was asked for, and what it would have saved.' : '',
  ].filter(Boolean).join(' ');
  fill($('routes'), NAMES, 2, told.routes.flatMap(lines));
}

function lines(route) {
  const strategy = [route.mode === 'serve' ? 'serves' : route.mode === 'observe' ? 'observes' : route.mode, route.strategy].filter(Boolean).join(', ');
  const name = el('td', { class: 'name', title: route.route }, route.route || '(named by the request)', route.route ? el('div', { class: 'soft' }, strategy) : null, bounded(route.bound));
  if (!route.variants.length) return [el('tr', {}, name, el('td', { class: 'text soft who', colspan: String(NAMES.length - 1) }, 'no request came its way'))];
  return route.variants.map((one, i) => el('tr', { class: i ? 'same' : '' }, i ? el('td', { class: 'name' }) : name, ...figures(route, one)));
}

/** Of a route with max_worse: what its shadows say, whether they keep it back, or would let it serve. */
function bounded(bound) {
  if (!bound) return null;
  const seen = `${count(bound.worse)} of ${count(bound.compared)} compared were worse, ${share(bound.max_worse)} may be`;
  if (bound.state === 'proved') return el('div', { class: 'good' }, `proved, may serve: ${seen}`);
  if (bound.state === 'observes' && bound.fell_back) return el('div', { class: 'error' }, `held back: ${seen}`);
  return el('div', { class: 'soft' }, bound.state === 'observes' ? `not proved yet: ${seen}` : seen);
}

function figures(route, one) {
  const observes = route.mode === 'observe', who = one.variant || 'the model asked for', saved = observes ? one.would_save_usd : one.saved_usd;
  return [
    el('td', { class: 'text who' }, observes && one.variant ? `would ask ${who}` : who), cell(count(one.requests)),
    cell(el('span', {}, el('span', { class: 'meter', 'aria-hidden': 'true' }, el('i', { width: share(one.share) })), share(one.share))),
    cell(one.requests ? money(one.cost_usd) : ''), cell(one.requests ? money(one.cost_per_request_usd) : ''),
    cell(!one.requests || (observes && saved === null) ? '' : observes ? `would: ${money(saved)}` : money(saved), signed(saved)),
    cell(one.requests ? duration(one.latency_p50_ms) : ''), cell(one.requests ? duration(one.latency_p99_ms) : ''),
    cell(one.errors ? count(one.errors) : '', 'error'), cell(handedOn(one)),
  ];
}

/** How often another was asked after, or beside, this one. */
function handedOn({ escalated, failed, hedged }) {
  const told = [[escalated, 'escalated'], [failed, 'fell back'], [hedged, 'hedged']].filter(([times]) => times);
  return told.length ? el('span', {}, ...told.map(([times, word]) => el('div', {}, `${count(times)} ${word}`))) : '';
}
