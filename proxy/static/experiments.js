// Experiments and hold-outs: which arms run, since when, and what may be said of them by now.
import { ago, clock, el, share } from './format.js';
import { fill } from './table.js';

const $ = (id) => document.getElementById(id);
const MOST = 6;
const STATES = {
  running: ['good', '● running'], decided: ['good', '✓ decided'], stopped: ['soft', '■ stopped'], ended: ['soft', '■ ended'],
  guardrail: ['error', '▲ a guardrail ended it'], broken: ['error', '▲ the assignment is broken'],
};

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
  $('experiments-waiting').hidden = !waiting.length;
  $('experiments-waiting').replaceChildren(...waiting.map(([name, why]) => el('li', {}, el('b', {}, name), ` doesn’t run: ${why}`)));
}
