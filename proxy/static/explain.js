// A request's story in sentences: what was decided about it, and why. Pure: from the ledger's row alone.
import { count, counted, duration, money, share } from './format.js';

const BYPASSED = {
  'endpoint is only relayed': 'this endpoint is only relayed',
  'body is not plain JSON': 'its body is not plain JSON',
  'body is longer than limits.parse_bytes': 'its body is longer than limits.parse_bytes',
  'x-farthing-off': 'the client sent x-farthing-off',
  'switched off': 'all optimisation was switched off',
  'store failed': 'the store of answers failed',
  'credential was refused upstream': 'the upstream had refused this credential',
};
const NO_LOOK = {
  'empty scope': 'the system prompt, or something else before the last message (tools, settings, earlier turns), differs from the nearest entry and from every other that is stored',
  'no neighbour': 'nothing near it is stored among requests with the same instructions',
  'endpoint has no messages': 'this endpoint has no messages', 'no messages': 'it has no messages',
  "last message is not the user's": 'its last message is not the user’s', 'last message is not one text': 'its last message is more than one text',
  'last message has no text': 'its last message has no text', 'tool result': 'it carries a tool’s result, which must not be taken from another request',
  'not text alone': 'it holds more than text', 'too long': 'its last message is too long to compare', empty: 'its last message is empty', 'no words': 'its last message has no words',
  freshness: 'it asks for something that changes by the hour', 'chance asked for': 'it asks for chance, so another’s answer would be wrong', "the asker's own record": 'it asks about the asker’s own record',
  'mixed script': 'its text mixes scripts within words', 'hidden characters': 'its text holds hidden characters', 'written to mislead': 'its text looks written to mislead a comparison',
  'repeats itself': 'its text repeats itself', 'too short': 'its text is too short to compare', 'busy or not loaded yet': 'the index was busy or not loaded yet',
};
const PARTS = { model: 'the model', 'system prompt': 'the system prompt', tools: 'the tools', settings: 'the settings', 'earlier turns': 'the earlier turns' };
const listed = (parts) => (parts.length === 1 ? `${parts[0]} ${parts[0].endsWith('s') ? 'differ' : 'differs'}` : `${parts.slice(0, -1).join(', ')} and ${parts.at(-1)} differ`);
const WHOLE = {
  'costs more than it saves': 'sending it shorter would save less than it costs', 'loses reads': 'it would break a prefix that the provider has cached',
  "falls below the provider's minimum": 'the shorter prompt would fall below what the provider caches at the least', 'no more than rounding may take': 'the provider’s steps of caching might take more than it saves',
  'no price is known': 'no price is known for its model, so nobody can say whether it pays', 'saves no tokens': 'nothing in it could be shortened',
  "what would be left out can't be kept": 'what would be left out could not be kept for later', 'the upstream refused the request with the tool': 'the upstream refused the tool that gives texts back',
};
const ANSWERED = {
  'hit-exact': () => 'Answered from the exact cache: the same request had been answered before. Nothing was bought.',
  'hit-semantic': (row) => `Answered with the stored answer to a near-duplicate${row.similarity === null ? '' : ` (similarity ${row.similarity.toFixed(3)})`}. ${proof(row)}`,
  joined: () => 'Joined an identical request that was already under way and got its answer. The one that started it carries the bill.',
  miss: (row) => `Missed the exact cache: ${({ '': 'no identical request is stored', 'older than max-age': 'the stored answer is older than the client’s max-age', 'stored in another shape': 'the answer is stored in a shape that this client can’t get', 'joined answer had another shape': 'the flight that it joined answered in another shape' })[row.cache_reason] ?? row.cache_reason}.`,
  bypass: (row) => `Passed the caches by${row.cache_reason ? `: ${BYPASSED[row.cache_reason] ?? row.cache_reason}` : ''}.`,
};
const OWN = { audit: 'farthing’s own call: it asked the upstream once more to check a hit that had been served', judge: 'farthing’s own call: it asked a model whether two requests want the same answer', shadow: 'farthing’s own call: it sent a request in its other form to compare the answers' };

