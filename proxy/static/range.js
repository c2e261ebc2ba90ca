// The span of time that is shown: one of the four, or from–to, typed or dragged over a chart. It stands in the
// address, so that it can be shared, and the browser's way back undoes a zoom.
import { el, instant } from './format.js';

const $ = (id) => document.getElementById(id);
const BUCKETS = { '1h': 60, '24h': 48, '7d': 84, '30d': 60 }, NARROW_PX = 600;
let changed = () => {}, chosen = '24h', custom = null;

/** What to ask the API for. */
export const span = () => (custom ? { since: custom.from.toISOString(), ...(custom.to ? { until: custom.to.toISOString() } : {}) } : { since: chosen });

/** Into how many slices a chart of this span is cut. */
export function slices() {
  const whole = custom ? Math.min(60, Math.max(2, Math.floor(((custom.to ?? new Date()) - custom.from) / 1000))) : BUCKETS[chosen];
  return Math.max(1, Math.round(whole / (innerWidth < NARROW_PX ? 2 : 1)));
}

/** The span's part of the address. */
export const inAddress = () => (custom ? { since: custom.from.toISOString(), until: custom.to?.toISOString() ?? '' } : { since: chosen });

/** Show from–to, in seconds since the epoch; up to now or later means until now, whenever that is. */
export function zoom(fromS, toS) {
  custom = { from: new Date(fromS * 1000), to: toS * 1000 >= Date.now() - 1000 ? null : new Date(toS * 1000) };
  told();
  changed(true);
}

/** Take the span from an address; anything odd in it is passed over. */
export function read(wanted) {
  const since = wanted.get('since') ?? '24h', from = new Date(since), to = wanted.get('until') ? new Date(wanted.get('until')) : null;
  custom = null;
  if (since in BUCKETS) chosen = since;
  else if (!Number.isNaN(+from) && from < new Date() && (to === null || to > from)) custom = { from, to };
  told();
}

/** `on`: called with whether this is a step that the way back should undo. */
export function start(on) {
  changed = on;
  for (const input of document.querySelectorAll('input[name="since"]')) input.addEventListener('change', () => (input.value === 'custom' ? open() : choose(input.value)));
  // A radio that is already chosen tells nothing when it is chosen once more.
  $('custom-choice').addEventListener('click', () => { if (custom) open(); });
  $('custom').addEventListener('submit', (event) => { event.preventDefault(); typed(); });
  $('custom-close').addEventListener('click', () => { close(); told(); });
  $('custom').addEventListener('keydown', (event) => { if (event.key === 'Escape') { close(); told(); document.querySelector('input[name="since"]:checked').focus(); } });
  $('zoomed-out').addEventListener('click', () => choose(chosen));
}

function choose(value) {
  [chosen, custom] = [value, null];
  close();
  told();
  changed(true);
}

function open() {
  const [length, now] = [{ '1h': 3600, '24h': 86_400, '7d': 604_800, '30d': 2_592_000 }[chosen], new Date()];
  $('custom-from').value = local(custom?.from ?? new Date(now - length * 1000));
  $('custom-to').value = local(custom?.to ?? now);
  $('custom-wrong').textContent = '';
  $('custom').hidden = false;
  $('custom-from').focus();
}

const close = () => { $('custom').hidden = true; };

function typed() {
  const from = new Date($('custom-from').value), to = new Date($('custom-to').value);
  const wrong = Number.isNaN(+from) || Number.isNaN(+to) ? 'Both times are needed.' : from >= new Date() ? 'The beginning lies in the future.' : to <= from ? 'The end must come after the beginning.' : '';
  $('custom-wrong').textContent = wrong;
  if (wrong) { $('custom-from').focus(); return; }
  close();
  zoom(from / 1000, to / 1000);
}

/** A moment as the input wants it: this browser's time, without a zone. */
const local = (when) => new Date(when - when.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);

/** Say what is shown. */
function told() {
  document.querySelector(`input[name="since"][value="${custom ? 'custom' : chosen}"]`).checked = true;
  $('zoomed').hidden = !custom;
  if (custom) $('zoomed-span').replaceChildren(el('b', {}, instant(custom.from)), ' to ', el('b', {}, custom.to ? instant(custom.to) : 'now'));
  $('zoomed-out').textContent = `Back to ${chosen.replace(/(\d+)/, '$1 ')}`;
}
