// Colours as the style sheet has them, and the patterns that tell series apart where colours don't.
const probe = document.createElement('i');
probe.hidden = true;
document.documentElement.append(probe);

/** The colour of a name in style.css as a canvas takes it, in the theme of this moment. */
export function colour(name, alpha = 1) {
  probe.style.color = `var(--${name})`;
  const found = getComputedStyle(probe).color;
  return alpha === 1 ? found : found.replace(/^rgba?\(([^)]+)\)$/, (_, parts) => `rgba(${parts.split(/[ ,/]+/).slice(0, 3).join(', ')}, ${alpha})`);
}

// Drawn on a tile of 8 by 8, so that neighbours join. The style sheet has the same for legends.
const STRIPES = {
  plain: () => {},
  rising: (to) => { for (const at of [-8, 0, 8]) to.line(at, 8, at + 8, 0); },
  falling: (to) => { for (const at of [-8, 0, 8]) to.line(at, 0, at + 8, 8); },
  level: (to) => { to.line(0, 2, 8, 2); to.line(0, 6, 8, 6); },
  upright: (to) => { to.line(2, 0, 2, 8); to.line(6, 0, 6, 8); },
  dots: (to) => { to.dot(2, 2); to.dot(6, 6); },
};
export const PATTERN = { exact: 'plain', semantic: 'rising', compress: 'dots', route: 'falling', prompt_cache: 'level', joined: 'upright', miss: 'plain', bypass: 'dots' };

/** A fill of a colour under the pattern of a series. */
export function fill(ctx, name, series) {
  const kind = PATTERN[series] ?? 'plain';
  if (kind === 'plain') return colour(name);
  const scale = devicePixelRatio || 1, tile = document.createElement('canvas');
  tile.width = tile.height = Math.round(8 * scale);
  const to = tile.getContext('2d');
  to.scale(tile.width / 8, tile.width / 8);
  to.fillStyle = colour(name);
  to.fillRect(0, 0, 8, 8);
  to.strokeStyle = to.fillStyle = colour('card', 0.75);
  to.lineWidth = 1.3;
  STRIPES[kind]({
    line: (x0, y0, x1, y1) => { to.beginPath(); to.moveTo(x0, y0); to.lineTo(x1, y1); to.stroke(); },
    dot: (x, y) => { to.beginPath(); to.arc(x, y, 1.25, 0, 7); to.fill(); },
  });
  return ctx.createPattern(tile, 'repeat');
}
