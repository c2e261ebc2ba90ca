// Where the money goes: the figures split by model, tag, tenant and so on; and which prompts come again and again.
import { clock, count, counted, duration, el, money, revealed, share, short } from './format.js';
import { cell, fill, signed } from './table.js';

const $ = (id) => document.getElementById(id);
const SPLITS = { model: 'model', model_served: 'model that answered', endpoint: 'endpoint', cache: 'cache status', compress: 'compression', tenant: 'tenant', user: 'user' };

/** By what to split; `names`: the API's, whose tags are offered too. Replaced only if changed: somebody may have it open. */
export function offer(names) {
  const select = $('by'), chosen = select.value, tags = new Set(names.map((tag) => `tag:${tag.split('=', 1)[0]}`));
  if (chosen.startsWith('tag:')) tags.add(chosen);
  const options = [...Object.entries(SPLITS), ...[...tags].sort().map((tag) => [tag, tag.replace(':', ': ')])];
  if (select.dataset.options === JSON.stringify(options)) return;
  select.dataset.options = JSON.stringify(options);
  select.replaceChildren(...options.map(([value, words]) => { const made = el('option', {}, words); made.value = value; return made; }));
  select.value = chosen || 'model';
}

/** Choose a split that an address names. */
export function choose(by) {
  if (by.startsWith('tag:')) offer([by.slice(4)]);
  if ([...$('by').options].some((option) => option.value === by)) $('by').value = by;
}

/** `summary`: the API's, split by one thing. `narrow`: called with the field and value of a group that was picked. */
export function showGroups({ groups: found, by, groups_left_out: left }, narrow) {
  const meter = (rate) => (rate === null ? '–' : el('span', {}, el('span', { class: 'meter', 'aria-hidden': 'true' }, el('i', { width: share(rate) })), share(rate)));
  const field = { model: 'model', model_served: 'model', cache: 'cache', endpoint: 'endpoint', user: 'text', tenant: 'text' }[by[0]] ?? (by[0].startsWith('tag:') ? 'tag' : '');
  const named = (value) => {
    if (!value || !field) return value || '(none)';
    const wanted = field === 'tag' ? `${by[0].slice(4)}=${value}` : value;
    return el('button', { class: 'link', type: 'button', 'data-focus': value, title: `List the requests of ${value}`, onclick: () => narrow(field, wanted) }, value);
  };
  const rows = found.map((each) => el('tr', {},
    el('td', { class: 'name', title: each.key[by[0]] }, named(each.key[by[0]])), cell(count(each.requests)), cell(money(each.spent_usd)),
    cell(money(each.net_saving_usd), signed(each.net_saving_usd)), cell(money(each.baseline_usd)), cell(meter(each.hit_rate_eligible)), cell(duration(each.latency_ms?.p95)),
    cell(short(each.tokens_in_sent)), cell(short(each.tokens_out)), cell(each.unpriced ? count(each.unpriced) : '')));
  if (left) rows.push(el('tr', {}, el('td', { class: 'name', colspan: '10' }, `${count(left)} smaller groups are not shown`)));
  fill($('groups'), [$('by').selectedOptions[0].textContent, 'requests', 'spent', 'net saved', 'baseline', 'hit rate', 'p95', 'tokens sent', 'tokens out', 'unpriced'], 1, rows);
}

/** `answer`: the API's on repeated requests, or {error}. */
export function showRepeated(answer, narrow) {
  const found = answer.repeated ?? [];
  $('repeated-said').hidden = found.length > 0;
  $('repeated-said').className = answer.error ? 'error' : 'none';
  $('repeated-said').textContent = answer.error ? `What repeats can’t be shown: ${answer.error}.` : 'No request came twice in this time.';
  $('repeated').hidden = found.length === 0;
  const texts = found.some((each) => each.text);
  $('repeated-note').hidden = found.length === 0 || texts;
  fill($('repeated'), ['request', 'model', 'requests', 'answered here', 'saved', 'last'], 2, found.map((each) => {
    const hash = each.key_hash.slice(0, 12), button = { class: 'link', type: 'button', 'data-focus': each.key_hash, onclick: () => narrow('text', each.key_hash) };
    return el('tr', {},
      el('td', { class: 'name', title: each.text ? revealed(each.text) : each.key_hash }, each.text ? el('button', { ...button, 'aria-label': `List the requests with the key ${hash}` }, revealed(each.text)) : el('button', { ...button, 'aria-label': `List the requests with the key ${hash}` }, el('code', {}, hash))),
      el('td', { class: 'text', title: each.model }, each.model), cell(`${each.at_least ? '≥ ' : ''}${count(each.requests)}`),
      cell(el('span', { title: `${counted(each.hits, 'request')} needed no call of their own` }, `${count(each.hits)} (${share(each.hits / each.requests)})`)),
      cell(money(each.saved_usd), signed(each.saved_usd)), cell(clock(each.last_s)));
  }));
}
