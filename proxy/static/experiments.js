// Experiments and hold-outs: which arms run, since when, and what may be said of them by now.
import { ago, clock, count, el, share } from './format.js';
import { cell, fill } from './table.js';

const $ = (id) => document.getElementById(id);
const MOST = 6;
const STATES = {
  running: ['good', '● running'], decided: ['good', '✓ decided'], stopped: ['soft', '■ stopped'], ended: ['soft', '■ ended'],
  guardrail: ['error', '▲ a guardrail ended it'], broken: ['error', '▲ the assignment is broken'],
};

/** A value with its confidence sequence; `told`: [value, least, most], null where nothing is known. */
function between([value, least, most], said) {
  return value === null ? '–' : `${said(value)} (${least === null ? '–∞' : said(least)} to ${most === null ? '∞' : said(most)})`;
}

const dollars = (x) => `${x < 0 ? '−' : ''}$${Math.abs(x).toPrecision(3)}`;
const points = (x) => `${x > 0 ? '+' : ''}${(100 * x).toFixed(1)}`;

/** What the running hold-out says of each optimiser, where answers are compared with fresh ones. */
function does(all) {
  const one = all.find((each) => each.name === 'holdout' && each.state === 'running');
  const arms = Object.entries(one?.reading?.candidates ?? {}).filter(([, arm]) => arm.does);
  $('experiments-does').parentElement.hidden = !arms.length;
  fill($('experiments-does'), ['against the arm', 'a request is cheaper by', 'points of answers lost', 'compared'], 1, arms.map(([name, arm]) => el('tr', {},
    el('td', { class: 'name' }, name), cell(between(arm.does.saves_usd, dollars)), cell(between(arm.does.loses, points)),
    cell(arm.metrics.fresh.units.map(count).join(' / ')))));
}

/** What GET api/experiments told: {experiments, waiting} or {error}, null where it wasn't asked. */
export function show(told) {
  const all = told?.experiments ?? [], waiting = Object.entries(told?.waiting ?? {});
  $('experiments-card').hidden = !told || told.absent || (!told.error && !all.length && !waiting.length);
  if ($('experiments-card').hidden) return;
  $('experiments-trouble').hidden = !told.error;
  $('experiments-trouble').textContent = told.error ? `It can’t be shown: ${told.error}. Older figures stay.` : '';
  if (told.error) return;
  fill($('experiments'), ['experiment', 'state', 'arms', 'since', 'what may be said'], 5, all.slice(0, MOST).map((one) => {
    const [kind, said] = STATES[one.state] ?? ['', one.state];
    const arms = one.arms.map(({ name, share: part }) => `${name} ${share(part)}`).join(', ');
    return el('tr', {}, el('td', { class: 'name', title: one.id }, one.name), el('td', { class: 'text' }, el('b', { class: kind }, said)),
      el('td', { class: 'text' }, arms), el('td', { class: 'text', title: clock(one.since_s) }, ago(one.since_s)),
      el('td', { class: 'text' }, el('span', { class: 'why' }, one.headline)));
  }));
  $('experiments').parentElement.hidden = !all.length;
  does(all);
  $('experiments-waiting').hidden = !waiting.length;
  $('experiments-waiting').replaceChildren(...waiting.map(([name, why]) => el('li', {}, el('b', {}, name), ` doesn’t run: ${why}`)));
}
