// Requests that wait for a provider's batch API: how many, at which upstream, what became of them and what that saved.
import { count, el, money } from './format.js';
import { cell, fill } from './table.js';

const $ = (id) => document.getElementById(id);
const NAMES = ['upstream', 'waiting', 'with the provider', 'done', 'failed', 'cancelled', 'saved'];

/** `deferred`: of the summary's state; null where no upstream has a batch API: then there is no card. */
export function show(deferred) {
  $('deferred-card').hidden = !deferred;
  if (!deferred) return;
  const some = deferred.upstreams.length > 0;
  $('deferred-none').hidden = some;
  $('deferred').hidden = !some;
  $('deferred-saved').textContent = some ? `${money(deferred.saved_usd)} saved by waiting` : '';
  if (some) fill($('deferred'), NAMES, 1, deferred.upstreams.map(row));
  $('deferred-note').hidden = !some;
  const waits = deferred.oldest_s === null ? '' : `The oldest has waited for ${span(deferred.oldest_s)}; batches under way: ${count(deferred.batches)}. `;
  $('deferred-note').textContent = `${waits}Counted are those whose results are still kept (${span(deferred.keep_s)}).`;
}

function row(each) {
  return el('tr', {}, el('td', { class: 'name' }, each.upstream), cell(count(each.waiting)), cell(count(each.running)), cell(count(each.done)),
    cell(count(each.failed), each.failed ? 'error' : ''), cell(count(each.cancelled)), cell(money(each.saved_usd), 'good'));
}

const span = (seconds) => (seconds >= 7200 ? `${Math.round(seconds / 3600)} h` : seconds >= 120 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds)} s`);
