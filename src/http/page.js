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

function show(entry) {
  let row = rows.get(entry.key);
  if (!row) {
    row = $('prices').insertRow();
    row.insertCell(); row.insertCell(); row.insertCell();
    row.cells[0].textContent = entry.key;
    rows.set(entry.key, row);
  }
  // What comes late may be older than what is shown. A snapshot says what is the latest.
  if (entry.snapshot) came.add(entry.key);
  else if (entry.late && row.dataset.time > entry.timestamp) return;
  row.dataset.time = entry.timestamp;
  if (entry.simulated === true) $('simulated').hidden = false;
  row.cells[1].textContent = entry.price ?? `${entry.bid} / ${entry.ask}`;
  row.cells[2].textContent = entry.timestamp;
}

function showState(message) {
  $('storage').textContent = `${message.storage_backend}, ${message.state}`;
}

function remove(key, removal) {
  const row = rows.get(key);
  if (!row || (removal.late && row.dataset.time > removal.timestamp)) return;
  row.remove();
  rows.delete(key);
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
    if (message.type === 'price_update') show(message);
    if (message.type === 'key_removed') remove(message.key, message);
    if (message.type === 'zone_removed') [...rows.keys()].forEach((key) => remove(key, message));
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
    if (message.snapshot && message.type !== 'price_update') came = new Set();
    if (message.type === 'snapshot_end' && message.recovered) {
      [...rows.keys()].filter((key) => !came.has(key)).forEach((key) => remove(key, {}));
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
