// Students: who answers in its teacher's place, how often it was checked, and what comes after it.
import { ago, clock, count, el, share } from './format.js';
import { cell, fill } from './table.js';

const $ = (id) => document.getElementById(id);
const STATES = { serves: ['good', '● serves'], observes: ['soft', '○ observes'], 'not there': ['soft', '○ not trained yet'] };
const RESULTS = { heir: 'the new one proves itself', 'not better': 'it stays: the new one was not as good', failed: '▲ the last training failed' };

/** What GET api/students told: {students, training, retrain_days} or {error}, null where it wasn't asked. */
export function show(told) {
  const all = told?.students ?? [];
  $('students-card').hidden = !told || told.absent || (!told.error && !all.length);
  if ($('students-card').hidden) return;
  $('students-trouble').hidden = !told.error;
  $('students-trouble').textContent = told.error ? `It can’t be shown: ${told.error}. Older figures stay.` : '';
  if (told.error) return;
  $('students-when').textContent = told.training ? `${told.training} is being trained anew` : told.retrain_days ? `trained anew every ${count(told.retrain_days)} days` : 'not trained anew by themselves: nothing is captured';
  const there = all.filter((one) => one.state !== 'not there'), absent = all.filter((one) => one.state === 'not there');
  $('students').parentElement.hidden = !there.length;
  fill($('students'), ['student', 'state', 'what comes next', 'answered', 'left to the teacher', 'checked', 'differed', 'at most', 'allowed'], 3, there.map((one) => {
    const [kind, said] = STATES[one.state];
    return el('tr', {}, el('td', { class: 'name', title: one.hash }, one.name), el('td', { class: 'text' }, el('b', { class: kind }, said)),
      el('td', { class: 'text' }, el('span', { class: 'why' }, next(one))), cell(count(one.answered)), cell(count(one.abstained)),
      cell(count(one.compared)), cell(count(one.differed)), cell(one.now.compared ? share(one.now.at_most) : '–'), cell(share(one.bound)));
  }));
  $('students-absent').hidden = !absent.length;
  $('students-absent').replaceChildren(...absent.map(({ name }) => el('li', {}, el('b', {}, name), ' isn’t there, so its teacher answers. Once traffic is captured, ',
    el('code', {}, `farthing distill train --name ${name}`), ' makes it.')));
}

function next({ heir, training, trained_s: trained, state }) {
  if (heir) return `a new one was compared ${count(heir.compared)} times, ${count(heir.differed)} differed; it waits for ${heir.waits_for || 'its turn'}`;
  if (training && training.result !== 'heir') return `${RESULTS[training.result]} (${ago(training.ts)}): ${training.said}`;
  if (state === 'observes') return 'it serves once its bound is proved on live requests';
  return trained ? `trained ${ago(trained)} (${clock(trained)})` : '';
}
