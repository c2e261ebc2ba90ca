// Charts over time on uPlot: lines, or stacked bars that also stack downwards. A legend of our own shows the values
// under the cursor, or the whole range's while there is none. Dragging over a chart asks for that span of time.
import { el, swatch } from './format.js';
import { PATTERN, colour, fill } from './palette.js';

const FEW = 8, HEIGHT_PX = 190, DRAG_PX = 8;
let zoomed = () => {};

/** `to`: called with the span of time, in seconds since the epoch, that somebody dragged over a chart. */
export function whenZoomed(to) { zoomed = to; }

/** Where points are drawn: at a few values everywhere, else where one stands alone, and so no line can show it. */
function dots(u, series) {
  const values = u.data[series], there = (i) => values[i] !== null && values[i] !== undefined;
  const known = values.map((_, i) => i).filter(there);
  return known.length <= FEW ? known : known.filter((i) => !there(i - 1) && !there(i + 1));
}

/** The width of the axis's longest label, in CSS pixels, and at least one that charts in a column share. */
function labelRoom(u, labels, index) {
  u.ctx.save();
  u.ctx.font = u.axes[index].font[0];
  const widest = Math.max(0, ...(labels ?? []).map((label) => u.ctx.measureText(label).width));
  u.ctx.restore();
  return Math.max(58, Math.ceil(widest / devicePixelRatio) + 10);
}

export class Chart {
  /** `form`: {title, note?, kind: 'lines'|'stack', axis, value, series: [{label, colour, dash?, fill?, mark?}], zoom?}; `mark`: the
   * legend's sign, where it isn't told by the dash. */
  constructor(parent, form) {
    this.form = form;
    this.legend = el('ul', { class: 'legend' });
    this.plot = el('div', { class: 'plot' });
    this.figure = el('figure', { class: 'chart' }, el('figcaption', {}, el('h2', {}, form.title), form.note ? el('p', { class: 'soft' }, form.note) : null, this.legend), this.plot);
    parent.append(this.figure);
    this.u = null;
    this.kept = [];
    new ResizeObserver(() => this.u && this.u.setSize(this.size())).observe(this.plot);
  }

  size() { return { width: Math.max(120, this.plot.clientWidth), height: HEIGHT_PX }; }

  /** Show `times` (seconds) and one array of numbers or nulls for each series, with a text for the idle legend. */
  show(times, values, totals) {
    this.times = times; this.values = values; this.totals = totals;
    if (this.u && this.u.select.width > 0) return; // somebody is dragging; the next figures come soon
    // A stack leaves out the causes that never occur, so that the legend names what can be seen.
    this.kept = this.form.series.map((_, i) => i).filter((i) => this.form.kind !== 'stack' || values[i].some((x) => x));
    if (this.u) this.u.destroy();
    this.u = new uPlot(this.options(), this.form.kind === 'stack' ? this.stacked() : [times, ...values], this.plot);
    this.describe(null);
    const told = this.kept.map((i) => `${this.form.series[i].label} ${totals[i]}`).join(', ');
    this.plot.setAttribute('role', 'img');
    this.plot.setAttribute('aria-label', `${this.form.title} over time. ${told || 'Nothing yet'}`);
  }

  /** Cumulated columns, the tallest first, so that each lies behind the next; losses go down from zero. */
  stacked() {
    const up = this.times.map(() => 0), down = this.times.map(() => 0), columns = [];
    for (const i of this.kept) {
      const add = (sums, sign) => this.values[i].map((x, t) => (sums[t] += sign * Math.max(0, sign * (x ?? 0))));
      columns.push(add(up, 1), add(down, -1));
    }
    // A bar of no height would still draw a line along zero.
    return [this.times, ...columns.reverse().map((column) => column.map((x) => x || null))];
  }

  series() {
    const of = this.form.series;
    if (this.form.kind !== 'stack') {
      return of.map((s) => ({ stroke: colour(s.colour), width: 2, dash: s.dash, spanGaps: false, points: { show: false, size: 6, width: 0, fill: colour(s.colour), filter: dots }, fill: s.fill ? colour(s.colour, 0.13) : undefined }));
    }
    const bars = uPlot.paths.bars({ size: [0.82, 36], gap: 1 });
    // Below zero first, as `stacked` has it: a loss keeps its cause's pattern, in the colour of losses.
    return [...this.kept].reverse().flatMap((i) => ['loss', of[i].colour].map((name) => ({ fill: (u) => fill(u.ctx, name, of[i].colour), width: 0, paths: bars, points: { show: false } })));
  }

  options() {
    const soft = colour('soft'), line = colour('line'), font = '12px system-ui, sans-serif';
    // Half a slice of room at each end, or the first and last columns would be cut.
    const half = this.form.kind === 'stack' && this.times.length > 1 ? (this.times[1] - this.times[0]) / 2 : 0;
    const axis = { stroke: soft, font, grid: { stroke: line, width: 1 }, ticks: { show: false } };
    const drags = this.form.zoom !== false;
    return {
      ...this.size(),
      padding: [10, 20, 0, 0],
      legend: { show: false },
      cursor: {
        // Cursors move together; a drag is one chart's own.
        sync: { key: 'farthing', filters: { pub: (kind) => kind === 'mousemove' || kind === 'mouseleave' } },
        drag: { x: drags, y: false, setScale: false, dist: DRAG_PX }, points: { show: this.form.kind !== 'stack' }, y: false,
      },
      scales: { x: { time: true, range: (_, low, high) => [low - half, high + half] }, y: { range: (_, low, high) => [Math.min(0, low) * 1.05, high > 0 ? high * 1.05 : low < 0 ? 0 : 1] } },
      axes: [
        { ...axis, grid: { show: false }, space: 70, size: 40, values: [
          [86400, '{D} {MMM}', null, null, null, null, null, null, 1],
          [3600, '{HH}:{mm}', '\n{D} {MMM}', null, '\n{D} {MMM}', null, null, null, 1],
          [60, '{HH}:{mm}', '\n{D} {MMM}', null, '\n{D} {MMM}', null, null, null, 1],
          [1, '{HH}:{mm}:{ss}', '\n{D} {MMM}', null, '\n{D} {MMM}', null, null, null, 1],
        ] },
        { ...axis, size: labelRoom, space: 32, values: (_, ticks) => ticks.map((x) => this.form.axis(x)) },
      ],
      series: [{}, ...this.series()],
      bands: this.form.band ? [{ series: this.form.band, fill: colour('compress', 0.18) }] : undefined,
      hooks: { setCursor: [(u) => this.describe(u.cursor.idx)], setSelect: [(u) => this.selected(u)] },
    };
  }

  selected(u) {
    const { left, width } = u.select;
    if (width < DRAG_PX) return;
    const [from, to] = [u.posToVal(left, 'x'), u.posToVal(left + width, 'x')];
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    zoomed(from, to);
  }

  describe(at) {
    const none = at === null || at === undefined;
    this.legend.replaceChildren(...this.kept.map((i) => {
      const s = this.form.series[i];
      const kind = this.form.kind === 'stack' ? `pattern-${PATTERN[s.colour] ?? 'plain'}` : s.mark ?? (s.dash ? 'dash' : 'line');
      return el('li', {}, swatch(s.colour, kind), s.label, el('b', {}, none ? this.totals[i] : this.form.value(this.values[i][at])));
    }));
  }
}
