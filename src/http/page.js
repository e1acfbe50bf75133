// Shows one zone's prices as they come. A plain look at the stream, not the client library.
'use strict';
const $ = (id) => document.getElementById(id);
// A lost connection is tried again after 1, 2, 4, 8 and 16 s, each and up to 1 s more; then the user says when.
const TRIES_MAX = 5;
const ZONES_AFTER_MS = 5000;
// A connection may be dead without a word, as after a change of networks. Where the gateway, which says
// something every 30 s, has been quiet for 65 s, the page asks it, and takes the connection for dead if
// nothing comes until the second tick after that. It goes by ticks there, because while a tab sleeps it hears
// nothing and asks nothing.
const TICK_MS = 5000;
const ANSWER_TICKS = 2;
const DAY_MS = 86400000;
// The last entry of each key, a price or its removal. The removal of all keys has the key ''.
const last = new Map();
const rows = new Map();
// The keys that came in the snapshot that is under way.
let came = new Set();
let socket = null;
let shown = '';
let tries = 0;
let timer = 0;
let quietMs = 65000;
// When something last came, and the last tick; whether that came late; ticks since the gateway was asked.
let heard = 0;
let ticked = Date.now();
let wasLate = false;
let asked = 0;
// What the gateway said before it closed: why, and not to come back before so many milliseconds.
let refusal = '';
let retryAfterMs = 0;

// Whether an entry takes the place of the last one of its key: what comes late may be older.
function isNewer(entry, held) {
  if (!held || !entry.late) return true;
  // Who accepted it, and as which of its own.
  const [by, number] = entry.id.split('-');
  const [heldBy, heldNumber] = held.id.split('-');
  if (by === heldBy) return Number(number) >= Number(heldNumber);
  return entry.timestamp > held.timestamp || (entry.timestamp === held.timestamp && by > heldBy);
}

function take(entry) {
  const key = entry.type === 'zone_removed' ? '' : entry.key;
  // A snapshot says what is the latest.
  if (entry.snapshot) {
    came.add(key);
  } else {
    if (key === '') [...last].filter(([, held]) => isNewer(entry, held)).forEach(([other]) => forget(other));
    if (!isNewer(entry, last.get(key) ?? last.get(''))) return;
  }
  if (entry.type !== 'price_update') forget(key);
  last.set(key, entry);
  if (entry.type === 'price_update') show(key, entry);
}

function forget(key) {
  last.delete(key);
  rows.get(key)?.remove();
  rows.delete(key);
}

function show(key, entry) {
  let row = rows.get(key);
  if (!row) {
    row = $('prices').insertRow();
    row.insertCell(); row.insertCell(); row.insertCell();
    row.cells[0].textContent = key;
    rows.set(key, row);
  }
  if (entry.simulated === true) $('simulated').hidden = false;
  row.cells[1].textContent = entry.price ?? `${entry.bid} / ${entry.ask}`;
  row.cells[2].textContent = entry.timestamp;
}

// What is older than a removal of so long ago comes no more.
function forgetOldRemovals() {
  for (const [key, { type, timestamp }] of last) {
    if (type !== 'price_update' && Date.parse(timestamp) < Date.now() - DAY_MS) last.delete(key);
  }
}

function showState(message) {
  $('storage').textContent = `${message.storage_backend}, ${message.state}`;
}

function isFinal(code) {
  return [1000, 1002, 1003, 1007, 1009].includes(code) || (code >= 4500 && code <= 4999);
}

// Says when. How the gateway is cannot be said meanwhile.
function again(act, atLeast = 0) {
  $('storage').textContent = '…';
  if (tries >= TRIES_MAX) {
    $('again').hidden = false;
    $('again').onclick = () => { tries = 0; act(); };
    return 'not connecting again by itself';
  }
  const ms = Math.max(1000 * 2 ** tries + Math.random() * 1000, atLeast);
  tries += 1;
  timer = setTimeout(act, ms);
  return `connecting again in ${Math.round(ms / 1000)} s`;
}

