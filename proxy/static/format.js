// Numbers and times as a reader wants them. No DOM but `el`, which never reads markup from a text.

/** Dollars (a decimal text or null) with the digits that matter; '$0' only for exactly nothing, '?' for unknown. */
export function money(text) {
  if (text === null || text === undefined) return '?';
  const units = atto(text), sign = Number(text) < 0 ? '-' : '';
  if (units === 0n) return '$0';
  const places = units >= 10n ** 18n ? 2 : units >= 10n ** 16n ? 4 : Math.min(18, 21 - String(units).length);
  const step = 10n ** BigInt(18 - places), over = 2n * (units % step), below = units / step;
  const rounded = over > step || (over === step && below % 2n === 1n) ? below + 1n : below;
  const whole = (rounded / 10n ** BigInt(places)).toLocaleString('en-US');
  return `${sign}$${whole}.${String(rounded).padStart(places, '0').slice(-places)}`;
}

/** Its size in 1e-18 dollar. Binary fractions would round half a digit to the other side than the report does. */
function atto(amount) {
  const text = typeof amount === 'string' && !/e/i.test(amount) ? amount : Number(amount).toFixed(12);
  const [whole, part = ''] = text.replace(/^[-+]/, '').split('.');
  return BigInt(whole + part.slice(0, 18).padEnd(18, '0'));
}

/** A short amount for an axis. */
export function axisMoney(amount) {
  if (amount === 0) return '$0';
  const size = Math.abs(amount), sign = amount < 0 ? '-' : '';
  if (size >= 1000) return `${sign}$${short(size)}`;
  return `${sign}$${Number(size.toPrecision(3))}`;
}

export const count = (n) => (n === null || n === undefined ? '–' : n.toLocaleString('en-US'));
export const share = (x) => (x === null || x === undefined ? '–' : `${(100 * x).toFixed(1)}%`);

/** 1234567 as 1.23M. */
export function short(n) {
  if (n === null || n === undefined) return '–';
  for (const [size, unit] of [[1e12, 'T'], [1e9, 'B'], [1e6, 'M'], [1e3, 'k']]) {
    if (Math.abs(n) >= size) return `${Number((n / size).toPrecision(3))}${unit}`;
  }
  return String(Math.round(n * 100) / 100);
}

/** Milliseconds as ms, s or min. */
export function duration(ms) {
  if (ms === null || ms === undefined) return '–';
  if (ms < 10) return `${ms.toFixed(2)} ms`;
  if (ms < 1000) return `${ms.toFixed(ms < 100 ? 1 : 0)} ms`;
  return ms < 60000 ? `${(ms / 1000).toFixed(2)} s` : `${(ms / 60000).toFixed(1)} min`;
}

export function clock(seconds) {
  const then = new Date(seconds * 1000), today = new Date().toDateString() === then.toDateString();
  const time = then.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
  return today ? time : `${then.toLocaleDateString([], { day: 'numeric', month: 'short' })} ${time}`;
}

/** The text with what can't be seen or would turn a line around shown as �. Joiners and marks of scripts stay. */
export const visible = (text) => String(text).replace(/(?![\u061c\u200c-\u200f])[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu, '\ufffd');

const EMOJI_BEFORE = /[\p{Extended_Pictographic}\p{Emoji_Modifier}]\ufe0f?$/u, EMOJI_AFTER = /^\p{Extended_Pictographic}/u;
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}\u034f\u115f\u1160\u2800\u3164\uffa0]/gu;

/** A prompt with every character that can't be seen, or would turn it around, spelt out: ⟨U+200B⟩. Emoji stay whole. */
export const revealed = (text) => String(text).replace(/\n/g, ' ⏎ ').replace(HIDDEN, (found, at, whole) => (found === '\u200d' && EMOJI_BEFORE.test(whole.slice(0, at)) && EMOJI_AFTER.test(whole.slice(at + 1)) ? found : `⟨U+${found.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}⟩`));

/** An element. Children that are texts become visible text nodes: nothing from the ledger is ever read as markup. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'class') made.className = value;
    else if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (name.startsWith('--') || name === 'width') made.style.setProperty(name, value);
    else if (value !== null && value !== undefined) made.setAttribute(name, visible(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined).map((child) => (child instanceof Node ? child : visible(child))));
  return made;
}

export const swatch = (name, kind = '') => el('span', { class: `swatch ${kind}`, '--swatch': `var(--${name})`, 'aria-hidden': 'true' });

/** A moment (Date) with its day, to the second. */
export const instant = (when) => when.toLocaleString([], { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });

/** How long ago a moment (seconds since the epoch) was. */
export function ago(seconds) {
  const passed = Math.max(0, Date.now() / 1000 - seconds);
  for (const [size, unit] of [[86_400, 'd'], [3600, 'h'], [60, 'min']]) if (passed >= size) return `${Math.floor(passed / size)} ${unit} ago`;
  return `${Math.floor(passed)} s ago`;
}

/** How far ahead a moment (Date) is. */
export function ahead(when) {
  const left = Math.max(0, (when - Date.now()) / 1000);
  for (const [size, unit] of [[86_400, 'd'], [3600, 'h'], [60, 'min']]) if (left >= size) return `in ${Math.round(left / size)} ${unit}`;
  return `in ${Math.round(left)} s`;
}

/** Bytes in the unit that suits them. */
export function bytes(n) {
  if (n === null || n === undefined) return '–';
  for (const [size, unit] of [[2 ** 30, 'GiB'], [2 ** 20, 'MiB'], [2 ** 10, 'KiB']]) if (n >= size) return `${Number((n / size).toPrecision(3))} ${unit}`;
  return `${n} B`;
}

/** "1 request", "2 requests". */
export const counted = (n, word) => `${count(n)} ${word}${n === 1 ? '' : 's'}`;
