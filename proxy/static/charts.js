// Charts over time on uPlot: lines, or stacked bars that also stack downwards. A legend of our own shows the values
// under the cursor, or the whole range's while there is none.
import { el, swatch } from './format.js';

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const FEW = 8;

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
  /** `form`: {title, kind: 'lines'|'stack', axis, value, series: [{label, colour, total?, dash?, fill?}]}; `total`: the idle legend's text. */
  constructor(parent, form) {
    this.form = form;
    this.legend = el('ul', { class: 'legend' });
    this.plot = el('div', { class: 'plot' });
    this.figure = el('figure', { class: 'chart' }, el('figcaption', {}, el('h2', {}, form.title), this.legend), this.plot);
    parent.append(this.figure);
    this.u = null;
    this.kept = [];
    new ResizeObserver(() => this.u && this.u.setSize(this.size())).observe(this.plot);
  }

  size() { return { width: Math.max(120, this.plot.clientWidth), height: 190 }; }

  /** Show `times` (seconds) and one array of numbers or nulls for each series, with a text for the idle legend. */
  show(times, values, totals) {
    this.times = times; this.values = values; this.totals = totals;
    // A stack leaves out the causes that never occur, so that the legend names what can be seen.
    this.kept = this.form.series.map((_, i) => i).filter((i) => this.form.kind !== 'stack' || values[i].some((x) => x));
    if (this.u) this.u.destroy();
    this.u = new uPlot(this.options(), this.form.kind === 'stack' ? this.stacked() : [times, ...values], this.plot);
    this.describe(null);
    const told = this.kept.map((i) => `${this.form.series[i].label} ${totals[i]}`).join(', ');
    this.plot.setAttribute('role', 'img');
    this.plot.setAttribute('aria-label', `${this.form.title} over time. ${told}`);
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
      return of.map((s) => ({ stroke: colour(s.colour), width: 2, dash: s.dash, spanGaps: false, points: { show: false, size: 6, width: 0, fill: colour(s.colour), filter: dots }, fill: s.fill ? `${colour(s.colour)}22` : undefined }));
    }
    const bars = uPlot.paths.bars({ size: [0.82, 36], gap: 1 });
    return [...this.kept].reverse().flatMap((i) => [0, 1].map(() => ({ fill: colour(of[i].colour), width: 0, paths: bars, points: { show: false } })));
  }

  options() {
    const soft = colour('soft'), line = colour('line'), font = '12px system-ui, sans-serif';
    // Half a slice of room at each end, or the first and last columns would be cut.
    const half = this.form.kind === 'stack' && this.times.length > 1 ? (this.times[1] - this.times[0]) / 2 : 0;
    const axis = { stroke: soft, font, grid: { stroke: line, width: 1 }, ticks: { show: false } };
    return {
      ...this.size(),
      padding: [10, 20, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: 'farthing' }, drag: { x: false, y: false }, points: { show: this.form.kind !== 'stack' }, y: false },
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
      bands: this.form.band ? [{ series: this.form.band, fill: `${colour('compress')}2e` }] : undefined,
      hooks: { setCursor: [(u) => this.describe(u.cursor.idx)] },
    };
  }

  describe(at) {
    const none = at === null || at === undefined;
    this.legend.replaceChildren(...this.kept.map((i) => {
      const s = this.form.series[i];
      const kind = this.form.kind === 'stack' ? '' : s.mark ?? (s.dash ? 'dash' : 'line');
      return el('li', {}, swatch(s.colour, kind), s.label, el('b', {}, none ? this.totals[i] : this.form.value(this.values[i][at])));
    }));
  }
}
