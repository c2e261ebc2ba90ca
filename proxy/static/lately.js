// What the semantic cache met of late: hit rate by route, and candidates with what tells them from the request.
import { Chart } from './charts.js';
import { clock, count, el, revealed, share, swatch } from './format.js';
import { show as showDetail } from './detail.js';

const $ = (id) => document.getElementById(id);
const LINES = [['exact', 'line', undefined], ['semantic', 'dash', [3, 4]], ['compress', 'dashes', [9, 5]], ['route', 'dashdot', [12, 3, 3, 3]]];
const EMPTY = {
  near: 'No near miss yet: no candidate that came close was left unserved since farthing started.',
  served: 'No near-duplicate has been answered from the cache since farthing started.',
  wrong: 'No comparison has come out wrong since farthing started.',
};
let chart = null, charted = '';

const kind = () => document.querySelector('input[name="kind"]:checked').value;
const id = (route) => `${route.tenant}/${route.name}`;

/** What to ask of api/semantic/lately. */
export const wanted = () => new URLSearchParams({ kind: kind(), route: $('lately-route').value });

/** `changed`: called when another kind or another route is wanted. */
export function whenChanged(changed) {
  const loading = () => { $('lately').dataset.state = 'loading'; said('Loading …'); changed(); };
  for (const input of [...document.querySelectorAll('input[name="kind"]'), $('lately-route')]) input.addEventListener('change', loading);
}

/** `lately`: the API's answer, or {error}. `ask`: the API, for a request's details. */
export function show(lately, ask) {
  if (lately.error) {
    $('lately').dataset.state = 'error';
    said(`What was met of late can’t be shown: ${lately.error}.`, true);
    return;
  }
  if (lately.kind !== kind()) return; // another was chosen meanwhile; its answer is on the way
  const latest = lately.latest;
  $('lately').dataset.state = latest.length ? 'ready' : 'empty';
  for (const input of document.querySelectorAll('input[name="kind"]')) input.nextElementSibling.querySelector('b').textContent = count(lately.counts[input.value]);
  routes(lately.routes);
  said(latest.length ? (lately.texts ? '' : 'The texts are not shown: they are prompts. With semantic.show_texts = true in farthing.toml they stand here, word by word.') : $('lately-route').value ? 'None on this route.' : EMPTY[lately.kind]);
  $('lately-marks').hidden = !lately.texts || !latest.length;
  $('lately-list').replaceChildren(...latest.map((each) => sighting(each, ask)));
  drawn(lately);
}

function said(words, wrong = false) {
  $('lately-said').textContent = words;
  $('lately-said').hidden = !words;
  $('lately-said').className = wrong ? 'error' : 'soft';
}

/** The routes to choose from; a choice stays as long as its route is known. */
function routes(known) {
  const select = $('lately-route'), chosen = select.value;
  const options = [['', 'all'], ...known.map((route) => [id(route), `${route.name} (${route.tenant})`])];
  if (chosen && !options.some(([value]) => value === chosen)) options.push([chosen, chosen]);
  const now = JSON.stringify(options);
  if (select.dataset.options === now) return; // replacing them would close a list that somebody has opened
  select.dataset.options = now;
  select.replaceChildren(...options.map(([value, words]) => { const made = el('option', {}, words); made.value = value; return made; }));
  select.value = chosen;
}

function sighting(each, ask) {
  const limit = each.threshold === null ? '' : `, threshold ${each.threshold.toFixed(3)}`;
  const judged = { true: ['joined', 'the fresh answer said the same'], false: ['own', 'the fresh answer said something else'], null: ['miss', 'answers not compared'] }[each.judged];
  return el('li', {},
    el('p', { class: 'sight' },
      el('button', { class: 'link', type: 'button', 'aria-label': `Details of ${each.id}`, onclick: () => showDetail(each.id, ask) }, clock(each.at_s)),
      el('span', {}, el('b', {}, `score ${each.score.toFixed(3)}`), limit), el('span', {}, `cosine ${each.cosine.toFixed(3)}`),
      el('span', { class: 'status' }, swatch(judged[0]), judged[1]),
      el('span', { class: 'soft', title: `${each.route.name}, tenant ${each.route.tenant}` }, each.route.name)),
    texts(each),
    el('p', { class: 'told' }, el('span', { class: 'soft' }, each.reason), ...each.against.map((one) => el('span', { class: 'sign' }, signal(one)))));
}

/** Both texts, what the other lacks marked; or the keys of their answers, where texts are not to be shown. */
function texts(each) {
  const side = (name, parts, tag) => [el('dt', {}, name), el('dd', { dir: 'auto' }, ...parts.map(([text, differs]) => (differs ? el(tag, {}, revealed(text)) : revealed(text))))];
  if (each.asked) return el('dl', { class: 'pair' }, ...side('asked', each.asked, 'ins'), ...side('stored', each.stored, 'del'));
  return el('dl', { class: 'pair' }, el('dt', {}, 'asked'), el('dd', {}, el('code', {}, each.asked_key)), el('dt', {}, 'stored'), el('dd', {}, el('code', {}, each.stored_key)));
}

function signal(one) {
  const sides = [one.asked, one.stored].map((words) => (words?.length ? words.map(revealed).join(', ') : ''));
  return sides[0] || sides[1] ? `${one.kind}: ${sides[0] || '–'} / ${sides[1] || '–'}` : one.kind;
}

/** Hits as a share of look-ups, a line a route; a slot in which nothing was looked up is a gap. No hit at all: no chart. */
function drawn(lately) {
  const hits = lately.total.served.some((x) => x > 0);
  const known = hits ? lately.over_time.filter((each) => each.start_s.length) : [];
  $('lately-chart').hidden = known.length === 0;
  if (!known.length) return;
  const lines = known.map((each, i) => ({ label: each.route.name, colour: LINES[i][0], mark: LINES[i][1], dash: LINES[i][2] }));
  if (chart === null || charted !== JSON.stringify(lines)) {
    charted = JSON.stringify(lines);
    $('lately-chart').replaceChildren();
    chart = new Chart($('lately-chart'), { title: 'Hit rate by route', kind: 'lines', axis: (x) => `${Math.round(100 * x)}%`, value: share, series: lines });
  }
  const starts = known.flatMap((each) => each.start_s), first = Math.min(...starts), last = Math.max(...starts);
  const slots = Array.from({ length: Math.round((last - first) / lately.slot_s) + 1 }, (_, i) => first + i * lately.slot_s);
  const rates = known.map((each) => {
    const at = new Map(each.start_s.map((start, i) => [start, each.served[i] / each.looked[i]]));
    return slots.map((start) => at.get(start) ?? null);
  });
  const sum = (numbers) => numbers.reduce((all, one) => all + one, 0);
  const totals = known.map((each) => `${share(sum(each.served) / sum(each.looked))} (${count(sum(each.served))} of ${count(sum(each.looked))})`);
  chart.show(slots.map((start) => start + lately.slot_s / 2), rates, totals);
}
