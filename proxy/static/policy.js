// The policy in force, the roll-out of another one, what farthing did of its own accord; and the switch over all of it.
import { change } from './api.js';
import { ago, clock, count, duration, el, instant, money, share } from './format.js';
import { cell, fill } from './table.js';
import { confirmed, doing } from './upkeep.js';

const $ = (id) => document.getElementById(id);
const METRICS = { errors: share, latency: duration, cost: money, ratings: share };
const NAMES = { errors: 'errors', latency: 'latency p99', cost: 'cost a request', ratings: 'rated bad' };
const WORDS = { 'go on': ['good', 'nothing speaks against it'], hold: ['error', 'waits'], 'roll back': ['error', 'goes back'] };
const MOST_INCIDENTS = 8;
let rolling = false;

/** `after`: called once something has changed. */
export function start(after) {
  $('switch').addEventListener('click', async () => {
    const off = $('switch').dataset.off !== 'true';
    const words = off ? 'Requests go to the upstream as they are, at full price, until you switch it on again. Nothing stored is lost.' : 'Caches and compression work again, as the configuration says.';
    if (!await confirmed(off ? 'Switch all optimisation off?' : 'Switch optimisation on again?', words, off ? 'Switch off' : 'Switch on')) return;
    await doing($('policy-said'), async () => { await change(`policy/${off ? 'off' : 'on'}`); return off ? 'All optimisation is off.' : 'Optimisation is on again.'; }, after);
  });
  $('rollback').addEventListener('click', async () => {
    const { to } = $('rollback').dataset, words = rolling ? 'The candidate gets no more requests; the active policy answers all of them again.' : `The policy before this one, ${to}, answers from now on.`;
    if (!await confirmed('Roll back?', `${words} Requests under way end as they began.`, 'Roll back')) return;
    await doing($('policy-said'), async () => { const { active } = await change('policy/rollback', { why: 'rolled back on the dashboard' }); return active ? `${active.version} is active.` : 'Rolled back.'; }, after);
  });
}

/** `state`: the summary's. `policy`: what GET api/policy answered, {error}, or null where this farthing has no versions. */
export function show(state, policy) {
  $('switch').dataset.off = String(Boolean(state.switched_off));
  $('switch').textContent = state.switched_off ? 'Switch optimisation on again' : 'Switch all optimisation off';
  const known = policy !== null && !policy.absent, told = known && !policy.error;
  $('policy-trouble').hidden = !known || told;
  $('policy-trouble').textContent = known && !told ? `Which policy is in force can’t be shown: ${policy.error}.` : '';
  if (known && !told) return; // what was last known stays
  const active = told ? policy.active : null, candidate = told ? policy.candidate : null;
  const since = active && moment(active.since);
  const lines = [['Optimisation', state.switched_off ? '▲ off' : '● on'], ...(active ? [['Active', el('code', {}, active.version)], ['since', since]] : []), ...(active?.note ? [['note', active.note]] : [])];
  $('policy').replaceChildren(...lines.map(([name, words]) => el('div', { class: words === '▲ off' ? 'bad' : words === '● on' ? 'good' : '' }, el('dt', {}, name), el('dd', {}, words))));
  rolling = Boolean(candidate);
  $('rollout').hidden = !rolling;
  if (rolling) rollout(candidate);
  const before = told ? policy.before ?? null : null;
  $('rollback').hidden = !told || !(rolling || before);
  $('rollback').dataset.to = before ?? '';
  $('rollback').textContent = rolling ? 'Roll the candidate back' : `Roll back to ${before}`;
  versions(told ? policy.versions ?? [] : [], active, candidate);
}

/** Seconds since the epoch, or a text that says it already. */
const moment = (at) => (typeof at === 'number' ? `${instant(new Date(at * 1000))} (${ago(at)})` : String(at ?? ''));

