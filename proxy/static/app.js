// The dashboard: asks for figures, shows them, asks again. Everything shown goes through `el`, so no text is markup.
import { ask, tryAsk, use } from './api.js';
import { show as showBudgets } from './budgets.js';
import { whenZoomed } from './charts.js';
import { show as showCompress } from './compress.js';
import { close, show as showDetail } from './detail.js';
import { el } from './format.js';
import { show as drawGraphs } from './graphs.js';
import { choose as chooseGroup, offer as offerGroups, showGroups, showRepeated } from './groups.js';
import { showAlerts, showHealth } from './health.js';
import { show as showLately, wanted as wantedLately, whenChanged } from './lately.js';
import { show as showLevels } from './levels.js';
import { badges, hero, tiles } from './overview.js';
import { show as showPolicy, showIncidents, start as startPolicy } from './policy.js';
import { show as showExperiments } from './experiments.js';
import { show as showQuality } from './quality.js';
import { show as showStudents } from './students.js';
import * as range from './range.js';
import { show as showDeferred } from './deferred.js';
import { show as showReplicas } from './replicas.js';
import * as requests from './requests.js';
import { show as showReuse } from './reuse.js';
import { show as showRoutes } from './routes.js';
import { show as showTradeoff, start as startTradeoff, wanted as wantedTradeoff } from './tradeoff.js';
import { start as startUpkeep } from './upkeep.js';

const $ = (id) => document.getElementById(id);
const EVERY_MS = 10_000, REPEATED = 10;
let asked = 0, timer = 0, shown = false;

const query = (values) => new URLSearchParams(values);
const midnight = () => { const now = new Date(); return new Date(now.getFullYear(), now.getMonth(), now.getDate()).toISOString(); };
const open = (id) => showDetail(id, ask);

async function refresh() {
  clearTimeout(timer);
  const mine = ++asked, span = range.span(), listing = requests.wanted();
  try {
    const [summary, series, listed, today, repeated, names, health, reuse, lately, compress, budgets, routes, levels, traded] = await Promise.all([
      ask(`summary?${query({ ...span, by: $('by').value })}`), ask(`series?${query({ ...span, buckets: range.slices() })}`),
      ...[`requests?${query({ ...span, ...listing })}`, `summary?${query({ since: midnight() })}`, `repeated?${query({ ...span, limit: REPEATED })}`,
        `names?${query(span)}`, 'health', 'semantic', `semantic/lately?${wantedLately()}`, 'compress', 'budgets', `routes?${query(span)}`, 'levels', `tradeoff?${query({ ...span, ...wantedTradeoff() })}`].map(tryAsk),
    ]);
    const { state } = summary, only = (has, path) => (has ? tryAsk(path) : null); // of what is off there is nothing to tell
    const whole = state.policy !== undefined; // a proxy that serves, and not a page on its ledger alone
    const [capture, policy, incidents, watch, gates, experiments, students, feedback] = await Promise.all([only((state.capture ?? 'off') !== 'off', 'capture'),
      ...['policy', 'incidents?limit=20', 'watch', 'gates', 'experiments', 'students', `feedback?since=${encodeURIComponent(span.since)}`].map((path) => only(whole, path))]);
    if (mine !== asked) return;
    $('trouble').hidden = $('token').hidden = true;
    const total = summary.total, empty = total.requests === 0;
    $('main').dataset.state = empty ? 'empty' : 'ready';
    $('empty').hidden = !empty;
    badges(state);
    showAlerts({ state, total, health, reuse, compress });
    if (!empty) {
      hero(summary, today.error ? null : today.total);
      tiles(total);
      drawGraphs($('charts'), series.buckets, total);
      offerGroups(names.tags ?? []);
      showGroups(summary, requests.narrow);
      showRepeated(repeated, requests.narrow);
    }
    requests.offer(names);
    requests.show(listed, listing, open, empty);
    showReuse(reuse);
    showLately(lately, ask);
    showCompress(compress, series.buckets, total);
    showBudgets(budgets);
    showRoutes(routes);
    showLevels(levels);
    showTradeoff(traded, empty);
    showDeferred(state.deferred);
    showReplicas(state.replicas, refresh);
    showPolicy(state, policy);
    showIncidents(incidents);
    showExperiments(experiments);
    showStudents(students);
    showQuality(watch, gates, feedback);
    showHealth(state, health, capture);
    shown = true;
  } catch (error) {
    if (mine !== asked) return;
    if (shown) $('main').dataset.state = 'stale';
    $('token').hidden = !error.token;
    $('trouble').hidden = Boolean(error.token);
    const away = error instanceof TypeError;
    $('trouble').textContent = away ? 'farthing can’t be reached. These figures are the last ones; trying again.' : `No new figures: ${error.message}.`;
  }
  if ($('live').checked && !document.hidden) timer = setTimeout(refresh, EVERY_MS);
}

function remember(step) {
  const address = `#${query({ ...range.inAddress(), by: $('by').value })}`;
  if (step && address !== location.hash) history.pushState(null, '', address);
  else history.replaceState(null, '', address);
  refresh();
}

function readAddress() {
  const wanted = query(location.hash.slice(1));
  range.read(wanted);
  chooseGroup(wanted.get('by') ?? '');
}

/** `/` goes to the filter of requests, from anywhere but a field. */
function keys(event) {
  if (event.key !== '/' || event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input, select, textarea, dialog')) return;
  event.preventDefault();
  if ($('recent-card').hidden) return;
  $('filter-text').focus();
  $('filter-text').select();
}

function themes() {
  $('theme').value = document.documentElement.dataset.theme ?? 'auto';
  $('theme').addEventListener('change', () => {
    if ($('theme').value === 'auto') { delete document.documentElement.dataset.theme; localStorage.removeItem('farthing-theme'); }
    else { document.documentElement.dataset.theme = $('theme').value; localStorage.setItem('farthing-theme', $('theme').value); }
    refresh(); // charts are drawn in the colours of their moment
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', refresh);
}

offerGroups([]);
readAddress();
range.start((step) => { requests.first(); remember(step); });
requests.start(refresh);
whenZoomed(range.zoom);
whenChanged(refresh);
startTradeoff(refresh);
startUpkeep(refresh);
startPolicy(refresh);
themes();
$('by').addEventListener('change', () => remember(false));
$('live').addEventListener('change', refresh);
$('detail-close').addEventListener('click', close);
$('token').addEventListener('submit', (event) => { event.preventDefault(); use($('token-text').value); refresh(); });
addEventListener('popstate', () => { readAddress(); requests.first(); refresh(); });
addEventListener('keydown', keys);
document.addEventListener('visibilitychange', () => { if (!document.hidden) refresh(); });
$('snippet').textContent = `from openai import OpenAI\n\nclient = OpenAI(base_url="${location.origin}/v1")`;
for (let i = 0; i < 5; i += 1) $('tiles').append(el('div', { class: 'tile' }));
refresh();