function proof(row) {
  if (row.cache_reason.includes('unproven')) return 'No bound on wrong answers is proved for it.';
  return row.p_wrong === null ? 'Its route’s bound on wrong answers is proved.' : `Its route’s bound is proved; about ${share(row.p_wrong)} of such answers are wrong.`;
}

/** What each stage decided, from [stage, action, reason]; null for what an other sentence already says. */
const DECIDED = {
  semantic: (action, reason) => {
    if (action === 'late') return `Near-duplicates were not waited for: ${reason}.`;
    if (action === 'passed by') return `Not compared with near-duplicates: ${NO_LOOK[reason] ?? reason}.`;
    if (action === 'looked' && reason.startsWith('empty scope: ')) return `Missed the semantic cache: ${listed(reason.slice(13).split(', ').map((part) => PARTS[part] ?? part))} from the nearest entry’s, so it must not answer.`;
    if (action === 'looked') return `Missed the semantic cache: ${NO_LOOK[reason] ?? reason}.`;
    if (action === 'not judged') return `The second stage gave no judgement on the nearest entry (${reason}), so it was not served.`;
    const [score, why] = reason.split(/; (.*)/s);
    if (action === 'serve') return `The nearest entry was good enough to serve: ${score}${why ? `, ${why}` : ''}.`;
    return `The nearest entry was not served: ${score}${why ? `; ${why === 'would serve' ? 'it would be, but the mode is observe' : why}` : ''}.`;
  },
  compress: (action, reason) => {
    const loss = /, by (\$[0-9.]+)$/.exec(reason), plain = loss ? reason.slice(0, loss.index) : reason;
    const cost = loss ? `, and cost ${loss[1]} more over the conversation` : '';
    if (action === 'left') return `Not compressed: ${WHOLE[plain] ?? plain}${cost}.`;
    if (action === 'whole') return `Sent whole: ${WHOLE[plain] ?? plain}${cost}.`;
    if (action === 'observed') return `Only observed, nothing was changed: ${reason}.`;
    if (action === 'no tool') return `No tool for getting texts back was offered: ${reason}.`;
    if (action === 'retrieved') return `The model asked for texts that had been left out: ${reason}.`;
    if (action === 'plan') return `Compression was planned: ${reason}.`;
    const form = /^(.*): (\d+) tokens of new messages(?:, (\$[\d.]+) predicted)?, (-?\d+) of old ones$/.exec(reason);
    if (!form) return `Compressed (${action}): ${reason}.`;
    const [, rules, fresh, predicted, old] = form;
    return `Compressed (${action}, by ${rules.replaceAll('+', ' and ')}): ${counted(Number(fresh), 'token')} fewer in new messages${Number(old) ? `, ${count(Number(old))} in earlier ones` : ''}${predicted ? `; over the conversation that should save ${predicted}` : ''}.`;
  },
  tidy: (action, reason) => `White space in tools’ results was left out: ${reason}.`,
  route: (action, reason) => `Routed to ${reason}.`,
  store: (action, reason) => `The answer was not stored: ${reason}.`,
};
const SILENT = new Set(['eligible', 'exact']);

function decided([stage, action, reason]) {
  if (action === 'error') return `Stage ${stage} failed and was passed by${reason ? `: ${reason}` : ''}.`;
  if (action === 'left out') return `Stage ${stage} was left out: ${reason}.`;
  if (SILENT.has(stage) && !reason) return null;
  return DECIDED[stage]?.(String(action), String(reason ?? '')) ?? `${stage}: ${action}${reason ? ` (${reason})` : ''}.`;
}

/** What was decided, each once: a form and its tidied rest may have been left for one reason. */
function stories(decisions) {
  const left = new Set(decisions.filter(([stage, action]) => stage === 'compress' && action === 'left').map(([, , reason]) => reason));
  return decisions.filter(([stage, action, reason]) => !(stage === 'compress' && action === 'whole' && left.has(reason))).map((each) => [String(each[0]), decided(each)]);
}