// The connection that there is, and one that is to come, are no longer wanted.
function leave() {
  clearTimeout(timer);
  $('again').hidden = true;
  if (!socket) return;
  socket.onmessage = socket.onclose = null;
  socket.close();
  socket = null;
}

function reopen() {
  open(shown);
}

function open(zone) {
  leave();
  shown = zone;
  // Relative to the page, which a proxy may serve below a path of its own.
  const url = new URL(`ws/market/${encodeURIComponent(zone)}?snapshot=1`, document.baseURI);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  socket = new WebSocket(url);
  $('state').textContent = 'connecting';
  refusal = '';
  retryAfterMs = 0;
  heard = Date.now();
  asked = 0;
  socket.onmessage = (event) => {
    heard = Date.now();
    asked = 0;
    const message = JSON.parse(event.data);
    if (['price_update', 'key_removed', 'zone_removed'].includes(message.type)) take(message);
    if (message.type === 'connection_established' || message.type === 'backend_state') showState(message);
    if (message.heartbeat_interval_ms) {
      quietMs = Math.max(2.5 * message.heartbeat_interval_ms - ANSWER_TICKS * TICK_MS, message.heartbeat_interval_ms);
    }
    if (message.type === 'error' && !message.temporary) refusal = `: ${message.message}`;
    if (message.type === 'closing') retryAfterMs = message.retry_after_ms || 0;
    if (message.type === 'subscribed') {
      tries = 0;
      $('state').textContent = 'connected';
    }
    // What was shown before a snapshot may be old, or gone: keys that do not come in it are.
    if (message.snapshot && ['subscribed', 'resync'].includes(message.type)) came = new Set();
    if (message.type === 'snapshot_end' && message.recovered) {
      [...last.keys()].filter((key) => !came.has(key)).forEach(forget);
    }
  };
  socket.onclose = (event) => {
    socket = null;
    if (isFinal(event.code)) {
      $('state').textContent = `closed (${event.code} ${event.reason})${refusal}`;
      return;
    }
    $('state').textContent = `closed (${event.code}), ${again(reopen, retryAfterMs)}`;
  };
}

function tick() {
  const now = Date.now();
  const isLate = now - ticked > 2 * TICK_MS;
  // After a sleep what came meanwhile may still be on its way to here. Where each tick is late, as in a tab
  // that is not looked at, they count.
  const woke = isLate && !wasLate;
  ticked = now;
  wasLate = isLate;
  if (woke) asked = 0;
  // A clock that was set counts as silence too: asking does no harm.
  if (!socket || Math.abs(now - heard) < quietMs) return;
  if (asked >= ANSWER_TICKS) {
    leave();
    $('state').textContent = `nothing was heard for too long, ${again(reopen)}`;
    return;
  }
  if (asked === 0 && socket.readyState === WebSocket.OPEN) socket.send('{"type":"ping"}');
  asked += 1;
}

function choose(zone) {
  last.clear();
  rows.clear();
  $('prices').replaceChildren();
  $('simulated').hidden = true;
  open(zone);
}

async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`the gateway answered ${answer.status}`);
  return answer.json();
}

async function start() {
  $('again').hidden = true;
  try {
    showState(await get('ws/health'));
    const { zones } = await get('api/zones');
    tries = 0;
    if (zones.length === 0) {
      $('state').textContent = 'no zone has prices yet';
      setTimeout(start, ZONES_AFTER_MS);
      return;
    }
    $('zones').replaceChildren(...zones.map(({ zone }) => new Option(zone, zone)));
    $('zones').onchange = () => choose($('zones').value);
    choose(zones[0].zone);
  } catch (error) {
    $('state').textContent = `${error.message}, ${again(start)}`;
  }
}

setInterval(tick, TICK_MS);

start();
setInterval(forgetOldRemovals, DAY_MS / 24);
