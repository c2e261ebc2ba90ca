// Requests that wait for a provider's batch API: how many, at which upstream, what became of them and what that saved.
import { count, counted, duration, el, money } from './format.js';
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
  const waits = deferred.oldest_s === null ? [] : [`The oldest has waited for ${duration(deferred.oldest_s * 1000)}`, counted(deferred.batches, 'batch').replace('batchs', 'batches') + ' under way'];
  $('deferred-note').hidden = !some;
  $('deferred-note').textContent = [...waits, `results are kept for ${duration(deferred.keep_s * 1000)}`].join('; ') + '.';
}

function row(each) {
  return el('tr', {}, el('td', { class: 'name' }, each.upstream), cell(count(each.waiting)), cell(count(each.running)), cell(count(each.done)),
    cell(count(each.failed), each.failed ? 'error' : ''), cell(count(each.cancelled)), cell(money(each.saved_usd), 'good'));
}