function rollout(candidate) {
  const guard = candidate.guard ?? {}, at = candidate.step - 1; // a roll-out that waits for farthing's start has no guard
  $('rollout-what').replaceChildren('Rolling out ', el('code', {}, candidate.version), ` to ${share(candidate.share)} of the traffic, since ${moment(candidate.since)}.`, candidate.note ? ` ${candidate.note}` : '');
  $('rollout-steps').replaceChildren(...candidate.steps.map((part, i) => el('li', { class: i < at ? 'done' : i === at ? 'now' : '', 'aria-current': i === at ? 'step' : null }, `${i < at ? '✓' : i === at ? '▶' : '○'} ${Number((100 * part).toPrecision(3))}%`)));
  const [kind, words] = WORDS[guard.says] ?? ['soft', 'has seen nothing yet'], waits = candidate.waits_for;
  $('rollout-guard').replaceChildren('The guard: ', el('b', { class: kind }, guard.says ?? 'silent'), guard.says ? ` (${guard.why || words})` : `, ${words}`, waits ? `; ${waits}` : '', '.');
  const metrics = Object.entries(guard.metrics ?? {});
  $('rollout-metrics').parentElement.hidden = !metrics.length;
  fill($('rollout-metrics'), ['measure', 'active', 'candidate', 'proof of worse'], 1, metrics.map(([name, one]) => el('tr', {},
    el('td', { class: 'name' }, NAMES[name] ?? name), ...[one.active, one.candidate].map((value) => cell(value === null ? '–' : (METRICS[name] ?? String)(value))),
    cell(evidence(one.evidence)))));
}

function evidence(found) {
  const part = Math.min(1, Math.max(0, found));
  return el('span', { class: part >= 0.5 ? 'error' : '' }, el('span', { class: 'meter', 'aria-hidden': 'true' }, el('i', { width: share(part) })), `${Math.round(100 * part)}%`);
}

function versions(known, active, candidate) {
  $('policy-versions').hidden = known.length < 2;
  $('policy-count').textContent = `${count(known.length)} versions`;
  fill($('versions'), ['version', 'is', 'made', 'note'], 4, known.map((one) => el('tr', {}, el('td', { class: 'name' }, el('code', {}, one.version)),
    el('td', { class: 'text' }, one.version === active?.version ? '● active' : one.version === candidate?.version ? '▶ candidate' : ''),
    el('td', { class: 'text' }, typeof one.made_at === 'number' ? clock(one.made_at) : one.made_at ?? ''), el('td', { class: 'text note' }, one.note ?? ''))));
}

/** `told`: what GET api/incidents answered, {error}, or null where this farthing keeps no log of them. */
export function showIncidents(told) {
  $('incidents-card').hidden = told === null || Boolean(told.absent);
  if ($('incidents-card').hidden) return;
  $('incidents-said').className = told.error ? 'error' : 'none';
  const all = told.incidents ?? [], shown = all.slice(0, MOST_INCIDENTS);
  $('incidents-said').hidden = !told.error && all.length > 0;
  $('incidents').hidden = !told.error && all.length === 0;
  $('incidents-said').textContent = told.error ? `Incidents can’t be shown: ${told.error}.` : 'None: farthing has taken nothing back of its own accord.';
  if (told.error) return;
  const now = JSON.stringify(shown);
  if ($('incidents').dataset.shown === now) return; // somebody may have opened one
  $('incidents').dataset.shown = now;
  $('incidents').replaceChildren(...shown.map(incident));
}

function incident(one) {
  const known = Object.entries(one.evidence ?? {}).filter(([, value]) => value !== null && value !== '');
  return el('li', {}, el('p', {}, el('b', {}, one.what)), el('p', { class: 'soft' }, [clock(one.ts), one.kind, one.policy, one.route].filter(Boolean).join(' · ')),
    one.why ? el('p', {}, one.why) : null,
    known.length ? el('details', {}, el('summary', {}, 'Evidence'), el('dl', { class: 'facts' }, ...known.map(([name, value]) => el('div', {}, el('dt', {}, name.replaceAll('_', ' ')), el('dd', {}, typeof value === 'object' ? JSON.stringify(value) : value))))) : null);
}
