// Whether answers are still good: what has drifted, what the gates said last, and what users and the business say.
import { ago, clock, count, counted, el, share } from './format.js';
import { cell, fill } from './table.js';

const $ = (id) => document.getElementById(id);
const MOST = 8;
const VERDICTS = { ship: ['good', '● ships'], block: ['error', '▲ blocked'], inconclusive: ['soft', '○ not decided'], failed: ['error', '▲ the run failed'] };
const FROM = { client: 'said by clients', implicit: 'seen from what users do' };

/** What GET api/watch, api/gates and api/feedback told: each {error}, or null where it wasn't asked. A card only where
 * there is something to tell. */
export function show(watch, gates, feedback) {
  const told = [watch, gates, feedback].filter((one) => one && !one.absent), failed = told.filter((one) => one.error);
  const runs = latest(gates?.runs ?? []), metrics = feedback?.metrics ?? [];
  $('quality-card').hidden = !failed.length && !watch?.enabled && !gates?.running && !runs.length && !metrics.length;
  if ($('quality-card').hidden) return;
  $('quality-trouble').hidden = !failed.length;
  $('quality-trouble').textContent = failed.length ? `Some of it can’t be shown: ${failed.map((one) => one.error).join('; ')}. Older figures stay.` : '';
  if (watch && !watch.error) drift(watch);
  if (gates && !gates.error) verdicts(runs, gates.running);
  if (feedback && !feedback.error) words(metrics);
}

function drift({ enabled, series = [], alarms }) {
  const drifting = series.filter((one) => one.state === 'drifting'), learning = series.filter((one) => one.state === 'learning').length;
  $('quality-watched').textContent = enabled ? `${count(series.length)} series watched${learning ? `, ${count(learning)} of them still learning` : ''}; ${counted(alarms, 'alarm')} so far` : 'drift isn’t watched: watch.enabled is false';
  $('drift-none').hidden = !enabled || drifting.length > 0;
  $('drift-none').textContent = series.length > learning ? 'Nothing drifts.' : 'Too little was seen to tell: what is normal is still being learnt.';
  $('drift').hidden = !drifting.length;
  // One line for a series: its slices mostly move together. The worst comes first, as the API sorts them.
  const named = [...Map.groupBy(drifting, (one) => one.series)];
  $('drift').replaceChildren(...named.slice(0, MOST).map(([name, all]) => el('li', {},
    el('p', {}, el('b', { class: 'error' }, `▲ ${name.replaceAll('_', ' ')}`), ` in ${all.map((one) => (one.slice === 'all' ? 'all traffic' : one.slice)).slice(0, 4).join(', ')}${all.length > 4 ? ` and ${count(all.length - 4)} more` : ''}`),
    el('p', {}, all[0].alarm),
    el('p', { class: 'soft' }, [all[0].since_s ? `since ${clock(all[0].since_s)}` : '', all[0].warns?.length ? `look at: ${all[0].warns.join(', ')}` : ''].filter(Boolean).join(' · ')))),
    ...(named.length > MOST ? [el('li', { class: 'soft' }, `and ${count(named.length - MOST)} more series`)] : []));
}

/** The last run of each suite, the newest first. */
function latest(runs) {
  const seen = new Set();
  return runs.filter(({ suite }) => !seen.has(suite) && seen.add(suite));
}

function verdicts(runs, running) {
  $('gates-part').hidden = !runs.length && !running;
  $('gates-running').hidden = !running;
  $('gates-running').textContent = running ? `${running} is running now.` : '';
  fill($('gates'), ['suite', 'verdict', 'why it ran', 'when', 'why'], 5, runs.slice(0, MOST).map((one) => {
    const [kind, said] = VERDICTS[one.verdict] ?? ['', one.verdict];
    return el('tr', {}, el('td', { class: 'name', title: one.suite }, one.suite.split('/').pop()), el('td', { class: 'text' }, el('b', { class: kind }, said)),
      el('td', { class: 'text' }, one.trigger), el('td', { class: 'text', title: clock(one.ts) }, ago(one.ts)), el('td', { class: 'text' }, el('span', { class: 'why' }, one.why)));
  }));
}

/** Shares of what is yes or no, means of anything else. */
const SHARES = new Set(['rating', 'click', 'conversion', 'retention', 'reask', 'regenerate', 'abandoned']);
const mean = ({ metric, mean: value }) => (SHARES.has(metric) && value >= 0 && value <= 1 ? share(value) : String(Number(value.toPrecision(4))));

function words(metrics) {
  $('ratings-none').hidden = metrics.length > 0;
  $('ratings').parentElement.hidden = !metrics.length;
  fill($('ratings'), ['metric', 'from', 'answers', 'mean'], 2, metrics.map((one) => el('tr', {},
    el('td', { class: 'name' }, one.metric === 'rating' ? 'rated good' : one.metric), el('td', { class: 'text' }, FROM[one.source] ?? one.source),
    cell(count(one.count)), cell(one.source === 'implicit' ? '–' : mean(one)))));
}
