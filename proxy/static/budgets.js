// Budgets and rate limits: what is spent, what is reserved for requests under way, and how much there is.
import { ahead, count, counted, el, instant, money, share } from './format.js';
import { cell, fill } from './table.js';

const $ = (id) => document.getElementById(id);
const NEAR = 0.8, MOST_SUBJECTS = 5;
const whose = ({ of, only }) => (of === 'all' ? 'for all requests together' : `for each ${of.replace('tag:', 'value of the tag ')}${only?.length ? ` (only ${only.join(', ')})` : ''}`);

/** `told`: what GET api/budgets answered, or {error}. Nothing declared: no card. */
export function show(told) {
  $('budgets-card').hidden = !told.error && !told.budgets.length && !told.rate_limits.length;
  const away = !told.error && !['ok', 'off'].includes(told.store);
  $('budgets-trouble').hidden = !told.error && !away;
  $('budgets-trouble').textContent = told.error ? `Budgets can’t be shown: ${told.error}. Older figures stay.` : away ? `The store of budgets can’t be asked (${told.store}): these sums are what this farthing saw last.` : '';
  if (told.error) return;
  $('budgets').replaceChildren(...told.budgets.map(budget));
  $('budgets').hidden = $('budgets-key').hidden = !told.budgets.length;
  $('rates').parentElement.hidden = !told.rate_limits.length;
  fill($('rates'), ['rate limit', 'whose', 'at most', 'refused'], 2, told.rate_limits.map((rate) => el('tr', {},
    el('td', { class: 'name' }, rate.name), el('td', { class: 'text' }, whose(rate)),
    cell(`${count(rate.per_min)} ${rate.unit} a minute`), cell(count(rate.refused), rate.refused ? 'error' : ''))));
}

function budget(each) {
  const resets = new Date(each.resets_at), shown = each.subjects.slice(0, MOST_SUBJECTS), more = each.count - shown.length;
  return el('li', {},
    el('p', {}, el('b', {}, each.name), ` ${money(String(each.limit_usd))} a ${each.per} ${whose(each)}`),
    el('p', { class: 'soft' }, `${each.hard ? 'Hard: a request that would go beyond it is refused.' : 'Soft: told when it is spent, nothing is refused.'} Begins anew `,
      el('span', { title: instant(resets) }, ahead(resets)), '.', each.refused ? el('b', { class: 'error' }, ` ${counted(each.refused, 'request')} refused since farthing started.`) : ''),
    ...(shown.length ? shown.map((one) => subject(each, one)) : [el('p', { class: 'soft' }, `Nothing spent in this ${each.per} yet.`)]),
    more > 0 ? el('p', { class: 'soft' }, `${count(more)} more, who spent less`) : null);
}

/** One subject's account on a scale that ends at the limit, or beyond it where more is spent. The words say the same. */
function subject({ limit_usd: limit, hard, of }, { subject: name, spent_usd: spent, held_usd: held, share: part }) {
  const whole = Math.max(limit, spent + held), at = (x) => `${(100 * x) / whole}%`;
  const word = part >= 1 ? (hard ? 'used up' : 'spent, and beyond') : part + held / limit >= 1 ? 'all reserved' : part >= NEAR ? 'nearly spent' : '';
  return el('div', { class: 'subject' }, el('span', { class: 'who', title: name }, of === 'all' ? 'all' : name || '(none)'),
    el('span', { class: 'gauge', 'aria-hidden': 'true' }, el('i', { class: part >= 1 ? 'spent over' : 'spent', width: at(spent) }),
      held > 0 ? el('i', { class: 'held', '--from': at(spent), width: at(held) }) : null, el('i', { class: 'limit', '--at': at(limit) })),
    el('span', {}, `${money(String(spent))} spent`, held > 0 ? `, ${money(String(held))} reserved` : '', ` (${share(part)})`, word ? el('b', { class: 'error' }, ` ▲ ${word}`) : ''));
}
