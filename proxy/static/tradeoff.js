// Cost, latency and quality of each way of answering: a picture with intervals and the front, and the same in a table.
import { clock, count, counted, duration, el, money, share, visible } from './format.js';
import { cell, fill } from './table.js';

const $ = (id) => document.getElementById(id);
const NAMES = ['way', 'requests', 'cost a request', 'median', 'p95', 'good', ''];
const HEIGHT = 300, SMALL = 200, LEFT = 62, RIGHT = 26, TOP = 22, BOTTOM = 42;

/** The query of GET api/tradeoff beside the span. */
export const wanted = () => ({ by: $('tradeoff-by').value });

export function start(refresh) {
  $('tradeoff-by').addEventListener('change', refresh);
}

/** `told`: what GET api/tradeoff answered, or {error}. */
export function show(told, empty) {
  $('tradeoff-card').hidden = empty && !told.error && !told.points.length;
  $('tradeoff-trouble').hidden = !told.error;
  $('tradeoff-trouble').textContent = told.error ? `Ways can’t be compared: ${told.error}. Older figures stay.` : '';
  if (told.error) return;
  const quality = told.points.some((each) => each.quality);
  const drawn = told.points.filter((each) => each.cost_usd && (quality ? each.quality : each.latency_ms));
  const enough = drawn.length > 1;
  $('tradeoff-none').hidden = enough;
  $('tradeoff-none').textContent = told.points.length > 1 ? 'Nothing to draw: of two ways at least, cost and quality must be known (ratings: POST /farthing/api/feedback).'
    : 'There is nothing to compare: all requests were answered in one way. Choose another, or another time.';
  $('tradeoff-plot').hidden = $('tradeoff-key').hidden = !enough;
  const numbered = drawn.map((each, i) => [i + 1, each]), timed = numbered.filter(([, each]) => each.latency_ms);
  const pictures = quality ? [plot(numbered, 'quality'), ...(timed.length ? [plot(timed, 'latency_ms', SMALL)] : [])] : [plot(numbered, 'latency_ms')];
  $('tradeoff-plot').replaceChildren(...(enough ? pictures : []));
  $('tradeoff-note').textContent = [
    told.reaches_s === null ? '' : `Of the latest ${counted(told.rows, 'request')} only, back to ${clock(told.reaches_s)}.`,
    'Bars are 95% intervals. Beaten for sure: another is as good on every count, and the intervals are apart.',
    quality ? 'Good: the share of those that were rated or audited.' : 'Nobody has rated an answer: quality is unknown, and the rest is compared.',
  ].filter(Boolean).join(' ');
  $('tradeoff').hidden = !told.points.length;
  fill($('tradeoff'), NAMES, 1, told.points.map((each) => line(each, drawn.indexOf(each) + 1)));
}

function line(point, number) {
  const words = { front: 'on the front', unknown: 'not compared: something is unknown', dominated: `beaten by ${point.beaten_by}, not for sure`, 'surely dominated': `beaten for sure by ${point.beaten_by}` };
  const name = `${number ? `${number}. ` : ''}${point.name}`, of = point.source === 'traffic' ? null : el('div', { class: 'soft' }, point.source);
  return el('tr', {}, el('td', { class: 'name', title: point.name }, name, of), cell(count(point.requests)),
    cell(between(point.cost_usd, (x) => money(String(x)))), cell(between(point.latency_ms, duration)), cell(duration(point.latency_p95_ms)),
    cell(point.quality ? between(point.quality, share, `, of ${count(point.judged)}`) : 'unknown'), el('td', { class: 'text verdict' }, words[point.verdict]));
}

function between(measure, shown, more = '') {
  if (!measure) return '?';
  const few = measure.low === null || measure.high === null;
  return el('span', {}, shown(measure.value), el('div', { class: 'soft' }, few ? `too few for an interval${more}` : `${shown(measure.low)} to ${shown(measure.high)}${more}`));
}

// -- the picture

function svg(tag, attributes, ...children) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const words = (x, y, text, anchor = 'middle', kind = '') => svg('text', { x, y, 'text-anchor': anchor, class: kind }, visible(text));