function tokens(row) {
  const asked = row.tokens_in_original, sent = row.tokens_in_sent;
  if (asked === null || asked === undefined) return null;
  const told = [`${counted(asked, 'input token')} asked for`];
  if (sent === asked) told.push('all sent');
  else told.push(sent === 0 ? 'none sent' : sent < asked ? `${count(sent)} sent (${share(1 - sent / asked)} fewer)` : `${count(sent)} sent, more than were asked`);
  if (row.tokens_in_cached) told.push(`${count(row.tokens_in_cached)} read from the provider’s cache`);
  if (row.tokens_in_cache_write) told.push(`${count(row.tokens_in_cache_write)} written to it`);
  const out = row.tokens_out === null ? '' : ` ${counted(row.tokens_out, 'token')} out${row.tokens_reasoning ? `, ${count(row.tokens_reasoning)} of them reasoning` : ''}.`;
  return `${told.join(', ')}.${out}${row.usage_source === 'counted' ? ' Counted here, since the upstream didn’t say.' : ''}`;
}

function attempts(row) {
  const list = Array.isArray(row.attempts_detail) ? row.attempts_detail : [];
  return list.map((each, i) => {
    const said = each.status ? `answered ${each.status}` : 'gave no answer', wait = each.backoff_ms ? ` Then ${duration(each.backoff_ms)} of waiting.` : '';
    return `${list.length === 1 ? 'Upstream' : `Attempt ${i + 1}:`} ${each.upstream} ${said} in ${duration(each.duration_ms)}${each.error ? ` (${each.error})` : ''}.${wait}`;
  });
}

function price(row) {
  if (row.cost_usd === null || row.baseline_usd === null) return `No price is known for ${row.model_served || row.model_requested || 'this call'}, so no amount is named. Prices of own models go under prices.models.`;
  const loss = ['exact', 'semantic', 'compress', 'route', 'prompt_cache'].filter((cause) => Number(row[`saved_${cause}_usd`]) < 0);
  return [row.price_source ? `Prices from ${row.price_source}.` : '', row.modelled ? `Partly estimated: ${estimated(row)}.` : '',
    loss.length ? `It lost money by ${loss.join(' and ').replace('prompt_cache', 'the provider’s cache')}.` : ''].filter(Boolean).join(' ') || null;
}

/** What was estimated, as far as the row tells. */
function estimated(row) {
  if (row.usage_source === 'counted') return 'tokens were counted here';
  if (row.cache === 'hit-semantic') return 'the stored answer’s tokens stand for those of an answer of its own';
  if (row.compress) return 'the answer to the whole prompt might have had another length';
  return row.model_served !== row.model_requested ? 'the model asked for might have answered at another length' : 'not all of it was measured';
}

function ended(row) {
  if (row.outcome === 'abandoned') return 'The client left before the answer was complete.';
  if (row.outcome === 'failed') return `It failed${row.error ? `: ${row.error}` : ''}.`;
  return row.status >= 400 ? `The answer was an error, ${row.status}${row.error ? `: ${row.error}` : ''}.` : null;
}

/** Sentences on a row as the API has it, in the order of events. Each: {about, text}, `about` a stage or a topic. */
export function explain(row) {
  const list = Array.isArray(row.decisions) ? row.decisions : [];
  const decisions = list.map((each) => (Array.isArray(each) ? each : [each?.stage, each?.action, each?.reason]));
  const own = OWN[row.endpoint];
  return [
    ['cache', own ? `This is ${own} (${row.cache_reason}).` : ANSWERED[row.cache]?.(row) ?? `${row.cache}.`],
    ...stories(decisions),
    ...attempts(row).map((text) => ['upstream', text]),
    ['tokens', tokens(row)], ['price', price(row)], ['outcome', ended(row)],
  ].filter(([, text]) => text).map(([about, text]) => ({ about, text }));
}
