// Tables that are filled anew while somebody reads them: focus stays where it was, and a narrow screen, which shows no
// head, still finds each column's name at its cell.
import { el } from './format.js';

/** Fill a table. `names`: of the columns; `texts`: how many of them, from the left, hold words. */
export function fill(table, names, texts, rows) {
  for (const row of rows) [...row.children].forEach((each, i) => each.setAttribute('data-label', names[i] ?? ''));
  const head = names.map((name, i) => el('th', { scope: 'col', class: i < texts ? 'text' : '' }, name));
  keepingFocus(table, () => table.replaceChildren(el('thead', {}, el('tr', {}, ...head)), el('tbody', {}, ...rows)));
}

/** Do something that replaces elements; the one with the same data-focus gets the focus back. */
export function keepingFocus(place, replace) {
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  replace();
  if (focused !== undefined) [...place.querySelectorAll('[data-focus]')].find((each) => each.dataset.focus === focused)?.focus({ preventScroll: true });
}

export const cell = (value, kind = '') => el('td', { class: kind }, value);
export const signed = (amount) => (Number(amount) < 0 ? 'minus' : Number(amount) > 0 ? 'good' : '');