/** From values to places: round numbers at its ends; what lies beyond stops there. */
function scale(measures, first, last) {
  const values = measures.map((each) => each.value), reach = Math.max(...values) - Math.min(...values) || Math.abs(Math.max(...values)) || 1;
  const ends = measures.flatMap((each) => [each.low, each.high]).filter((end) => end !== null);
  let low = Math.min(...values, ...ends.filter((end) => end >= Math.min(...values) - reach)), high = Math.max(...values, ...ends.filter((end) => end <= Math.max(...values) + reach));
  if (high <= low) [low, high] = [low - reach / 2, high + reach / 2];
  const rough = (high - Math.max(0, low)) / 4, power = 10 ** Math.floor(Math.log10(rough)), step = power * [1, 2, 5, 10].find((factor) => power * factor >= rough);
  const from = Math.floor(Math.max(0, low) / step), to = Math.ceil(high / step), ticks = [...Array(to - from + 1).keys()].map((i) => (from + i) * step);
  const at = (x) => first + ((last - first) * (Math.min(Math.max(x, ticks[0]), ticks.at(-1)) - ticks[0])) / (ticks.at(-1) - ticks[0]);
  return { ticks, at: (x, otherwise) => at(x === null ? otherwise : x) };
}

/** `numbered`: [number, way]. A picture of `height` SMALL stands below another one, which has the line of the front: that is one of all three counts. */
function plot(numbered, upward, height = HEIGHT) {
  const points = numbered.map(([, each]) => each), width = Math.max(280, $('tradeoff-plot').parentElement.clientWidth - 40), right = width - RIGHT, floor = height - BOTTOM;
  const across = scale(points.map((each) => each.cost_usd), LEFT, right), up = scale(points.map((each) => each[upward]), floor, TOP);
  const label = upward === 'quality' ? (x) => `${Number((100 * x).toFixed(2))}%` : (x) => `${count(Number(x.toPrecision(6)))} ms`;
  const every = width < 500 ? 2 : 1;
  const grid = [
    ...up.ticks.flatMap((tick) => [svg('line', { class: 'grid', x1: LEFT, x2: right, y1: up.at(tick), y2: up.at(tick) }), words(LEFT - 6, up.at(tick) + 4, label(tick), 'end')]),
    ...across.ticks.filter((_, i) => i % every === 0).flatMap((tick) => [svg('line', { class: 'grid', y1: TOP, y2: floor, x1: across.at(tick), x2: across.at(tick) }), words(across.at(tick), floor + 16, `$${Number(tick.toPrecision(6))}`)]),
    words(right, height - 6, 'cost a request', 'end'), words(4, 11, upward === 'quality' ? 'good answers' : 'median latency', 'start'),
  ];
  const front = points.filter((each) => each.verdict === 'front' && each.source === 'traffic').map((each) => [across.at(each.cost_usd.value), up.at(each[upward].value)]).sort((a, b) => a[0] - b[0]);
  const edge = front.length > 1 && height === HEIGHT ? [svg('polyline', { class: 'edge', points: front.map((each) => each.join()).join(' ') })] : [];
  return svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': `Cost against ${upward === 'quality' ? 'quality' : 'latency'} of ${points.length} ways; the table has the figures` },
    ...grid, ...edge, ...numbered.map(([number, each]) => mark(each, number, across, up, upward, right)));
}

function mark(point, number, across, up, upward, right) {
  const cost = point.cost_usd, height = point[upward], x = across.at(cost.value), y = up.at(height.value);
  const bar = (x1, x2, y1, y2) => svg('line', { class: 'whisker', x1, x2, y1, y2 });
  const shape = { front: () => svg('circle', { class: 'on', cx: x, cy: y, r: 6 }), dominated: () => svg('circle', { class: 'off', cx: x, cy: y, r: 5 }),
    'surely dominated': () => svg('path', { class: 'cross', d: `M${x - 5} ${y - 5}l10 10m0 -10l-10 10` }), unknown: () => svg('rect', { class: 'off', x: x - 5, y: y - 5, width: 10, height: 10 }) };
  const bars = [cost.low === null ? null : bar(across.at(cost.low), across.at(cost.high), y, y), height.low === null ? null : bar(x, x, up.at(height.low), up.at(height.high))];
  const long = `${number} ${point.name}`, fits = x + 12 + 7 * long.length < right;
  return svg('g', {}, ...bars.filter(Boolean), shape[point.verdict](), words(x + 9, y - 9, fits ? long : String(number), 'start', 'number'));
}
