// What changes something, each after a question: removing stored answers here, and the ways that other panels share.
import { change } from './api.js';
import { counted } from './format.js';

const $ = (id) => document.getElementById(id);
const WHICH = {
  tag: ['NAME=VALUE', (value) => ({ tags: [value] }), (value) => `every answer that was stored with the tag ${value}`],
  model: ['model', (value) => ({ model: value }), (value) => `every answer to requests for ${value}`],
  source: ['document or source', (value) => ({ source: value }), (value) => `every answer that was stored with the source ${value}`],
  scope: ['scope', (value) => ({ scope: value }), (value) => `every answer to requests with x-farthing-scope: ${value}`],
  tenant: ['tenant', (value) => ({ tenant: value }), (value) => `every answer of the tenant ${value}, and what compression keeps of its prompts`],
  older_than: ['7d, 12h or 2026-01-31', (value) => ({ older_than: value }), (value) => `every answer that was stored before ${/^\d{4}-/.test(value) ? value : `the last ${value}`}`],
  key: ['key', (value) => ({ key: value }), (value) => `the answer with the key ${value}`],
  all: ['', () => ({}), () => 'every stored answer, and what compression keeps of prompts'],
};

let answer = () => {}; // to the question that stands

/** Ask; whether the answer was yes. Esc and Cancel are no. */
export function confirmed(title, words, yes) {
  answer(false);
  const dialog = $('confirm');
  $('confirm-title').textContent = title;
  $('confirm-words').textContent = words;
  $('confirm-yes').textContent = yes;
  dialog.returnValue = '';
  dialog.showModal();
  $('confirm-no').focus();
  return new Promise((done) => { answer = done; });
}

/** `after`: called once something has changed. */
export function start(after) {
  for (const [id, value] of [['confirm-yes', 'yes'], ['confirm-no', '']]) $(id).addEventListener('click', () => $('confirm').close(value));
  // The event comes after the closing: by then the next question may stand, which it is no answer to.
  $('confirm').addEventListener('close', () => { if (!$('confirm').open) answer($('confirm').returnValue === 'yes'); });
  const chosen = () => $('purge-which').value;
  const shown = () => { const [hint] = WHICH[chosen()]; $('purge-value').placeholder = hint; $('purge-value').hidden = !hint; $('purge-value').value = ''; said(''); };
  $('purge-which').addEventListener('change', shown);
  shown();
  $('purge').addEventListener('submit', async (event) => {
    event.preventDefault();
    const [hint, body, words] = WHICH[chosen()], value = $('purge-value').value.trim();
    if (hint && !value) { said('Say which: the field is empty.', true); $('purge-value').focus(); return; }
    if (!await confirmed('Remove stored answers?', `This removes ${words(value)}. It can’t be undone; such requests go upstream again, and are paid for.`, 'Remove')) return;
    await doing($('upkeep-said'), async () => {
      const { purged, near_duplicates: near } = await change('cache/purge', body(value));
      return `${counted(purged, 'answer')} removed${near ? `, ${near} of them known to near-duplicates` : ''}.`;
    }, after);
  });
}

/** Do what somebody asked for, and say in `said` what came of it. `after`: called where it was done. */
export async function doing(said, does, after = () => {}) {
  const say = (words, kind = 'soft') => { [said.textContent, said.className] = [words, kind]; };
  say('One moment …');
  try {
    say(await does());
    after();
  } catch (error) {
    say(`That did not work: ${error.message}.`, 'error');
  }
}

function said(words, wrong = false) {
  $('upkeep-said').textContent = words;
  $('upkeep-said').className = wrong ? 'error' : 'soft';
}
