// The upstream's replicas: whether each can be asked, what it carries, what its keys have left, and a way to drain it.
import { change } from './api.js';
import { count, counted, el, share, swatch } from './format.js';
import { cell, fill } from './table.js';
import { confirmed, doing } from './upkeep.js';

const $ = (id) => document.getElementById(id);
const LOW = 0.1;

/** `replicas`: of the summary's state. One that is well and has nothing to tell is no card. `after`: once one changed. */
export function show(replicas = [], after) {
  const plain = (each) => each.healthy && each.circuit === 'closed' && !each.draining && !each.keys.length;
  $('replicas-card').hidden = replicas.length === 0 || (replicas.length === 1 && plain(replicas[0]));
  if ($('replicas-card').hidden) return;
  const well = replicas.filter((each) => stateOf(each)[0] === 'joined').length;
  $('replicas-well').textContent = `${count(well)} of ${count(replicas.length)} take requests`;
  $('replicas-well').className = well ? 'soft' : 'error';
  fill($('replicas'), ['replica', 'upstream', 'state', 'under way', 'left of its limits', ''], 3, replicas.map((each) => row(each, after)));
}

/** A swatch's colour, and the state in words. */
function stateOf({ healthy, circuit, draining }) {
  if (draining) return ['bypass', 'draining: gets nothing new'];
  if (circuit === 'open') return ['own', 'circuit open: failed too often'];
  if (circuit === 'half-open') return ['semantic', 'circuit half-open: trying one'];
  return healthy ? ['joined', 'well'] : ['own', 'its probe fails'];
}

function row(each, after) {
  const [colour, words] = stateOf(each), verb = each.draining ? 'Take back' : 'Drain';
  return el('tr', {}, el('td', { class: 'name' }, each.name), el('td', { class: 'text' }, each.upstream),
    el('td', { class: 'text' }, el('span', { class: 'status' }, swatch(colour, { joined: 'pattern-upright', semantic: 'pattern-rising', bypass: 'pattern-dots' }[colour] ?? ''), words)),
    cell(count(each.in_flight)), cell(left(each.keys)),
    cell(el('button', { type: 'button', 'data-focus': each.name, 'aria-label': `${verb} ${each.name}`, onclick: () => drain(each, after) }, verb)));
}

/** What the provider says is left of a key's rate limit: the least of its keys. */
function left(keys) {
  if (!keys.length) return '–';
  const least = Math.min(...keys.map((key) => key.left_share)), parked = keys.filter((key) => key.parked_s > 0);
  return el('span', { class: least < LOW || parked.length ? 'error' : '' }, share(least), keys.length > 1 ? `, least of ${counted(keys.length, 'key')}` : '',
    parked.length ? `; ${counted(parked.length, 'key')} parked for ${Math.ceil(Math.max(...parked.map((key) => key.parked_s)))} s` : '');
}

async function drain(each, after) {
  const words = each.draining ? `${each.name} gets requests again.` : `${each.name} gets no new requests until you take it back or farthing starts anew. What is under way there ends as it began.`;
  if (!await confirmed(each.draining ? 'Take this replica back?' : 'Drain this replica?', words, each.draining ? 'Take back' : 'Drain')) return;
  await doing($('replicas-said'), async () => { await change('replicas/drain', { replica: each.name, drain: !each.draining }); return each.draining ? `${each.name} gets requests again.` : `${each.name} is draining.`; }, after);
}
