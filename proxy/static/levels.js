// Service levels: what was promised, what was kept, how much of the budget is left and how fast it goes.
import { count, el, money, share } from './format.js';
import { cell, fill } from './table.js';

const $ = (id) => document.getElementById(id);
const WINDOWS = ['1h', '6h', '3d'];
const NAMES = ['service level', 'promise', 'attained', 'budget left', ...WINDOWS.map((each) => `burn ${each}`), 'state'];
const KINDS = { availability: 'answered', wrong: 'right' };

/** A share with as many digits as it needs: 99.95% is not 100%. */
const exact = (x) => (x === null || x === undefined ? '–' : `${Number((100 * x).toFixed(4))}%`);
const times = (x) => (x === null || x === undefined ? '–' : x >= 100 ? count(Math.round(x)) : String(Number(x.toPrecision(2))));

/** `told`: what GET api/levels answered, or {error}. Nothing promised: no card. */
export function show(told) {
  $('levels-card').hidden = !told.error && !told.levels.length;
  $('levels-trouble').hidden = !told.error;
  $('levels-trouble').textContent = told.error ? `Service levels can’t be shown: ${told.error}. Older figures stay.` : '';
  if (!told.levels?.length) return;
  const waiting = told.as_of_s === null;
  $('levels-note').textContent = waiting ? 'Being counted; figures come within a minute.'
    : 'Burn: what was used of the budget over what was allowed, in a window that ends now; 1 uses it exactly up.';
  fill($('levels'), NAMES, 3, told.levels.flatMap((level) => level.targets.map((target, i) => line(level, target, i))));
}

function line(level, target, i) {
  const where = Object.entries(level.where).map(([name, value]) => (name === 'tag' ? value : `${name} ${value}`)).join(', ') || 'all requests';
  const name = i ? el('td', { class: 'name' }) : el('td', { class: 'name', title: level.name }, level.name, el('div', { class: 'soft' }, `${where}; ${level.window_days} days`));
  const burning = target.pairs.filter((pair) => pair.state === 'burning');
  return el('tr', { class: i ? 'same' : '' }, name,
    el('td', { class: 'text' }, promise(target)), el('td', { class: 'text kept' }, ...kept(target)), el('td', { class: 'budget' }, ...budget(target)),
    ...WINDOWS.map((each) => cell(times(target.burn[each]), target.burn[each] > 1 ? 'error' : '')),
    el('td', { class: 'state' }, state(target, burning)));
}

function promise(target) {
  if (target.kind === 'cost') return `${money(String(target.limit_usd))} a request`;
  if (target.kind === 'latency') return `${exact(target.share)} in ${count(target.limit_ms)} ms`;
  return `${exact(target.share)} ${KINDS[target.kind]}`;
}

function kept(target) {
  const soft = (text) => el('div', { class: 'soft' }, text), of = `of ${count(target.events)}`;
  if (target.kind === 'cost') return [target.mean_usd === null ? '–' : money(String(target.mean_usd)), soft(of)];
  return [exact(target.attained), soft(target.attained === null ? of : `${exact(Number(target.attained_low.toFixed(4)))} to ${exact(Number(target.attained_high.toFixed(4)))}, ${of}`)];
}

/** What is left as a bar; an overdrawn budget is empty. The words say the same, and in what it is counted. */
function budget(target) {
  if (target.left === null) return ['–'];
  const left = Math.max(0, target.left), unit = target.kind === 'cost' ? (x) => money(String(x)) : (x) => count(Math.round(10 * x) / 10);
  return [el('span', { class: 'meter', 'aria-hidden': 'true' }, el('i', { class: target.left < 0 ? 'over' : '', width: `${100 * left}%` })),
    target.left < 0 ? el('b', { class: 'error' }, `overdrawn by ${share(-target.left)}`) : share(target.left),
    el('div', { class: 'soft' }, `${unit(target.used)} of ${unit(target.allowed)} used`)];
}

function state(target, burning) {
  const fast = burning.some((pair) => pair.speed === 'fast');
  if (burning.length) return el('b', { class: 'error' }, `▲ burns ${fast ? 'fast' : 'slowly'}`);
  if (target.verdict === 'missed') return el('b', { class: 'error' }, '▲ missed');
  return target.verdict === 'kept' ? el('span', { class: 'status good' }, '● kept') : el('span', { class: 'soft' }, '○ not enough data');
}
